"""A configuration with two labels -> which one means relevant: a logit is its row less the other's. No torch.

The softmax over two labels is the sigmoid of the difference of their logits.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from onelogit.errors import UnsupportedModelError
from onelogit.recipes.answer_names import relevant_name


class LabelRows(NamedTuple):
    """The rows of a head with two labels.

    Attributes:
        reason: says which is used, and why, for messages.
        is_named: whether the labels' names tell which means relevant.
    """

    relevant: int
    irrelevant: int
    reason: str
    is_named: bool


def find_label_rows(id2label: Mapping[Any, Any] | None, problem_type: str | None = None) -> LabelRows:
    """The row of the relevant label and of the other one; by their names, else row 1 less row 0.

    Raises:
        UnsupportedModelError: the labels are independent of each other, so their difference has no meaning.
    """
    if problem_type not in (None, "single_label_classification"):
        raise UnsupportedModelError(f"its two labels are of the kind {problem_type!r}, so they are not one logit")
    names = {int(index): str(name) for index, name in (id2label or {}).items()}
    first, second = (names.get(index, f"LABEL_{index}") for index in (0, 1))
    relevant = relevant_name(first, second)
    reason = "by their names" if relevant is not None else "by convention, because the names do not tell"
    chosen, other = (first, second) if relevant == 0 else (second, first)
    row = 1 if relevant is None else relevant
    return LabelRows(
        row, 1 - row, f"the logit is that of {chosen!r} minus that of {other!r}, {reason}", relevant is not None
    )
