"""A reranker and its names -> what requests may ask for, and what answers say about it."""

from typing import TYPE_CHECKING

from onelogit.errors import InputError
from onelogit.ranking import check_logit, to_score
from onelogit.recipes.recipe import Activation
from onelogit.serving.refusals import RefusalError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onelogit.local.reranker import Reranker


class ServedModel:
    """The only model of a server.

    Attributes:
        names: that requests may use; the first is in answers.
        activation: from logit to score.
        max_tokens: of a prompt.
        dtype: of the weights, such as "float32".

    Raises:
        InputError: a name is blank.
    """

    def __init__(self, reranker: "Reranker", names: "Sequence[str]" = ()) -> None:
        own = _name_of(reranker)
        self.names = list(dict.fromkeys(names)) or [own]
        if any(not name.strip() for name in self.names):
            raise InputError("a served name is empty; leave it out, or write a name")
        self._accepted = {*self.names, own, reranker.name}
        self.activation: Activation = reranker.activation
        self.max_tokens = reranker.max_tokens
        self.dtype = str(reranker.scorer.classifier.dtype).removeprefix("torch.")

    @property
    def name(self) -> str:
        """The name in answers."""
        return self.names[0]

    def check_name(self, name: str | None) -> None:
        """Check the model that a request names; None and "" are the only model.

        Raises:
            RefusalError: it is another one; 404, as of vLLM and Cohere.
        """
        if name and name not in self._accepted:
            raise RefusalError(404, f"The model `{name[:200]}` does not exist; this server has {self.name}")

    def score_of(self, logit: float, index: int, *, is_raw: bool) -> float:
        """The score of an answer: on the model's published scale, or the logit itself.

        Raises:
            LogitError: the logit is NaN or infinite.
        """
        check_logit(logit, index)
        return logit if is_raw else to_score(logit, self.activation)


def _name_of(reranker: "Reranker") -> str:
    """The hub id, or the last part of a folder's path: the rest of it is nobody else's business."""
    folder = None if reranker.spec is None else reranker.spec.folder
    return reranker.name if folder is None else folder.resolve().name or reranker.name
