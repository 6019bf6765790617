"""A configuration with two labels -> which one means relevant: a logit is its row less the other's. No torch.

The softmax over two labels is the sigmoid of the difference of their logits.
"""

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

from onelogit.checkpoints.metadata import SmallFiles, parse_json
from onelogit.errors import InputError, RecipeError, UnsupportedModelError
from onelogit.recipes.answer_names import are_sentiments, relevant_name

logger = logging.getLogger(__name__)


class LabelRows(NamedTuple):
    """The rows of a head with two labels.

    Attributes:
        reason: says which is used, and why, for messages.
        is_named: whether the caller or the labels' names tell which means relevant.
    """

    relevant: int
    irrelevant: int
    reason: str
    is_named: bool


class LabelChoice(NamedTuple):
    """What decides which of two labels means relevant.

    Attributes:
        model: hub id or path, for messages.
        id2label: see `find_label_rows`.
        problem_type: see `find_label_rows`.
        relevant_label: see `find_label_rows`.
    """

    model: str
    id2label: Mapping[Any, Any] | None
    problem_type: str | None
    relevant_label: str | int | None

    def check(self, texts: SmallFiles, *, has_one: bool) -> None:
        """Raise as `rows` if the files declare two labels, or a single one is known and the caller chooses one."""
        if has_one:
            self.rows(1)
        elif len(parse_json(texts, "config.json").get("id2label") or ()) == 2:
            self._find()

    def rows(self, count: int) -> LabelRows | None:
        """The rows of a head with so many labels; None for a single one.

        Raises:
            UnsupportedModelError: the two labels are independent of each other.
            RecipeError: nothing tells which label means relevant.
            InputError: the caller's choice is neither of them, or there is one label only.
        """
        if count == 2:
            rows = self._find()
            self._log(rows)
            return rows
        if count == 1 and self.relevant_label is not None:
            raise InputError(
                f"relevant_label={self.relevant_label!r} does not apply to {self.model!r}, which has one logit; leave "
                "it out"
            )
        return None

    def _log(self, rows: LabelRows) -> None:
        names = _label_names(self.id2label)
        if self.relevant_label is None and are_sentiments(*names):
            logger.warning(
                "%s has two labels, whose names are those of sentiment analysis, too: %s; if it is a reranker, say so "
                "with relevant_label=%r (for a command: --relevant-label)",
                *(self.model, rows.reason, names[rows.relevant]),
            )
        else:
            logger.info("%s has two labels: %s", self.model, rows.reason)

    def _find(self) -> LabelRows:
        try:
            rows = find_label_rows(self.id2label, self.problem_type, self.relevant_label)
        except UnsupportedModelError as error:
            raise UnsupportedModelError(f"{self.model!r} has no one-logit form: {error}") from error
        except InputError as error:
            raise InputError(f"{self.model!r}: {error}") from error
        if not rows.is_named:
            first, second = _label_names(self.id2label)
            choices = (first, second) if first != second else (0, 1)
            raise RecipeError(
                f"the names of the two labels of {self.model!r}, {first!r} and {second!r}, do not tell which means "
                f"relevant; pass relevant_label={choices[0]!r} or relevant_label={choices[1]!r} (for a command: "
                "--relevant-label)"
            )
        return rows


def find_label_rows(
    id2label: Mapping[Any, Any] | None, problem_type: str | None = None, relevant_label: str | int | None = None
) -> LabelRows:
    """The row of the relevant label and of the other one: by the caller's choice, or their names, else row 1 and row 0.

    Args:
        id2label: names by index, as in config.json. Missing ones are LABEL_0 and LABEL_1, as transformers calls an
            irrelevant and a relevant label by default.
        problem_type: as in config.json.
        relevant_label: the caller's choice: a label's name or index.

    Raises:
        UnsupportedModelError: the labels are independent of each other, so their difference has no meaning.
        InputError: the caller's choice is neither of the two labels.
    """
    if problem_type not in (None, "single_label_classification"):
        raise UnsupportedModelError(f"its two labels are of the kind {problem_type!r}, so they are not one logit")
    first, second = _label_names(id2label)
    relevant = relevant_name(first, second) if relevant_label is None else _chosen((first, second), relevant_label)
    reason = "by their names" if relevant_label is None else f"because of relevant_label={relevant_label!r}"
    reason = reason if relevant is not None else "by convention, because the names do not tell"
    chosen, other = (first, second) if relevant == 0 else (second, first)
    row = 1 if relevant is None else relevant
    return LabelRows(
        row, 1 - row, f"the logit is that of {chosen!r} minus that of {other!r}, {reason}", relevant is not None
    )


def _label_names(id2label: Mapping[Any, Any] | None) -> tuple[str, str]:
    """The names of two labels, in the order of their rows; indices that begin at 1 count as if they began at 0."""
    names = {int(index): str(name) for index, name in (id2label or {}).items()}
    first = 1 if sorted(names) == [1, 2] else 0
    return names.get(first, "LABEL_0"), names.get(first + 1, "LABEL_1")


def _chosen(names: tuple[str, str], label: str | int) -> int:
    """The index of the label that the caller names: exactly, in upper or lower case, or by its index."""
    indices = [index for index in range(2) if index == label]
    if isinstance(label, str):
        wanted = label.strip().lower()
        spellings = [(label, names), (wanted, [name.lower() for name in names]), (wanted, ["0", "1"])]
        found = ([index for index in range(2) if known[index] == text] for text, known in spellings)
        indices = next((each for each in found if each), [])
    if len(indices) != 1:
        raise InputError(
            f"relevant_label={label!r} is neither of the two labels, {names[0]!r} (0) and {names[1]!r} (1); name one"
        )
    return indices[0]
