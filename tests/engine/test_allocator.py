"""Slots taken and given back: each has one owner at a time, none is lost, and one extent is preferred to several."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from onelogit.engine.allocator import Allocator, aligned, merged, split


@given(size=st.integers(0, 30), steps=st.lists(st.tuples(st.booleans(), st.integers(0, 30)), max_size=40))
def test_every_place_has_one_owner_at_a_time_and_none_is_lost(size: int, steps: list[tuple[bool, int]]):
    allocator, owned = Allocator(size), []
    for is_taking, number in steps:
        if is_taking and allocator.free_count:
            count = 1 + number % allocator.free_count
            owned.append(allocator.take(count))
            assert sum(stop - start for start, stop in owned[-1]) == count
        elif owned:
            allocator.give_back(owned.pop(number % len(owned)))

        slots = [slot for extents in owned for start, stop in extents for slot in range(start, stop)]
        assert len(slots) == len({*slots}) == size - allocator.free_count
        assert {*slots} <= {*range(size)}


@given(counts=st.lists(st.integers(1, 5), min_size=1, max_size=8), data=st.data())
def test_adjacent_extents_that_were_given_back_can_be_taken_as_one(counts: list[int], data: st.DataObject):
    allocator = Allocator(sum(counts))
    extents = [allocator.take(count) for count in counts]
    for each in data.draw(st.permutations(extents)):
        allocator.give_back(each)

    assert allocator.take(sum(counts)) == [(0, sum(counts))]


EXTENTS = st.lists(
    st.tuples(st.integers(0, 50), st.integers(1, 6)).map(lambda extent: (extent[0], sum(extent))), max_size=8
)


def slots_of(extents: list[tuple[int, int]]) -> list[int]:
    return [slot for start, stop in extents for slot in range(start, stop)]


@given(extents=EXTENTS)
def test_merged_extents_are_the_same_places_in_order(extents: list[tuple[int, int]]):
    longer = merged(extents)

    assert slots_of(longer) == slots_of(extents)
    assert all(one[1] != other[0] for one, other in pairwise(longer))


@given(some=EXTENTS, data=st.data())
def test_aligned_extents_pair_the_same_places(some: list[tuple[int, int]], data: st.DataObject):
    left, others = len(slots_of(some)), []
    while left:
        start, count = data.draw(st.integers(0, 50)), data.draw(st.integers(1, left))
        others.append((start, start + count))
        left -= count

    pairs = [*aligned(some, others)]

    assert slots_of([one for one, _ in pairs]) == slots_of(some)
    assert slots_of([other for _, other in pairs]) == slots_of(others)
    assert all(one[1] - one[0] == other[1] - other[0] for one, other in pairs)


def test_one_extent_that_is_long_enough_is_preferred_to_several():
    allocator = Allocator(10)
    allocator.take(2), allocator.take(3), allocator.take(2), allocator.take(3)
    allocator.give_back([(0, 2)])
    allocator.give_back([(5, 7)])
    allocator.give_back([(2, 5)])
    allocator.take(7)
    allocator.give_back([(0, 2), (3, 7)])

    assert allocator.take(3) == [(3, 6)]
    assert allocator.take(3) == [(0, 2), (6, 7)]


@given(counts=st.lists(st.integers(1, 6), max_size=8), cuts=st.lists(st.integers(1, 4), max_size=30))
def test_split_extents_are_the_same_places_in_order(counts: list[int], cuts: list[int]):
    extents, start = [], 0
    for length in [*cuts, sum(counts)]:
        extents.append((start, start + length))
        start += length + 1
    slots = slots_of(extents)

    shares = [slots_of(share) for share in split(extents, counts)]

    assert list(map(len, shares)) == counts
    assert [slot for share in shares for slot in share] == slots[: sum(counts)]
