"""Places taken and given back: each of one owner at a time, none lost, in one piece where there is one."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from onelogit.engine.allocator import Allocator, joined, side_by_side, split


@given(size=st.integers(0, 30), steps=st.lists(st.tuples(st.booleans(), st.integers(0, 30)), max_size=40))
def test_every_place_has_one_owner_at_a_time_and_none_is_lost(size: int, steps: list[tuple[bool, int]]):
    space, owned = Allocator(size), []
    for is_taking, number in steps:
        if is_taking and space.free_count:
            count = 1 + number % space.free_count
            owned.append(space.take(count))
            assert sum(stop - start for start, stop in owned[-1]) == count
        elif owned:
            space.give_back(owned.pop(number % len(owned)))

        places = [place for pieces in owned for start, stop in pieces for place in range(start, stop)]
        assert len(places) == len({*places}) == size - space.free_count
        assert {*places} <= {*range(size)}


@given(counts=st.lists(st.integers(1, 5), min_size=1, max_size=8), kept=st.data())
def test_what_is_given_back_side_by_side_can_be_taken_in_one_piece(counts: list[int], kept: st.DataObject):
    space = Allocator(sum(counts))
    pieces = [space.take(count) for count in counts]
    for each in kept.draw(st.permutations(pieces)):
        space.give_back(each)

    assert space.take(sum(counts)) == [(0, sum(counts))]


PIECES = st.lists(
    st.tuples(st.integers(0, 50), st.integers(1, 6)).map(lambda piece: (piece[0], sum(piece))), max_size=8
)


def places_of(pieces: list[tuple[int, int]]) -> list[int]:
    return [place for start, stop in pieces for place in range(start, stop)]


@given(pieces=PIECES)
def test_joined_pieces_are_the_same_places_in_order(pieces: list[tuple[int, int]]):
    longer = joined(pieces)

    assert places_of(longer) == places_of(pieces)
    assert all(one[1] != other[0] for one, other in pairwise(longer))


@given(some=PIECES, data=st.data())
def test_side_by_side_stand_the_same_pairs_of_places(some: list[tuple[int, int]], data: st.DataObject):
    left, others = len(places_of(some)), []
    while left:
        start, count = data.draw(st.integers(0, 50)), data.draw(st.integers(1, left))
        others.append((start, start + count))
        left -= count

    pairs = [*side_by_side(some, others)]

    assert places_of([one for one, _ in pairs]) == places_of(some)
    assert places_of([other for _, other in pairs]) == places_of(others)
    assert all(one[1] - one[0] == other[1] - other[0] for one, other in pairs)


def test_a_piece_that_is_long_enough_goes_before_several():
    space = Allocator(10)
    space.take(2), space.take(3), space.take(2), space.take(3)
    space.give_back([(0, 2)])
    space.give_back([(5, 7)])
    space.give_back([(2, 5)])
    space.take(7)
    space.give_back([(0, 2), (3, 7)])

    assert space.take(3) == [(3, 6)]
    assert space.take(3) == [(0, 2), (6, 7)]


@given(counts=st.lists(st.integers(1, 6), max_size=8), cuts=st.lists(st.integers(1, 4), max_size=30))
def test_shares_of_pieces_are_the_same_places_in_order(counts: list[int], cuts: list[int]):
    pieces, start = [], 0
    for length in [*cuts, sum(counts)]:
        pieces.append((start, start + length))
        start += length + 1
    places = places_of(pieces)

    shares = [places_of(share) for share in split(pieces, counts)]

    assert list(map(len, shares)) == counts
    assert [place for share in shares for place in share] == places[: sum(counts)]
