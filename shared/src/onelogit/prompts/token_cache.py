"""Texts -> the token ids they were read as before. Knows no tokenizer."""

import sys
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from threading import Lock
from typing import NamedTuple, TypeAlias

Ids: TypeAlias = "array[int]"


class _Kept(NamedTuple):
    ids: Ids
    held_bytes: int


class TokenCache:
    """A bounded memory, the least recently used out first. Safe to share between threads.

    Args:
        max_bytes: of texts and ids together; what Python needs to find them comes on top.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held_bytes = 0
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._lock = Lock()

    def __reduce__(self) -> tuple[type["TokenCache"], tuple[int]]:
        return TokenCache, (self._max_bytes,)  # a lock cannot be copied; a copy begins empty

    def find(self, texts: Iterable[str]) -> dict[str, Ids]:
        """The ids of those texts that are known. They are the memory's own: read them, and change nothing."""
        found = {}
        with self._lock:
            for text in texts:
                if text in self._kept:
                    self._kept.move_to_end(text)
                    found[text] = self._kept[text].ids
        return found

    def keep(self, ids_of: Mapping[str, Ids]) -> None:
        """Remember what texts are read as."""
        with self._lock:
            for text, ids in ids_of.items():
                kept = _Kept(ids, sys.getsizeof(text) + sys.getsizeof(ids))
                if text in self._kept or kept.held_bytes > self._max_bytes:
                    continue
                self._kept[text] = kept
                self._held_bytes += kept.held_bytes
            while self._held_bytes > self._max_bytes:
                _, oldest = self._kept.popitem(last=False)
                self._held_bytes -= oldest.held_bytes
