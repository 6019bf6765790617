"""A column of the data -> groups of queries that have the same in it."""

from collections.abc import Mapping, Sequence

from onelogit.errors import InputError
from onelogit.evaluation.data.dataset import JudgedQuery

LENGTH = "length"
_MOST_GROUPS = 50
_THIRDS = ("short", "middle", "long")
_NOT_GIVEN = "(not given)"

Groups = dict[str, list[int]]


def groups(queries: Sequence[JudgedQuery], documents: Mapping[str, str], column: str) -> Groups:
    """The places of the queries in each group, by what the column says.

    Args:
        queries: at least one.
        documents: text by id.
        column: a field of the queries; or "length" where they have no such field: three equal parts by the length of
            the longest relevant document in characters.

    Raises:
        InputError: no query has the field, or it tells nearly all of them apart.
    """
    if not any(column in query.fields for query in queries):
        if column == LENGTH:
            return _by_length(queries, documents)
        known = sorted({name for query in queries for name in query.fields})
        raise InputError(f"no query has the field {column!r}; there are {', '.join([*known, LENGTH])}")
    found: Groups = {}
    for place, query in enumerate(queries):
        found.setdefault(query.fields.get(column, _NOT_GIVEN), []).append(place)
    if len(found) > _MOST_GROUPS:
        raise InputError(f"{column!r} splits the queries into {len(found)} groups, which are more than {_MOST_GROUPS}")
    return dict(sorted(found.items()))


def _by_length(queries: Sequence[JudgedQuery], documents: Mapping[str, str]) -> Groups:
    lengths = [max(len(documents[id]) for id in query.relevant) for query in queries]
    order = sorted(range(len(queries)), key=lambda place: lengths[place])
    found: Groups = {}
    for number, name in enumerate(_THIRDS):
        part = order[len(order) * number // 3 : len(order) * (number + 1) // 3]
        if part:
            found[f"{name} ({lengths[part[0]]:,} to {lengths[part[-1]]:,} characters)"] = sorted(part)
    return found
