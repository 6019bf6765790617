"""The leading tokens of rows -> their keys, values and states from earlier calls, for models with recurrent layers.

A state has the size of some hundred tokens' keys and values, and prefixes of all lengths have one each, so every prefix
has tensors of its own. The least recently used are evicted first, to the CPU's memory.
"""

from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from onelogit.engine.attention.backend import KeyValue, LayerKeyValues
from onelogit.engine.attention.recurrent import LayerStates, State
from onelogit.engine.prefix_tree import CachedPrefix, Ids
from onelogit.errors import InputError


class CachedStates(NamedTuple):
    """States in the cache, and the index of each by the slot that ends its prefix."""

    layers: LayerStates
    indices: Mapping[int, int]


class StateCache:
    """Keys, values and last states of prefixes, kept between calls of one model; like `PrefixCache`. Not thread-safe.

    Args:
        one_token: keys and values of one token.
        one_state: the states after it.
        max_bytes: memory on the devices of the model's layers, allocated as needed.
        max_host_bytes: CPU memory for evicted prefixes, allocated as needed; 0 for none.

    Raises:
        InputError: one of the two is not 0, but too small for a prefix of one token.
    """

    def __init__(
        self, one_token: LayerKeyValues, one_state: LayerStates, max_bytes: int, max_host_bytes: int = 0
    ) -> None:
        self._like = _Entry(one_token, one_state)
        options = {"document_cache_bytes": max_bytes, "document_cache_host_bytes": max_host_bytes}
        for name, limit in options.items():
            if 0 < limit < self._like.byte_count:
                needed = f"one token and the states after it take {self._like.byte_count} bytes"
                raise InputError(f"{name}={limit} is too small: {needed}")
        self._device, self._host = _Tier(max_bytes), _Tier(max_host_bytes)
        self._found: dict[Ids, int] = {}

    @property
    def held_bytes(self) -> int:
        """Bytes of everything cached, on the device and on the host."""
        return self._device.held_bytes + self._host.held_bytes

    @property
    def layers(self) -> LayerKeyValues:
        """The keys and values to which the spans of the found prefixes refer."""
        found = [self._device.entries[ids].key_values for ids in self._found]
        return [KeyValue(*map(torch.cat, zip(*layer, strict=True))) for layer in zip(*found, strict=True)]

    @property
    def states(self) -> CachedStates:
        """The states after the found prefixes."""
        found = [self._device.entries[ids].states for ids in self._found]
        layers = [State(*map(torch.cat, zip(*layer, strict=True))) for layer in zip(*found, strict=True)]
        return CachedStates(layers, {start + len(ids): at for at, (ids, start) in enumerate(self._found.items())})

    def find(self, ids: Ids, cacheable_lengths: Sequence[int]) -> CachedPrefix | None:
        """As `PrefixCache.find`, but the spans are valid only until `unpin`."""
        for length in reversed(cacheable_lengths):
            if length < len(ids) and (cached := self._find(ids[:length])) is not None:
                return cached
        return None

    def unpin(self) -> None:
        """Forget all found prefixes, and allow their eviction; call it once they have been read."""
        self._found.clear()

    def clear(self) -> None:
        """Forget all prefixes."""
        self.unpin()
        for tier in (self._device, self._host):
            tier.remove([*tier.entries])

    def insert(self, prefixes: Sequence[Ids], key_values: LayerKeyValues, states: LayerStates) -> None:
        """Cache the last prefixes that fit; the keys and values contain all in order, the states have one for each.

        Raises RuntimeError without memory.
        """
        new: dict[Ids, _Entry] = {}
        for index, (start, stop) in enumerate(pairwise(accumulate(map(len, prefixes), initial=0))):
            if not self._device.touch(prefixes[index]):
                own = [State(*(tensor[index : index + 1] for tensor in layer)) for layer in states]
                new[prefixes[index]] = _Entry([layer.part(start, stop) for layer in key_values], own)
        on_device = _last_that_fit(new, self._device.max_bytes)
        if not self._evict(sum(entry.byte_count for entry in on_device.values())):
            on_device = {}
        self._device.add({ids: entry.copied_to(self._like) for ids, entry in on_device.items()})
        self._host.remove(on_device)
        # A prefix larger than the device's memory could never come back from the host.
        most = self._device.max_bytes
        self._to_host({ids: each for ids, each in new.items() if ids not in on_device and each.byte_count <= most})

    def _find(self, ids: Ids) -> CachedPrefix | None:
        if not self._device.touch(ids):
            entry = self._host.entries.get(ids)
            if entry is None:
                return None
            self._host.remove([ids])  # first, so that those evicted for it do not evict it
            if not self._evict(entry.byte_count):
                self._host.add({ids: entry})
                return CachedPrefix(len(ids), None)
            self._device.add({ids: entry.copied_to(self._like)})
        start = self._found.setdefault(ids, sum(map(len, self._found)))
        return CachedPrefix(len(ids), [(start, start + len(ids))])

    def _evict(self, byte_count: int) -> bool:
        """Move the least recently used prefixes to the host; returns False if the found ones leave too little room."""
        evicted = self._device.least_recent(byte_count, self._found)
        if evicted is None:
            return False
        self._to_host(evicted)
        self._device.remove(evicted)
        return True

    def _to_host(self, entries: "_Entries") -> None:
        fitting = _last_that_fit(entries, self._host.max_bytes)
        self._host.remove(fitting)
        self._host.remove(self._host.least_recent(sum(entry.byte_count for entry in fitting.values())) or ())
        self._host.add({ids: entry.copied_to(None) for ids, entry in fitting.items()})


class _Entry(NamedTuple):
    """What one prefix needs."""

    key_values: LayerKeyValues
    states: LayerStates

    @property
    def byte_count(self) -> int:
        return sum(tensor.nbytes for layer in (*self.key_values, *self.states) for tensor in layer)

    def copied_to(self, other: "_Entry | None") -> "_Entry":
        """A copy on the devices of another entry, or in the CPU's memory."""
        key_values = self.key_values if other is None else other.key_values
        states = self.states if other is None else other.states

        def copied(tensor: Tensor, like: Tensor) -> Tensor:
            return tensor.to("cpu" if other is None else like.device, copy=True)

        return _Entry(
            [KeyValue(*map(copied, own, like)) for own, like in zip(self.key_values, key_values, strict=True)],
            [State(*map(copied, own, like)) for own, like in zip(self.states, states, strict=True)],
        )


_Entries = Mapping[Ids, _Entry]


class _Tier:
    """Prefixes in one memory, in the order of their last use."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.held_bytes = 0
        self.entries: OrderedDict[Ids, _Entry] = OrderedDict()

    def touch(self, ids: Ids) -> bool:
        """Mark a prefix as the most recently used; returns whether this tier contains it."""
        is_cached = ids in self.entries
        if is_cached:
            self.entries.move_to_end(ids)
        return is_cached

    def add(self, entries: _Entries) -> None:
        """Add prefixes, which must fit and be new."""
        self.entries.update(entries)
        self.held_bytes += sum(entry.byte_count for entry in entries.values())

    def remove(self, prefixes: Collection[Ids]) -> None:
        """Remove those of some prefixes that are here."""
        removed = [self.entries.pop(ids) for ids in prefixes if ids in self.entries]
        self.held_bytes -= sum(entry.byte_count for entry in removed)

    def least_recent(self, byte_count: int, pinned: Collection[Ids] = ()) -> _Entries | None:
        """The prefixes to remove so that some bytes fit; None if pinned prefixes leave too little room."""
        found: dict[Ids, _Entry] = {}
        missing = self.held_bytes + byte_count - self.max_bytes
        for ids, entry in self.entries.items():
            if missing <= 0:
                break
            if ids not in pinned:
                found[ids] = entry
                missing -= entry.byte_count
        return found if missing <= 0 else None


def _last_that_fit(entries: _Entries, room: int) -> _Entries:
    """The last prefixes that fit into some bytes, in their order."""
    fitting: dict[Ids, _Entry] = {}
    for ids in reversed([*entries]):
        if entries[ids].byte_count <= room:
            fitting[ids] = entries[ids]
            room -= entries[ids].byte_count
    return dict(reversed(fitting.items()))
