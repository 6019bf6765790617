"""Which rows' leading tokens are kept between calls, and where; what was used longest ago goes first.

What has to leave the model's device waits in the CPU's memory, and comes back when it is asked for.
"""

from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from itertools import accumulate

import torch

from onelogit.forest import Known
from onelogit.key_memory import KeyMemory, count_bytes, taken
from onelogit.keys import Block
from onelogit.space import Piece, Space, split

Ids = tuple[int, ...]

_HOST = torch.device("cpu")


class DocumentCache:
    """For one model. Not for several threads at once.

    A row names its stems: the lengths of those prefixes of it that other rows may share. In a family that writes the
    document first, one of them ends with the document; in one that writes the query first, with the query.

    Args:
        token: keys and values of one token.
        most_bytes: of keys and values, where the model's layers are; taken at once.
        most_host_bytes: of those that had to leave there, in the CPU's memory.
    """

    def __init__(self, token: Block, most_bytes: int, most_host_bytes: int = 0) -> None:
        self._memory = KeyMemory(token, most_bytes)
        self._space = Space(self._memory.size)
        self._near: OrderedDict[Ids, list[Piece]] = OrderedDict()
        self._in_use: set[Ids] = set()
        self._far = _Shelf(most_host_bytes)

    @property
    def layers(self) -> Block:
        """Where the places of what is found are."""
        return self._memory.layers

    @property
    def held_bytes(self) -> int:
        """Of keys and values, wherever they are."""
        return (self._space.size - self._space.free_count) * self._memory.token_bytes + self._far.held_bytes

    def find(self, ids: Ids, stems: Sequence[int]) -> Known | None:
        """The longest kept prefix of a row, among its stems; one token at least is left to compute.

        What is found stays in its place until `release`.

        Args:
            ids: of the row.
            stems: lengths in tokens, ascending.
        """
        for length in reversed(stems):
            if length < len(ids) and (known := self._find(ids[:length])) is not None:
                return known
        return None

    def release(self) -> None:
        """What was found has been read."""
        self._in_use.clear()

    def keep(self, prefixes: Sequence[Ids], block: Block) -> None:
        """Keep prefixes, as many of the last ones as there is room for.

        Args:
            prefixes: token ids.
            block: of all of them, one behind the other.
        """
        new = dict(zip(prefixes, accumulate(map(len, prefixes), initial=0), strict=False))
        for ids in [ids for ids in new if ids in self._near]:
            self._near.move_to_end(ids)
            del new[ids]
        near = _last_that_fit(new, self._space.size)
        pieces = [(new[ids], new[ids] + len(ids)) for ids in near]
        self._make_room(sum(map(len, near)))
        self._put(near, block if len(near) == len(prefixes) else taken(block, pieces))
        if self._far.most_bytes:
            for ids in [ids for ids in new if ids not in near]:
                self._far.put(ids, taken(block, [(new[ids], new[ids] + len(ids))], _HOST))

    def _find(self, ids: Ids) -> Known | None:
        if ids in self._near:
            self._near.move_to_end(ids)
        elif (waiting := self._far.pop(ids)) is None:
            return None
        elif self._make_room(len(ids)):
            self._put([ids], waiting)
        else:
            self._far.put(ids, waiting)
            return Known(len(ids), None)
        self._in_use.add(ids)
        return Known(len(ids), self._near[ids])

    def _put(self, prefixes: Collection[Ids], block: Block) -> None:
        """Write prefixes, one behind the other in the block, to free places."""
        if not prefixes:
            return
        pieces = self._space.take(sum(map(len, prefixes)))
        try:
            self._memory.write(pieces, block)
        except BaseException:
            self._space.give_back(pieces)
            raise
        self._near.update(zip(prefixes, split(pieces, [len(ids) for ids in prefixes]), strict=True))

    def _make_room(self, count: int) -> bool:
        """Let go of what was used longest ago until so many places are free; false where too many are in use."""
        leaving, free_count = [], self._space.free_count
        for ids in self._near:
            if free_count >= count:
                break
            if ids not in self._in_use:
                leaving.append(ids)
                free_count += len(ids)
        if free_count < count:
            return False
        for ids in leaving if self._far.most_bytes else ():
            self._far.put(ids, taken(self._memory.layers, self._near[ids], _HOST))
        self._space.give_back([piece for ids in leaving for piece in self._near.pop(ids)])
        return True


def _last_that_fit(prefixes: Mapping[Ids, int], room: int) -> dict[Ids, None]:
    """Of some prefixes the last ones that so many places hold, in order."""
    fitting: list[Ids] = []
    for ids in reversed([*prefixes]):
        if len(ids) <= room:
            fitting.append(ids)
            room -= len(ids)
    return dict.fromkeys(reversed(fitting))


class _Shelf:
    """Blocks within a limit of bytes, in the order of their last use."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.held_bytes = 0
        self._blocks: OrderedDict[Ids, Block] = OrderedDict()

    def pop(self, ids: Ids) -> Block | None:
        """Take a block out, if it is there."""
        block = self._blocks.pop(ids, None)
        self.held_bytes -= 0 if block is None else count_bytes(block)
        return block

    def put(self, ids: Ids, block: Block) -> None:
        """Add a block, unless it is larger than the shelf; what was put there first goes for it."""
        self.pop(ids)
        if count_bytes(block) > self.most_bytes:
            return
        self._blocks[ids] = block
        self.held_bytes += count_bytes(block)
        while self.held_bytes > self.most_bytes:
            self.pop(next(iter(self._blocks)))
