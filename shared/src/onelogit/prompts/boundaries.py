"""A span of text -> shorter spans, cut where the tokenizer separates tokens whatever text the caller inserts.

Most tokenizers split a text into words before they merge characters within each word. If a text is always split at some
position, both sides have the same ids alone as in the whole text. Each position is verified with the tokenizer itself,
with characters of every kind next to it. A tokenizer that depends on more than one character ahead or back cannot be
verified in this way, so its spans are never cut.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain, product
from typing import Any, Self

from tokenizers import Tokenizer, models

from onelogit.prompts.layout import Part, Span

# In Unicode normalisation, no character composes with an ASCII character after it: a cut before one changes nothing.
_LOCAL_NORMALIZERS = {"NFC", "NFD", "NFKC", "NFKD"}
# The only assertion in GPT-like patterns. It looks at the next character, which is constant text after every cut.
_ONE_AHEAD = r"(?!\S)"
_ASSERTION = re.compile(r"\(\?[=!<]|(?<!\[)\^|\$|\\[bBAzZGKkyY\d]")

# Texts that may be next to a cut: one character of each kind, rare kinds, and sequences that patterns treat specially.
_KINDS = "a \n.1'\t\r漢각\u0301😀"
_RARE = (
    "Aßéйאاकไあア각ʰǅªİſﬁ²٣Ⅷ①—«»¿、。€×´¨˙©"
    "\u0338\u093e\u1161\u11a8\u20dd\u3099\u00a0\u3000\u2028\u2029\u200b\u200d\ufe0f\ufeff\u00ad\u0085\ue000\ufdd0"
)
_LONGER = ("   ", "\t\t\t", "\n\n\n", "\r\n\r\n", " \n ", "111", "1111", "...", "'re", "'ve", "'LL", "re", "ve", "ll")
_ASCII = map(chr, range(128))
_AFTER = tuple(dict.fromkeys([*_KINDS, "", *_LONGER, *_RARE, *_ASCII]))
_BEFORE = tuple(dict.fromkeys([*_AFTER, *map("".join, product(_KINDS, _KINDS))]))
_PARTNERS = 3  # the first texts of each side, a letter, a space and a newline, are combined with all of the other side


def cut_at_boundaries(span: Span, tokenizer: Tokenizer) -> Iterator[Span]:
    """The span, cut into spans that have as little constant text around each of the caller's texts as possible.

    The tokenizer tokenises spans with nothing before or after them.
    """
    splitter = _Splitter.of(tokenizer) if _is_local(tokenizer) else None
    current: list[Part] = []
    for index, part in enumerate(span):
        start = 0
        is_first, is_last = index == 0, index == len(span) - 1
        for position in _boundaries(splitter, part.text, is_first, is_last) if splitter else ():
            yield (*current, Part(part.text[start:position]))
            current, start = [], position
        current.append(part._replace(text=part.text[start:]))
    yield tuple(current)


@dataclass(frozen=True, slots=True)
class _Splitter:
    """The steps of a tokenizer that split a text into words. Splitters with the same settings are equal."""

    state: tuple[bytes, ...]
    steps: tuple[Any, Any] = field(compare=False)

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Self:
        steps = tokenizer.normalizer, tokenizer.pre_tokenizer
        return cls(tuple(b"" if step is None else step.__getstate__() for step in steps), steps)

    def split(self, text: str) -> list[str]:
        normalizer, pre_tokenizer = self.steps
        normal = text if normalizer is None else normalizer.normalize_str(text)
        return [word for word, _ in pre_tokenizer.pre_tokenize_str(normal)]


@lru_cache(maxsize=256)
def _boundaries(splitter: _Splitter, text: str, is_first: bool, is_last: bool) -> tuple[int, ...]:
    """The cuts in constant text: as early as possible after the caller's text, and as late as possible before it."""
    # Only between ASCII characters of the constant text, so that the caller's text is never next to a cut.
    positions = [position for position in range(1, len(text)) if text[position - 1 : position + 1].isascii()]
    before, after = ("",) if is_first else _BEFORE, ("",) if is_last else _AFTER

    def first_boundary(candidates: Iterable[int]) -> set[int]:
        for position in candidates:
            lefts, rights = [b + text[:position] for b in before], [text[position:] + a for a in after]
            if _always_splits(splitter, lefts, rights):
                return {position}
        return set()

    earliest = set() if is_first else first_boundary(positions)
    latest = set() if is_last else first_boundary(reversed(positions))
    return tuple(sorted(earliest | latest))


def _always_splits(splitter: _Splitter, lefts: list[str], rights: list[str]) -> bool:
    """Whether each left text followed by a right text is split into the same words as the two alone."""
    alone = lru_cache(maxsize=None)(splitter.split)
    pairs = chain(product(lefts[:_PARTNERS], rights), product(lefts[_PARTNERS:], rights[:_PARTNERS]))
    return all(splitter.split(left + right) == alone(left) + alone(right) for left, right in pairs)


def _is_local(tokenizer: Tokenizer) -> bool:
    """Whether ids depend only on words, and the ends of words only on the closest characters."""
    model = tokenizer.model
    merges_words = isinstance(model, models.BPE) and not model.dropout and tokenizer.pre_tokenizer is not None
    if not merges_words or tokenizer.get_added_tokens_decoder():
        return False  # an added token may begin in the caller's text and end in the constant text
    components = tokenizer.normalizer, tokenizer.pre_tokenizer
    return all(component is None or _is_local_step(json.loads(component.__getstate__())) for component in components)


def _is_local_step(step: Mapping[str, Any]) -> bool:
    """Whether a normalizer or pre-tokenizer, given as in tokenizer.json, depends only on the closest characters."""
    match step:
        case {"pretokenizers": steps} | {"normalizers": steps}:
            return all(map(_is_local_step, steps))
        case {"type": "Split", "pattern": {"Regex": pattern}}:
            return not _ASSERTION.search(pattern.replace(_ONE_AHEAD, ""))
        case {"type": "ByteLevel", "add_prefix_space": False} | {"type": "Digits"}:
            return True
        case _:
            return step["type"] in _LOCAL_NORMALIZERS
