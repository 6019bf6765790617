"""The pairs of one call -> portions, of which a device computes one while the next is tokenised. Knows no tokens."""

from collections.abc import Iterator, Sequence

_BYTES_PER_TOKEN = 4  # of UTF-8, about


def in_portions(
    pairs: Sequence[tuple[str, str]], batch_tokens: int, max_tokens: int, *, is_document_first: bool
) -> Iterator[list[int]]:
    """The places of the pairs, portion by portion; all in one where there are too few to be worth more.

    Pairs whose prompts begin alike stand together, for what they share is computed once in each portion. Pairs that
    are alike are never parted.

    Args:
        pairs: queries and documents.
        batch_tokens: most tokens in one forward pass.
        max_tokens: longest row.
        is_document_first: whether prompts begin with the document.
    """
    texts = [(document, query) if is_document_first else (query, document) for query, document in pairs]
    order = sorted(range(len(pairs)), key=texts.__getitem__)
    added = [*_added_bytes([texts[place] for place in order], max_tokens * _BYTES_PER_TOKEN)]
    # Each pass has to be launched, which the device must have enough to do to hide: so no small portions, none that
    # leaves a smaller one behind, and the next no larger than is tokenised while this one is computed.
    most = batch_tokens * _BYTES_PER_TOKEN
    wanted, held, left = most / 4, 0, sum(added)
    portion: list[int] = []
    for place, count in zip(order, added, strict=True):
        if count and wanted <= held <= left:
            yield portion
            wanted, held, portion = min(2 * wanted, most), 0, []
        portion.append(place)
        held, left = held + count, left - count
    yield portion


def _added_bytes(texts: Sequence[tuple[str, str]], most: int) -> Iterator[int]:
    """What each pair adds to the one before it; 0 where they are alike."""
    before = ("", "")
    for pair in texts:
        first, second = (min(len(text.encode()), most) for text in pair)
        yield 0 if pair == before else second if pair[0] == before[0] else first + second
        before = pair
