"""Prefix trees: every row, every shared prefix once, within any budget; each token sees the path of its own row."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onelogit.engine.prefix_tree import Batch, CachedPrefix, Cursor, KeyPath, clip, next_batch, shared_length

# Few ids, so that prefixes are shared at every depth.
ROWS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12).map(tuple), max_size=20).map(
    lambda rows: sorted(set(rows))
)
BUDGETS = st.integers(1, 30)
Token = tuple[int, int]  # id and position


def all_batches(rows: Sequence[tuple[int, ...]], batch_tokens: int, **options: object) -> list[Batch]:
    batches, cursor = [], Cursor()
    while cursor.row < len(rows):
        batches.append(next_batch(rows, cursor, batch_tokens, **options))
        cursor = batches[-1].after
    return batches


class Reader:
    """Follows paths through batches, as attention does with keys; a key here is a token with its position."""

    def __init__(self, cached: Sequence[Token] = ()) -> None:
        self.carried: list[Token] = []
        self.cached = [*cached]
        self.seen: dict[int, list[Token]] = {}
        self.cacheable_prefixes: dict[tuple[int, int], list[Token]] = {}

    def read(self, batch: Batch) -> None:
        own = list(zip(batch.ids, batch.positions, strict=True))
        sources = [own, self.carried, self.cached]
        ends = batch.ends
        for segment in batch.segments:
            ancestors = self.follow(segment.ancestors, sources)
            if segment.stop - 1 in ends:
                self.seen[ends[segment.stop - 1]] = [*ancestors, *own[segment.start : segment.stop]]
        for prefix in batch.cacheable_prefixes:
            self.cacheable_prefixes[prefix.row, prefix.length] = self.follow(prefix.path, sources)
        self.carried = self.follow(batch.carry, sources)

    @staticmethod
    def follow(path: KeyPath, sources: list[list[Token]]) -> list[Token]:
        return [token for source, start, stop in path for token in sources[source][start:stop]]


def tokens(row: Sequence[int]) -> list[Token]:
    return [(id, position) for position, id in enumerate(row)]


def distinct_prefixes(rows: Sequence[tuple[int, ...]]) -> set[tuple[int, ...]]:
    return {row[: length + 1] for row in rows for length in range(len(row))}


@given(rows=ROWS, batch_tokens=BUDGETS)
def test_each_row_ends_once_and_sees_its_own_tokens_at_their_positions(rows, batch_tokens: int):
    reader = Reader()
    batches = all_batches(rows, batch_tokens)

    for batch in batches:
        reader.read(batch)

    assert [row for batch in batches for row in batch.ends.values()] == list(range(len(rows)))
    assert reader.seen == {index: tokens(row) for index, row in enumerate(rows)}


@given(rows=ROWS, batch_tokens=BUDGETS)
def test_every_shared_prefix_is_computed_once(rows, batch_tokens: int):
    computed = sum(len(batch.ids) for batch in all_batches(rows, batch_tokens))

    assert computed == len(distinct_prefixes(rows))


@given(rows=ROWS, batch_tokens=BUDGETS)
def test_no_batch_is_larger_than_its_budget(rows, batch_tokens: int):
    assert all(1 <= len(batch.ids) <= batch_tokens for batch in all_batches(rows, batch_tokens))


@given(rows=ROWS, batch_tokens=BUDGETS)
def test_segments_fill_a_batch_without_gaps(rows, batch_tokens: int):
    for batch in all_batches(rows, batch_tokens):
        places = [place for segment in batch.segments for place in range(segment.start, segment.stop)]

        assert places == list(range(len(batch.ids)))
        assert len(batch.positions) == len(batch.ids)


@given(rows=ROWS, first=BUDGETS, second=BUDGETS)
def test_a_batch_can_be_made_again_with_another_budget(rows, first: int, second: int):
    """After running out of memory, all further batches follow from the cursor."""
    reader, cursor, turn = Reader(), Cursor(), 0
    while cursor.row < len(rows):
        next_batch(rows, cursor, first)
        batch = next_batch(rows, cursor, second if turn % 2 else first)
        reader.read(batch)
        cursor, turn = batch.after, turn + 1

    assert reader.seen == {index: tokens(row) for index, row in enumerate(rows)}


class Cache:
    """Cached prefixes of rows, their tokens in several places of one list; only a few fit into one batch."""

    def __init__(self, rows: Sequence[tuple[int, ...]], data: st.DataObject) -> None:
        self.lengths = [data.draw(st.integers(0, len(row) - 1)) for row in rows]
        self.most = data.draw(st.integers(1, 3))
        self.tokens: list[Token] = []
        self.places: list[list[tuple[int, int]]] = []
        self.found: set[int] = set()
        for row, length in zip(rows, self.lengths, strict=True):
            cut = data.draw(st.integers(0, length))
            self.places.append(
                [self.put(tokens(row[:length])[start:stop]) for start, stop in ((0, cut), (cut, length))]
            )

    def put(self, some: list[Token]) -> tuple[int, int]:
        self.tokens += [(-1, -1), *some]
        return len(self.tokens) - len(some), len(self.tokens)

    def find(self, row: int) -> CachedPrefix:
        has_room = row in self.found or len(self.found) < self.most
        self.found |= {row} if has_room else set()
        return CachedPrefix(self.lengths[row], self.places[row] if has_room else None)


@given(rows=ROWS, batch_tokens=BUDGETS, data=st.data())
def test_cached_prefixes_are_not_computed_again(rows, batch_tokens: int, data: st.DataObject):
    cached = Cache(rows, data)
    reader, batches, cursor = Reader(cached.tokens), [], Cursor()
    while cursor.row < len(rows):
        batches.append(next_batch(rows, cursor, batch_tokens, find_cached=cached.find))
        cursor = batches[-1].after
        cached.found.clear()
    lengths = cached.lengths

    for batch in batches:
        reader.read(batch)

    cached_prefixes = {row[:length] for row, most in zip(rows, lengths, strict=True) for length in range(1, most + 1)}
    assert reader.seen == {index: tokens(row) for index, row in enumerate(rows)}
    # Never more than without a cache; never tokens of the row's own cached prefix.
    computed = [(end, batch) for batch in batches for end in batch.ends]
    assert len(computed) == len(rows)
    assert sum(len(batch.ids) for batch in batches) <= len(distinct_prefixes(rows))
    assert sum(len(batch.ids) for batch in batches) >= len(distinct_prefixes(rows) - cached_prefixes)


@given(rows=ROWS, batch_tokens=BUDGETS, data=st.data())
def test_cacheable_prefixes_are_listed_once_and_complete(rows, batch_tokens: int, data: st.DataObject):
    cacheable_lengths = [data.draw(st.lists(st.integers(1, len(row)), max_size=3, unique=True)) for row in rows]
    reader, listed = Reader(), []
    for batch in all_batches(rows, batch_tokens, cacheable_lengths=cacheable_lengths):
        reader.read(batch)
        listed += [rows[prefix.row][: prefix.length] for prefix in batch.cacheable_prefixes]

    assert len(listed) == len(set(listed))
    assert all(
        reader.cacheable_prefixes[row, length] == tokens(rows[row][:length])
        for row, length in reader.cacheable_prefixes
    )


def test_several_queries_over_the_same_documents_share_the_documents():
    documents = [(1, document, 7, 7, 7) for document in (3, 4)]
    rows = sorted((*document, 9, query) for document in documents for query in range(5))

    (batch,) = all_batches(rows, 100)

    assert len(batch.ids) == 1 + 2 * (4 + 1 + 5)


def test_a_batch_of_short_segments_on_long_prefixes_is_bounded_by_its_keys():
    rows = [(*[1] * 1000, id) for id in range(200)]

    batches = all_batches(rows, 1000)

    keys = [sum(segment.stop - segment.start + 1000 for segment in batch.segments) for batch in batches]
    assert max(keys) <= 17 * 1000 + 1001
    assert sum(len(batch.ids) for batch in batches) == 1200


@pytest.mark.parametrize(("one", "other", "length"), [((), (1,), 0), ((1, 2), (1, 2, 3), 2), ((1, 2, 4), (1, 3, 4), 1)])
def test_shared_length(one: tuple[int, ...], other: tuple[int, ...], length: int):
    assert shared_length(one, other) == shared_length(other, one) == length


def test_clipping_a_path_to_nothing_leaves_nothing():
    assert clip((), 3) == clip((), 0) == ()
