"""Some texts and a tokenizer -> as many different texts as a benchmark needs."""

import random
from collections.abc import Iterator, Sequence

from tokenizers import Tokenizer

from onelogit.errors import InputError
from onelogit.io.text_files import TextCollection
from onelogit.prompts.tokenizer import without_limits

_MIN_WORDS_TO_SHUFFLE = 5  # fewer words have too few orders
_ATTEMPTS = 4


class TextSupply:
    """Texts that differ from all texts supplied before: first the given ones, then the same words in other orders.

    Args:
        texts: at least one document and one query.
        tokenizer: of the model, to build documents of a given length; None if no lengths are used.

    Attributes:
        as_given: number of supplied documents that are in `texts`.
        made_up: number of supplied documents that are not in `texts`.
    """

    def __init__(self, texts: TextCollection, tokenizer: Tokenizer | None) -> None:
        self._documents = _without_repeats(texts.documents)
        self._queries = _without_repeats(texts.queries)
        self._tokenizer = None if tokenizer is None else without_limits(tokenizer)
        self._given = set(texts.documents)
        self._supplied: set[str] = set()
        self.as_given = self.made_up = 0

    def query(self) -> str:
        """A new query."""
        return next(self._queries)

    def documents(self, count: int, tokens: int | None = None) -> list[str]:
        """New documents: as long as the texts, or of about `tokens` tokens each."""
        return [self._document(tokens) for _ in range(count)]

    def _document(self, tokens: int | None) -> str:
        candidates = (self._candidate(tokens) for _ in range(_ATTEMPTS))
        document = next((text for text in candidates if text not in self._supplied), None)
        if document is None:  # a length of one or two tokens has few different texts
            document = f"{self._candidate(tokens)} {len(self._supplied)}"
        self._supplied.add(document)
        self.as_given += document in self._given
        self.made_up += document not in self._given
        return document

    def _candidate(self, tokens: int | None) -> str:
        if tokens is None:
            return next(self._documents)
        if self._tokenizer is None:
            raise InputError("documents of a given length need the model's tokenizer")
        text, ends = "", list[int]()
        while len(ends) < tokens:
            text = f"{text} {next(self._documents)}".strip()
            ends = [end for _, end in self._tokenizer.encode(text, add_special_tokens=False).offsets]
        return text[: ends[tokens - 1]]


def _without_repeats(texts: Sequence[str]) -> Iterator[str]:
    """The texts, then endless variants of them, none twice."""
    distinct = list(dict.fromkeys(texts))
    yield from distinct
    seen = set(distinct)
    chance = random.Random(0)  # noqa: S311  the same texts in every run
    while True:
        for text in distinct:
            variant = _variant(text, seen, chance)
            seen.add(variant)
            yield variant


def _variant(text: str, seen: set[str], chance: random.Random) -> str:
    words = text.split()
    for _ in range(_ATTEMPTS):
        if len(words) >= _MIN_WORDS_TO_SHUFFLE:
            chance.shuffle(words)
            variant = " ".join(words)
        else:  # few words, or a script without spaces
            start = chance.randrange(len(text))
            variant = f"{text[start:]}{text[:start]}"
        if variant.strip() and variant not in seen:
            return variant
    return f"{text} {len(seen)}"
