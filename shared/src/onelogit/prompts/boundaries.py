"""A run of text -> shorter runs, cut where a tokenizer begins anew whatever a caller writes.

A tokenizer that splits a text into pieces before it merges within them gives both sides of such a place the ids that
they have in the whole. A place is proved on the tokenizer itself, between neighbours of every kind. Tokenizers that
look further than one character ahead or behind could not be proved so, and are never trusted.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain, product
from typing import Any, Self

from tokenizers import Tokenizer, models

from onelogit.prompts.template import Part

Run = tuple[Part, ...]

# They compose and decompose; nothing composes with an ASCII character that stands to its right.
_NORMALIZERS = {"NFC", "NFD", "NFKC", "NFKD"}
# The one assertion that GPT-like patterns need sees one character, which is then a constant one.
_ONE_AHEAD = r"(?!\S)"
_ASSERTION = re.compile(r"\(\?[=!<]|(?<!\[)\^|\$|\\[bBAzZGKkyY\d]")

_KINDS = "a \n.1'\t\r漢각\u0301😀"
_RARE = (
    "Aßéйאاकไあア각ʰǅªİſﬁ²٣Ⅷ①—«»¿、。€×´¨˙©"
    "\u0338\u093e\u1161\u11a8\u20dd\u3099\u00a0\u3000\u2028\u2029\u200b\u200d\ufe0f\ufeff\u00ad\u0085\ue000\ufdd0"
)
_LONGER = ("   ", "\t\t\t", "\n\n\n", "\r\n\r\n", " \n ", "111", "1111", "...", "'re", "'ve", "'LL", "re", "ve", "ll")
_ASCII = map(chr, range(128))
_BEHIND = tuple(dict.fromkeys([*_KINDS, "", *_LONGER, *_RARE, *_ASCII]))
_BEFORE = tuple(dict.fromkeys([*_BEHIND, *map("".join, product(_KINDS, _KINDS))]))
_COMPANIONS = 3  # so many of the first stand against each of the others


def cut_at_boundaries(run: Run, tokenizer: Tokenizer) -> Iterator[Run]:
    """The run in pieces: each caller's text with as little constant text around it as may be.

    Args:
        run: text that is tokenised whole, with nothing in front of it and nothing behind.
        tokenizer: the one that is to read the pieces.
    """
    splitter = _Splitter.of(tokenizer) if _looks_no_further(tokenizer) else None
    piece: list[Part] = []
    for index, part in enumerate(run):
        start = 0
        is_first, is_last = index == 0, index == len(run) - 1
        for place in _forced_places(splitter, part.text, is_first, is_last) if splitter else ():
            yield (*piece, Part(part.text[start:place]))
            piece, start = [], place
        piece.append(part._replace(text=part.text[start:]))
    yield tuple(piece)


@dataclass(frozen=True, slots=True)
class _Splitter:
    """Text -> the pieces within which a tokenizer merges. Splitters that do the same are equal."""

    state: tuple[bytes, ...]
    stages: tuple[Any, Any] = field(compare=False)

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Self:
        stages = tokenizer.normalizer, tokenizer.pre_tokenizer
        return cls(tuple(b"" if stage is None else stage.__getstate__() for stage in stages), stages)

    def split(self, text: str) -> list[str]:
        normalizer, pre_tokenizer = self.stages
        normal = text if normalizer is None else normalizer.normalize_str(text)
        return [piece for piece, _ in pre_tokenizer.pre_tokenize_str(normal)]


@lru_cache(maxsize=256)
def _forced_places(splitter: _Splitter, text: str, is_first: bool, is_last: bool) -> tuple[int, ...]:
    """Where to cut constant text: as soon as can be behind a caller's text, as late as can be before the next."""
    # Constant on both sides, so that no caller's text touches a cut.
    places = [place for place in range(1, len(text)) if text[place - 1 : place + 1].isascii()]
    before, behind = ("",) if is_first else _BEFORE, ("",) if is_last else _BEHIND

    def first_forced(candidates: Iterable[int]) -> set[int]:
        for place in candidates:
            lefts, rights = [b + text[:place] for b in before], [text[place:] + b for b in behind]
            if _is_forced(splitter, lefts, rights):
                return {place}
        return set()

    soon = set() if is_first else first_forced(places)
    late = set() if is_last else first_forced(reversed(places))
    return tuple(sorted(soon | late))


def _is_forced(splitter: _Splitter, lefts: list[str], rights: list[str]) -> bool:
    """Whether each left and right text fall into the same pieces together as alone."""
    alone = lru_cache(maxsize=None)(splitter.split)
    some = chain(product(lefts[:_COMPANIONS], rights), product(lefts[_COMPANIONS:], rights[:_COMPANIONS]))
    return all(splitter.split(left + right) == alone(left) + alone(right) for left, right in some)


def _looks_no_further(tokenizer: Tokenizer) -> bool:
    """Whether ids are known to depend on pieces alone, and where a piece ends on its closest neighbours."""
    model = tokenizer.model
    merges_pieces = isinstance(model, models.BPE) and not model.dropout and tokenizer.pre_tokenizer is not None
    if not merges_pieces or tokenizer.get_added_tokens_decoder():
        return False  # an added token may begin in a caller's text and end in the constant
    steps = [*_steps(tokenizer.normalizer), *_steps(tokenizer.pre_tokenizer)]
    return all(_is_local(step) for step in steps)


def _steps(stage: Any) -> Iterator[Mapping[str, Any]]:
    """The steps of a normalizer or pre-tokenizer, as tokenizer.json writes them."""
    remaining = [] if stage is None else [json.loads(stage.__getstate__())]
    while remaining:
        step = remaining.pop()
        inner = step.get("pretokenizers", step.get("normalizers"))
        if inner is None:
            yield step
        else:
            remaining += inner


def _is_local(step: Mapping[str, Any]) -> bool:
    match step:
        case {"type": "Split", "pattern": {"Regex": pattern}}:
            return not _ASSERTION.search(pattern.replace(_ONE_AHEAD, ""))
        case {"type": "ByteLevel", "add_prefix_space": False} | {"type": "Digits"}:
            return True
        case _:
            return step["type"] in _NORMALIZERS
