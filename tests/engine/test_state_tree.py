"""The plan of recurrent layers: every token in one run, behind the state of the tokens before it in its row."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from onelogit.engine.prefix_tree import CACHED, CARRIED, OWN, CachedPrefix, Cursor, next_batch, shared_length
from onelogit.engine.state_tree import StateSource, carried_positions, state_plan

ROWS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=9), min_size=1, max_size=30).map(
    lambda rows: sorted({tuple(row) for row in rows})
)


def computed(rows: list[tuple[int, ...]], batch_tokens: int, cached: tuple[tuple[int, ...], ...] = ()) -> list[int]:
    """Compute the rows with states that are the tokens themselves; returns the number of tokens in each batch."""
    shared = [0, *(shared_length(one, other) for one, other in pairwise(rows))]
    cursor, positions, carried, counts, ended = Cursor(), list[int](), list[tuple[int, ...]](), list[int](), set[int]()
    slots = [sum(map(len, cached[: index + 1])) for index in range(len(cached))]

    def find(row: int) -> CachedPrefix | None:
        fitting = [n for n, ids in enumerate(cached) if len(ids) < len(rows[row]) and rows[row][: len(ids)] == ids]
        best = max(fitting, key=lambda n: len(cached[n]), default=None)
        if best is None:
            return None
        return CachedPrefix(len(cached[best]), [(slots[best] - len(cached[best]), slots[best])])

    while cursor.row < len(rows):
        batch = next_batch(rows, cursor, batch_tokens, None, find, positions)
        following = carried_positions(batch, shared, positions)
        plan = state_plan(batch, positions, following, {slot: index for index, slot in enumerate(slots)})
        last: dict[int, tuple[int, ...]] = {}

        def state(source: StateSource, last=last, carried=carried) -> tuple[int, ...]:
            return {OWN: last, CARRIED: carried, CACHED: cached}[source[0]][source[1]]

        assert [run.stop for run in plan.runs] == [*(run.start for run in plan.runs[1:]), len(batch.ids)]
        for index in (index for level in plan.levels for index in level):
            start, stop, path, parent = plan.runs[index]
            before = () if parent is None else state(parent)
            assert len(before) == sum(span.stop - span.start for span in path)
            last[index] = (*before, *batch.ids[start:stop])
            for token, row in batch.ends.items():
                if start <= token < stop:
                    assert (*before, *batch.ids[start : token + 1]) == rows[row]
                    ended.add(row)
        carried = [state(leaving.source) for leaving in plan.outgoing]
        assert carried == [rows[batch.after.row][:position] for position in following]
        counts.append(len(batch.ids))
        cursor, positions = batch.after, following
    assert ended == set(range(len(rows)))
    return counts


@given(rows=ROWS, batch_tokens=st.integers(1, 40))
def test_every_row_is_computed_from_the_states_of_its_own_tokens(rows, batch_tokens: int):
    counts = computed(rows, batch_tokens)

    assert max(counts) <= batch_tokens


@given(rows=ROWS, cached=st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=4).map(tuple), unique=True))
def test_rows_may_begin_with_cached_states(rows, cached: list[tuple[int, ...]]):
    computed(rows, 12, tuple(cached))


@given(rows=ROWS)
def test_in_one_batch_every_distinct_token_is_computed_once(rows):
    distinct = {row[:length] for row in rows for length in range(1, len(row) + 1)}

    assert computed(rows, 10_000) == [len(distinct)]


def test_the_last_inputs_of_a_path_come_from_runs_and_then_from_a_state():
    rows = [(1, 2, 3, 4, 5), (1, 2, 3, 6), (1, 2, 3, 7, 8)]
    first = next_batch(rows, Cursor(), 3, carried=[])
    second = next_batch(rows, first.after, 40, carried=[3])
    plan = state_plan(second, [3], [])

    ends = [plan.last_inputs((*run.path, (OWN, run.start, run.stop)), 3) for run in plan.runs]

    assert ends[0] == [(OWN, 1, 0), (OWN, 0, 0), (CARRIED, 0, 0)]
    assert ends[1] == [(OWN, 2, 0), (CARRIED, 0, 0), (CARRIED, 0, 1)]


def test_runs_that_follow_each_other_are_one_unless_a_row_begins_between():
    chain = next_batch([(1,), (1, 2), (1, 2, 3)], Cursor(), 40, carried=[])
    fork = next_batch([(1, 2, 3), (1, 2, 4)], Cursor(), 40, carried=[])

    assert [(run.start, run.stop) for run in state_plan(chain, [], []).runs] == [(0, 3)]
    assert [(run.start, run.stop, run.parent) for run in state_plan(fork, [], []).runs] == [
        (0, 2, None),
        (2, 3, (OWN, 0)),
        (3, 4, (OWN, 0)),
    ]
