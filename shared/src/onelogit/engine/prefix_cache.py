"""Which rows' leading tokens are kept between calls, and where; what was used longest ago goes first.

What has to leave the model's device waits in the CPU's memory, and comes back when it is asked for.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import accumulate

from onelogit.engine.allocator import Allocator, Piece, split
from onelogit.engine.keys import LayerKeyValues
from onelogit.engine.kv_cache import KeyValuePool
from onelogit.engine.prefix_tree import Known
from onelogit.errors import InputError

Ids = tuple[int, ...]
Places = Mapping[Ids, list[Piece]]
"""Where prefixes stand in a block."""


class PrefixCache:
    """For one model. Not for several threads at once.

    A row names its stems: the lengths of those prefixes of it that other rows may share. In a family that writes the
    document first, one of them ends with the document; in one that writes the query first, with the query.

    Args:
        token: keys and values of one token.
        most_bytes: of keys and values, where the model's layers are; taken at once.
        most_host_bytes: of those that had to leave there, in the CPU's memory; taken at once, too.

    Raises:
        InputError: one of the two is less than one token takes; 0 is none.
    """

    def __init__(self, token: LayerKeyValues, most_bytes: int, most_host_bytes: int = 0) -> None:
        self._near = _Tier(KeyValuePool(token, most_bytes))
        self._far = _Tier(KeyValuePool(token, most_host_bytes, on_host=True))
        asked = {
            "document_cache_bytes": (most_bytes, self._near),
            "document_cache_host_bytes": (most_host_bytes, self._far),
        }
        for name, (most, tier) in asked.items():
            if most and not tier.memory.size:
                raise InputError(f"{name}={most} keeps nothing: one token takes {tier.memory.token_bytes} bytes")
        self._in_use: set[Ids] = set()

    @property
    def layers(self) -> LayerKeyValues:
        """Where the places of what is found are."""
        return self._near.memory.layers

    @property
    def held_bytes(self) -> int:
        """Of keys and values, wherever they are."""
        return self._near.held_bytes + self._far.held_bytes

    def find(self, ids: Ids, cacheable_prefixes: Sequence[int]) -> Known | None:
        """The longest kept prefix of a row, among its stems; one token at least is left to compute.

        What is found stays in its place until `release`.

        Args:
            ids: of the row.
            cacheable_prefixes: lengths in tokens, ascending.
        """
        for length in reversed(cacheable_prefixes):
            if length < len(ids) and (known := self._find(ids[:length])) is not None:
                return known
        return None

    def release(self) -> None:
        """What was found has been read."""
        self._in_use.clear()

    def keep(self, prefixes: Sequence[Ids], block: LayerKeyValues) -> None:
        """Keep prefixes, as many of the last ones as there is room for.

        Args:
            prefixes: token ids.
            block: of all of them, one behind the other.
        """
        starts = accumulate(map(len, prefixes), initial=0)
        new = {ids: [(start, start + len(ids))] for ids, start in zip(prefixes, starts, strict=False)}
        for ids in filter(self._near.touch, prefixes):
            new.pop(ids, None)
        most = self._near.memory.size
        near = _last_that_fit(new, most)
        if not self._make_room(sum(map(len, near))):
            near = {}
        self._near.put(near, block, self._near.memory.write)
        # What is longer than all the room there is could never come back.
        self._far.take_in({ids: pieces for ids, pieces in new.items() if ids not in near and len(ids) <= most}, block)

    def _find(self, ids: Ids) -> Known | None:
        if not self._near.touch(ids):
            if ids not in self._far.places:
                return None
            if not self._bring_back(ids):
                return Known(len(ids), None)
        self._in_use.add(ids)
        return Known(len(ids), self._near.places[ids])

    def _bring_back(self, ids: Ids) -> bool:
        """Move a prefix to the layers; false where there is no room."""
        if not self._make_room(len(ids), returning=[ids]):
            return False
        self._near.put({ids: self._far.places[ids]}, self._far.memory.layers, self._near.memory.move)
        self._far.drop([ids])
        return True

    def _make_room(self, count: int, returning: Collection[Ids] = ()) -> bool:
        """Have those leave that were used longest ago; false where what is in use leaves too few places."""
        leaving = self._near.oldest(count, self._in_use)
        if leaving is None:
            return False
        self._far.take_in(leaving, self._near.memory.layers, in_use=returning)
        self._near.drop(leaving)
        return True


class _Tier:
    """Prefixes in one memory, in the order of their last use."""

    def __init__(self, memory: KeyValuePool) -> None:
        self.memory = memory
        self.space = Allocator(memory.size)
        self.places: OrderedDict[Ids, list[Piece]] = OrderedDict()

    @property
    def held_bytes(self) -> int:
        return (self.space.size - self.space.free_count) * self.memory.token_bytes

    def touch(self, ids: Ids) -> bool:
        """Whether a prefix is here; it is then the last one used."""
        is_here = ids in self.places
        if is_here:
            self.places.move_to_end(ids)
        return is_here

    def oldest(self, count: int, in_use: Collection[Ids] = ()) -> Places | None:
        """Those without which so many places would be free; None where others than those in use are too few."""
        found: dict[Ids, list[Piece]] = {}
        missing = count - self.space.free_count
        for ids, pieces in self.places.items():
            if missing <= 0:
                break
            if ids not in in_use:
                found[ids] = pieces
                missing -= len(ids)
        return found if missing <= 0 else None

    def drop(self, prefixes: Collection[Ids]) -> None:
        """Let go of some."""
        self.space.give_back([piece for ids in prefixes for piece in self.places.pop(ids)])

    def put(
        self, new: Places, block: LayerKeyValues, copy: Callable[[list[Piece], LayerKeyValues, list[Piece]], None]
    ) -> None:
        """Add prefixes that stand in a block; there is room for them."""
        if not new:
            return
        pieces = self.space.take(sum(map(len, new)))
        try:
            copy(pieces, block, [piece for there in new.values() for piece in there])
        except BaseException:
            self.space.give_back(pieces)
            raise
        self.places.update(zip(new, split(pieces, map(len, new)), strict=True))

    def take_in(self, new: Places, block: LayerKeyValues, in_use: Collection[Ids] = ()) -> None:
        """Add prefixes that stand elsewhere, as many of the last ones as fit; the oldest go for them."""
        new = _last_that_fit(new, self.space.size - sum(map(len, in_use)))
        self.drop([ids for ids in new if ids in self.places])
        self.drop(self.oldest(sum(map(len, new)), in_use) or ())
        self.put(new, block, self.memory.move)


def _last_that_fit(prefixes: Places, room: int) -> Places:
    """Of some prefixes the last ones that so many places hold, in order."""
    fitting: dict[Ids, list[Piece]] = {}
    for ids in reversed([*prefixes]):
        if len(ids) <= room:
            fitting[ids] = prefixes[ids]
            room -= len(ids)
    return dict(reversed(fitting.items()))
