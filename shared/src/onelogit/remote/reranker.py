"""A server -> RemoteReranker, which has the methods of a local Reranker and gives the same logits. Loads no torch."""

from typing import TYPE_CHECKING, Self, cast

from typing_extensions import Unpack

from onelogit.base_reranker import BaseReranker
from onelogit.errors import InputError
from onelogit.model_spec import ModelSpec
from onelogit.option_checks import without_secrets
from onelogit.options import OpenOptions, RemoteOptions
from onelogit.prompts.prompt import Prompt
from onelogit.recipes.recipe import Activation
from onelogit.remote.scorer import RemoteScorer
from onelogit.validation import checked_pair

if TYPE_CHECKING:
    import httpx2


class RemoteReranker(BaseReranker[RemoteScorer]):
    """A reranker on a server, with the same methods and the same logits as `Reranker`.

    Safe to use from many threads and event loops at once. Also a context manager, which closes it.

    Args:
        url: the server's root, such as http://127.0.0.1:8000; or a spec, which contains model and options already.
        model: hub id or folder of the model that the server serves. Its small files and tokenizer are read to write
            prompts, or to cut documents. If the server writes the prompts, None is allowed, and a hub id is only a
            name.
        client: a custom `AsyncClient` of httpx2 or httpx; it is closed with the reranker.
        **options: see `RemoteOptions`.

    Attributes:
        recipe: of the model; None if no model is named, or the server writes the prompts of an unknown model.
        name: the model's name, or the url if no model is named.
        url: the server's root.
        options: the given options, without secrets.

    Raises:
        InputError: an option is unknown, out of range, or would have no effect; or the sigmoid would be applied twice.
        CheckpointError: the model is not found.
        RecipeError: the model has no known recipe.
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
        activation = spec.options.get("activation")
        scorer = RemoteScorer(spec, client)
        self.options = without_secrets(cast("OpenOptions", {**spec.options, "url": spec.url}))
        self.recipe = scorer.recipe
        raw_recipe = self.recipe if scorer.is_raw else None
        default: Activation = "identity" if raw_recipe is None else raw_recipe.activation
        super().__init__(scorer, default if activation is None else activation, spec)

    @property
    def is_described_by_spec(self) -> bool:
        return super().is_described_by_spec and not self._scorer.client.has_custom_http

    def check(self) -> float:
        """Compare the server's logits with the logits in an exported model, then send prompts of `max_tokens`.

        Returns:
            The largest difference of a logit.

        Raises:
            InputError: `model` is not a folder that `onelogit convert` wrote, or `max_tokens` truncates all of its
                prompts.
            ServerError: the server cannot be reached; it refuses or truncates long prompts; or its logits differ, with
                the most likely reason: an activation, an uninitialised head, a missing prompt, a second BOS token,
                embeddings, or another model.
        """
        return self._scorer.check()

    def prompt(self, query: str, document: str, instruction: str | None = None) -> Prompt:
        """The prompt of one pair, for people to look at, without scoring it.

        Args:
            query: not blank.
            document: may be empty. Its end is cut off if the prompt is too long.
            instruction: as in `rank`.

        Raises:
            InputError: an argument is invalid, or the server writes the prompts (template="server").
            RecipeError: the answers are no single tokens of the model's tokenizer.
        """
        return self._scorer.describe(*checked_pair(query, document), instruction)

    @property
    def _why_no_images(self) -> str | None:
        return self._scorer.why_no_images

    @property
    def licence(self) -> str | None:
        """The model's licence, if it is known."""
        return None if self.recipe is None else self.recipe.licence

    def __reduce__(self) -> tuple[type[Self], tuple[ModelSpec], dict[str, object]]:
        if self._scorer.client.has_custom_http:
            raise InputError("a custom HTTP client cannot be pickled; create the RemoteReranker in each process")
        return type(self), (self._spec_to_pickle(),), {"activation": self.activation}

    def __repr__(self) -> str:
        model = None if self._spec is None else self._spec.model
        return self._described(
            url=self.url,
            model=model,
            protocol=self._scorer.protocol.name,
            max_tokens=self._scorer.max_tokens,
            licence=self.licence,
        )
