"""The leading tokens of rows -> their keys and values from earlier calls; the least recently used are evicted first.

Prefixes evicted from the model's device move to the CPU's memory, and back when they are needed.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import accumulate

from onelogit.engine.allocator import Allocator, Extent, split
from onelogit.engine.attention.backend import LayerKeyValues
from onelogit.engine.kv_cache import KeyValuePool
from onelogit.engine.prefix_tree import CachedPrefix, Ids
from onelogit.errors import InputError

Slots = Mapping[Ids, list[Extent]]
"""For each prefix, the slots of its tokens in some keys and values."""
Copy = Callable[[list[Extent], LayerKeyValues, list[Extent]], None]


class PrefixCache:
    """Keys and values of prefixes, kept between calls of one model. Not thread-safe.

    A row has the lengths of its cacheable prefixes, which other rows may share. One of them ends with the document or
    the query, whichever comes first in the prompt.

    Args:
        one_token: keys and values of one token.
        max_bytes: memory on the devices of the model's layers, allocated by the constructor.
        max_host_bytes: CPU memory for evicted prefixes, allocated by the constructor; 0 for none.

    Raises:
        InputError: one of the two is not 0, but too small for one token.
    """

    def __init__(self, one_token: LayerKeyValues, max_bytes: int, max_host_bytes: int = 0) -> None:
        self._device = _Tier(KeyValuePool(one_token, max_bytes))
        self._host = _Tier(KeyValuePool(one_token, max_host_bytes, on_host=True))
        options = {"document_cache_bytes": max_bytes, "document_cache_host_bytes": max_host_bytes}
        for (name, limit), tier in zip(options.items(), (self._device, self._host), strict=True):
            if limit and not tier.pool.size:
                raise InputError(f"{name}={limit} is too small: one token takes {tier.pool.token_bytes} bytes")
        self._pinned: set[Ids] = set()

    @property
    def layers(self) -> LayerKeyValues:
        """The keys and values to which the spans of a found prefix refer."""
        return self._device.pool.layers

    @property
    def held_bytes(self) -> int:
        """Bytes of all cached keys and values, on the device and on the host."""
        return self._device.held_bytes + self._host.held_bytes

    def find(self, ids: Ids, cacheable_lengths: Sequence[int]) -> CachedPrefix | None:
        """The longest cached prefix of a row that leaves at least one token to compute; pinned until `unpin`.

        `cacheable_lengths` are the lengths of the row's cacheable prefixes in tokens, ascending.
        """
        for length in reversed(cacheable_lengths):
            if length < len(ids) and (cached := self._find(ids[:length])) is not None:
                return cached
        return None

    def unpin(self) -> None:
        """Allow eviction of all found prefixes; call it once they have been read."""
        self._pinned.clear()

    def clear(self) -> None:
        """Forget all prefixes."""
        self.unpin()
        for tier in (self._device, self._host):
            tier.remove([*tier.slots])

    def insert(self, prefixes: Sequence[Ids], key_values: LayerKeyValues) -> None:
        """Cache the last prefixes that fit; `key_values` contain all in order. Raises RuntimeError without memory."""
        starts = accumulate(map(len, prefixes), initial=0)
        new = {ids: [(start, start + len(ids))] for ids, start in zip(prefixes, starts, strict=False)}
        for ids in filter(self._device.touch, prefixes):
            new.pop(ids, None)
        size = self._device.pool.size
        on_device = _last_that_fit(new, size)
        if not self._evict(sum(map(len, on_device))):
            on_device = {}
        self._device.insert(on_device, key_values, self._device.pool.write)
        # A prefix longer than the device's memory could never come back from the host.
        on_host = {ids: extents for ids, extents in new.items() if ids not in on_device and len(ids) <= size}
        self._host.insert_last(on_host, key_values)

    def _find(self, ids: Ids) -> CachedPrefix | None:
        if not self._device.touch(ids):
            if ids not in self._host.slots:
                return None
            if not self._evict(len(ids), returning=[ids]):
                return CachedPrefix(len(ids), None)
            self._device.insert({ids: self._host.slots[ids]}, self._host.pool.layers, self._device.pool.move)
            self._host.remove([ids])
        self._pinned.add(ids)
        return CachedPrefix(len(ids), self._device.slots[ids])

    def _evict(self, token_count: int, returning: Collection[Ids] = ()) -> bool:
        """Evict the least recently used prefixes; returns False if pinned prefixes leave too little room."""
        evicted = self._device.least_recent(token_count, self._pinned)
        if evicted is None:
            return False
        self._host.insert_last(evicted, self._device.pool.layers, pinned=returning)
        self._device.remove(evicted)
        return True


class _Tier:
    """Prefixes in one memory, in the order of their last use."""

    def __init__(self, pool: KeyValuePool) -> None:
        self.pool = pool
        self.allocator = Allocator(pool.size)
        self.slots: OrderedDict[Ids, list[Extent]] = OrderedDict()

    @property
    def held_bytes(self) -> int:
        return (self.allocator.size - self.allocator.free_count) * self.pool.token_bytes

    def touch(self, ids: Ids) -> bool:
        """Mark a prefix as the most recently used; returns whether this tier contains it."""
        is_cached = ids in self.slots
        if is_cached:
            self.slots.move_to_end(ids)
        return is_cached

    def least_recent(self, token_count: int, pinned: Collection[Ids] = ()) -> Slots | None:
        """The prefixes to remove so that `token_count` tokens fit; None if pinned prefixes leave too little room."""
        found: dict[Ids, list[Extent]] = {}
        missing = token_count - self.allocator.free_count
        for ids, extents in self.slots.items():
            if missing <= 0:
                break
            if ids not in pinned:
                found[ids] = extents
                missing -= len(ids)
        return found if missing <= 0 else None

    def remove(self, prefixes: Collection[Ids]) -> None:
        self.allocator.give_back([extent for ids in prefixes for extent in self.slots.pop(ids)])

    def insert(self, new: Slots, key_values: LayerKeyValues, copy: Copy) -> None:
        """Copy prefixes, which must fit, from some keys and values."""
        if not new:
            return
        targets = self.allocator.take(sum(map(len, new)))
        try:
            copy(targets, key_values, [extent for extents in new.values() for extent in extents])
        except BaseException:
            self.allocator.give_back(targets)
            raise
        self.slots.update(zip(new, split(targets, map(len, new)), strict=True))

    def insert_last(self, new: Slots, key_values: LayerKeyValues, pinned: Collection[Ids] = ()) -> None:
        """Insert the last of these prefixes that fit beside the pinned ones; evict the least recently used for them."""
        new = _last_that_fit(new, self.allocator.size - sum(map(len, pinned)))
        self.remove([ids for ids in new if ids in self.slots])
        self.remove(self.least_recent(sum(map(len, new)), pinned) or ())
        self.insert(new, key_values, self.pool.move)


def _last_that_fit(prefixes: Slots, room: int) -> Slots:
    """The last prefixes that fit into `room` tokens, in their order."""
    fitting: dict[Ids, list[Extent]] = {}
    for ids in reversed([*prefixes]):
        if len(ids) <= room:
            fitting[ids] = prefixes[ids]
            room -= len(ids)
    return dict(reversed(fitting.items()))
