"""Some texts and a tokenizer -> as many texts as a measurement asks for, never the same one twice."""

import random
from collections.abc import Callable, Iterator, Sequence

from tokenizers import Tokenizer

from onelogit.errors import InputError
from onelogit.io.text_files import Texts
from onelogit.prompts.tokenizer import without_limits

_FEWEST_WORDS = 5  # of a text with fewer, other orders are too few
_ATTEMPTS = 4


class Supply:
    """Texts that nobody has scored before: first those given, then the same with their words in other orders.

    Args:
        texts: one document and one query at least.
        tokenizer: of the model, to make documents of a length; None where nobody asks for one.

    Attributes:
        as_given: documents handed out that stand in `texts` as they are.
        made_up: documents handed out that do not.
    """

    def __init__(self, texts: Texts, tokenizer: Tokenizer | None) -> None:
        self._documents = _fresh(texts.documents)
        self._queries = _fresh(texts.queries)
        self._tokenizer = None if tokenizer is None else without_limits(tokenizer)
        self._given = set(texts.documents)
        self._seen: set[str] = set()
        self.as_given = 0
        self.made_up = 0

    def query(self) -> str:
        """One query."""
        return next(self._queries)

    def documents(self, count: int, tokens: int | None = None) -> list[str]:
        """So many documents: as long as the texts are, or of about so many tokens each."""
        return [self._document(tokens) for _ in range(count)]

    def _document(self, tokens: int | None) -> str:
        make: Callable[[], str] = (lambda: next(self._documents)) if tokens is None else (lambda: self._of(tokens))
        made = (make() for _ in range(_ATTEMPTS))
        document = next((text for text in made if text not in self._seen), None)
        if document is None:  # of so short a length there are no more
            document = f"{make()} {len(self._seen)}"
        self._seen.add(document)
        is_given = document in self._given
        self.as_given, self.made_up = self.as_given + is_given, self.made_up + (not is_given)
        return document

    def _of(self, tokens: int) -> str:
        text, offsets = "", list[tuple[int, int]]()
        while len(offsets) < tokens:
            text = f"{text} {next(self._documents)}".strip()
            offsets = self._offsets(text)
        return text[: offsets[tokens - 1][1]]

    def _offsets(self, text: str) -> list[tuple[int, int]]:
        """Where each token begins and ends in the text."""
        if self._tokenizer is None:
            raise InputError("a length in tokens needs the model's tokenizer")
        return list(self._tokenizer.encode(text, add_special_tokens=False).offsets)


def _fresh(texts: Sequence[str]) -> Iterator[str]:
    """The texts, then variants of them without end, none twice."""
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
        if len(words) >= _FEWEST_WORDS:
            chance.shuffle(words)
            variant = " ".join(words)
        else:  # no words to speak of, or a script without spaces
            place = chance.randrange(len(text))
            variant = f"{text[place:]}{text[:place]}"
        if variant.strip() and variant not in seen:
            return variant
    return f"{text} {len(seen)}"
