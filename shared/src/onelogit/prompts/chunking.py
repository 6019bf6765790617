"""The span of a document that does not fit -> chunks of the document that fit, as ids and as text."""

from collections.abc import Iterator
from typing import NamedTuple

from tokenizers import Encoding

from onelogit.errors import InputError

_OVERLAP = 8  # a chunk repeats 1/8 of the chunk before, so that a passage cut by one of them is whole in the other


class Chunk(NamedTuple):
    """A part of a document.

    Attributes:
        ids: of the document's span, with only this part of the document.
        start, end: of the part in the text of the span, in characters.
    """

    ids: list[int]
    start: int
    end: int


def cut_into_chunks(encoding: Encoding, document: tuple[int, int], excess: int, max_tokens: int) -> Iterator[Chunk]:
    """The document's first tokens, as many as fit, then the following chunks.

    The last chunk is as long as the others, so that it is not scored by only a few words.

    Args:
        encoding: of the document's span.
        document: the beginning and end of the document in the text of the span, in characters.
        excess: the number of tokens by which the row is too long.
        max_tokens: the limit of the row, for the error message.

    Raises:
        InputError: not even one token fits.
    """
    start, end = document
    # A token that joins the document's last characters with constant text does not belong to the document.
    inside = [i for i, (first, last) in enumerate(encoding.offsets) if start <= first and last <= end]
    room = len(inside) - excess
    if room < 1:
        raise InputError(
            f"the query, the instruction and the constant text of the prompt take {max_tokens - room} tokens, which "
            f"leaves no room for a document in max_tokens={max_tokens}: {1 - room} too many. Shorten the query or "
            "raise max_tokens"
        )
    ids, offsets = encoding.ids, encoding.offsets
    before, after = ids[: inside[0]], ids[inside[-1] + 1 :]
    for begin in (*range(0, excess, room - room // _OVERLAP), excess):
        first, last = inside[begin], inside[begin + room - 1]
        yield Chunk([*before, *ids[first : last + 1], *after], offsets[first][0], offsets[last][1])
