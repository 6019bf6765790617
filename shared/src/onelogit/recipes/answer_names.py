"""The names of two answers or labels -> which of them means relevant."""

import re

_RELEVANT = {"relevant", "relevance", "yes", "true", "positive", "pos", "match", "related", "label1", "1"}
_RELEVANT |= {"是", "相关", "예", "네", "はい", "ja", "oui", "sí", "да"}
_IRRELEVANT = {"irrelevant", "notrelevant", "nonrelevant", "no", "false", "negative", "neg", "unrelated", "notrelated"}
_IRRELEVANT |= {"nomatch", "label0", "0", "否", "不是", "不相关", "아니오", "아니요", "いいえ", "nein", "non", "нет"}
# Labels of sentiment analysis have these names, too.
_SENTIMENTS = {"positive", "negative", "pos", "neg"}
# In front of the other name: not_entailment, non-duplicate, incorrect, irrelevant_passage.
_NEGATED = "(?:not|non|no|un|in|ir|mis)"
# What a negated name must be about. Of "toxic" and "not_toxic", for example, neither means relevant.
_ABOUT_RELEVANCE = re.compile(
    r"rel(evan|at|$)|pertinent|match|answer|help|useful|correct|entail|duplica|similar|equiv|paraphras|support|contain"
)


def relevant_name(first: str, second: str) -> int | None:
    """0 if the first of two names means relevant rather than the second, 1 if the second does; None if unknown."""
    votes = [_vote(name) for name in (first, second)]
    if votes[0] != votes[1]:
        return int(votes[1] > votes[0])
    plain, other = (_plain(name).removeprefix("is") for name in (first, second))
    return 0 if _negates(other, plain) else 1 if _negates(plain, other) else None


def are_sentiments(first: str, second: str) -> bool:
    """Whether two names are also those of labels of sentiment analysis."""
    return {_plain(first), _plain(second)} <= _SENTIMENTS


def are_swapped(true: object, false: object) -> bool:
    """Whether the true answer is known to mean irrelevant, and the false one relevant."""
    return isinstance(true, str) and isinstance(false, str) and (_vote(true), _vote(false)) == (-1, 1)


def _vote(name: str) -> int:
    """1 for relevant, -1 for irrelevant, 0 if unknown. A vocabulary's marks of a space do not count."""
    plain = _plain(name)
    return (plain in _RELEVANT) - (plain in _IRRELEVANT)


def _negates(name: str, other: str) -> bool:
    is_negated = len(other) > 2 and re.fullmatch(_NEGATED + re.escape(other), name) is not None
    return is_negated and _ABOUT_RELEVANCE.search(other) is not None


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.removeprefix("Ġ").lower())
