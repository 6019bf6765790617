"""RemoteReranker: the doors of a reranker, and behind them a server. Loads no torch."""

from typing import TYPE_CHECKING, cast

from typing_extensions import Unpack

from onelogit.base_reranker import BaseReranker
from onelogit.options import ModelSpec, OpenOptions, RemoteOptions, without_secrets
from onelogit.recipes.recipe import Activation
from onelogit.remote.scorer import RemoteScorer
from onelogit.validation import checked_choice

if TYPE_CHECKING:
    import httpx2


class RemoteReranker(BaseReranker[RemoteScorer]):
    """A reranker on a server: the same doors, the same numbers.

    Safe to use from many threads and event loops at once. Also a context manager that closes itself.

    Args:
        url: the server's root, such as http://127.0.0.1:8000.
        model: hub id or folder of the model that the server serves. Its small files and tokenizer are read here, to
            write prompts. Where the server writes them, only its name counts, and None will do.
        client: an `AsyncClient` of httpx2 or httpx in place of one made here; it is closed with the reranker.
        **options: see `RemoteOptions`.

    Attributes:
        recipe: the model's; None without a model.
        name: the model's name, or else the url.
        url: the same.
        options: what was said, without secrets.

    Raises:
        InputError: an option that is unknown, out of its range, or would have no effect.
        CheckpointError: the model is not found.
        RecipeError: it is not known how the model reranks.
    """

    def __init__(
        self,
        url: str | ModelSpec,
        model: str | None = None,
        *,
        client: "httpx2.AsyncClient | None" = None,
        **options: Unpack[RemoteOptions],
    ) -> None:
        spec = url if isinstance(url, ModelSpec) else ModelSpec(model, url, options)
        self.url, self.name = str(spec.url), spec.name
        activation = checked_choice("activation", spec.options.get("activation"), Activation)
        scorer = RemoteScorer(spec, client)
        self.options = without_secrets(cast("OpenOptions", {**spec.options, "url": spec.url}))
        self.recipe = scorer.recipe
        of_recipe: Activation = (
            "identity" if self.recipe is None or spec.options.get("raw_logits") is False else self.recipe.activation
        )
        super().__init__(scorer, of_recipe if activation is None else activation)

    def check(self) -> float:
        """Score the prompts that an exported model carries, and compare; then some as long as `max_tokens` allows.

        Returns:
            The largest difference of a logit.

        Raises:
            InputError: `model` is no folder that `onelogit convert` wrote, or `max_tokens` cuts all of its prompts.
            ServerError: the server is not there, or its logits are not the model's; with the most likely reason: an
                activation, a head that is not initialised, a missing prompt, a second BOS token, embeddings, another
                model; or it does not take the long ones, or only their beginning.
        """
        return self._scorer.check()

    @property
    def licence(self) -> str | None:
        """The model's licence, where it is known."""
        return None if self.recipe is None else self.recipe.licence

    def __repr__(self) -> str:
        protocol = self.options.get("protocol") or "vllm-tokens"
        return f"RemoteReranker(url={self.url!r}, model={self.name!r}, protocol={protocol!r})"
