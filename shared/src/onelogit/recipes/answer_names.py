"""The names of two answers or labels -> which of them means relevant."""

import re

_RELEVANT = {"relevant", "relevance", "yes", "true", "positive", "pos", "match", "related", "label1", "1"}
_RELEVANT |= {"是", "相关", "예", "네", "はい", "ja", "oui", "sí", "да"}
_IRRELEVANT = {"irrelevant", "notrelevant", "nonrelevant", "no", "false", "negative", "neg", "unrelated", "notrelated"}
_IRRELEVANT |= {"nomatch", "label0", "0", "否", "不是", "不相关", "아니오", "아니요", "いいえ", "nein", "non", "нет"}


def relevant_name(first: str, second: str) -> int | None:
    """0 if the first of two names means relevant rather than the second, 1 if the second does; None if unknown."""
    votes = [_vote(name) for name in (first, second)]
    return None if votes[0] == votes[1] else int(votes[1] > votes[0])


def are_swapped(true: object, false: object) -> bool:
    """Whether the true answer is known to mean irrelevant, and the false one relevant."""
    return isinstance(true, str) and isinstance(false, str) and (_vote(true), _vote(false)) == (-1, 1)


def _vote(name: str) -> int:
    """1 for relevant, -1 for irrelevant, 0 if unknown. A vocabulary's marks of a space do not count."""
    plain = re.sub(r"[\W_]+", "", name.removeprefix("Ġ").lower())
    return (plain in _RELEVANT) - (plain in _IRRELEVANT)
