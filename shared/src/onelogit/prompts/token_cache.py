"""Texts -> their token ids, if they were tokenised lately."""

import sys
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import TypeAlias

from onelogit.processes import new_lock

Ids: TypeAlias = "array[int]"


class TokenCache:
    """Token ids by text; the least recently used are evicted first. Safe to share between threads.

    Texts and ids together take at most `max_bytes`, without the overhead of the dictionary.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._used_bytes = 0
        self._ids_of: OrderedDict[str, Ids] = OrderedDict()
        self._lock = new_lock()

    def __reduce__(self) -> tuple[type["TokenCache"], tuple[int]]:
        return TokenCache, (self._max_bytes,)  # a lock cannot be copied; a copy is empty

    def find(self, texts: Iterable[str]) -> dict[str, Ids]:
        """The ids of the texts that are cached. Do not change them: they belong to the cache."""
        found = {}
        with self._lock:
            for text in texts:
                if text in self._ids_of:
                    self._ids_of.move_to_end(text)
                    found[text] = self._ids_of[text]
        return found

    def add(self, ids_of: Mapping[str, Ids]) -> None:
        """Cache the ids of some texts."""
        with self._lock:
            for text, ids in ids_of.items():
                if text not in self._ids_of and _byte_count(text, ids) <= self._max_bytes:
                    self._ids_of[text] = ids
                    self._used_bytes += _byte_count(text, ids)
            while self._used_bytes > self._max_bytes:
                self._used_bytes -= _byte_count(*self._ids_of.popitem(last=False))


def _byte_count(text: str, ids: Ids) -> int:
    return sys.getsizeof(text) + sys.getsizeof(ids)
