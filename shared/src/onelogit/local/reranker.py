"""A local model -> Reranker, which ranks the documents of a query by their relevance."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Self, cast

from transformers import PreTrainedModel, PreTrainedTokenizerFast
from typing_extensions import Unpack

from onelogit.base_reranker import BaseReranker
from onelogit.checkpoints.adapter import Adapter
from onelogit.checkpoints.fingerprint import model_label
from onelogit.checkpoints.head_weights import WholeHead
from onelogit.checkpoints.loader import Checkpoint, load_checkpoint
from onelogit.checkpoints.resolve import ResolvedModel
from onelogit.checkpoints.untrusted_files import strange_settings_named
from onelogit.conversion.classifier import build_classifier
from onelogit.engine.memory import memory_errors_named
from onelogit.errors import CheckpointError, InputError, RecipeError
from onelogit.export.exporter import ExportContents, check_target, export, open_cross_encoder
from onelogit.export.probe import PROBE_PAIRS, Probe
from onelogit.local.next_tokens import SAMPLE_DOCUMENT, SAMPLE_QUERY, NextTokens, find_next_tokens, warn_if_doubtful
from onelogit.local.quantising import QuantizationReport, exact_spec, quantise
from onelogit.local.scorer import LocalScorer
from onelogit.model_spec import ModelSpec
from onelogit.option_checks import check_cache_sizes, checked_options
from onelogit.options import LoadOptions, OpenOptions, ScoringOptions
from onelogit.processes import new_lock
from onelogit.prompts.prompt import Prompt
from onelogit.prompts.token_rows import TokenRow
from onelogit.recipes.lookup import is_of_family, recipe_of
from onelogit.recipes.recipe import Recipe
from onelogit.threads import in_temporary_thread
from onelogit.validation import checked_count, checked_pair, checked_path

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

# transformers patches torch while it loads a model; two concurrent loads would leave it patched.
_load_lock = new_lock()


class Reranker(BaseReranker[LocalScorer]):
    """A local model, a decoder or an encoder, that orders documents by their relevance to a query.

    Safe to use from many threads and event loops at once: calls that wait at the same time are computed together, as
    one prefix tree. Also a context manager, which closes it.

    Args:
        classifier: a one-logit sequence classifier from `conversion.classifier.sequence_classifier`. Its attention
            is extended to prefix trees; other code can still use it.
        tokenizer: with a fast backend; it is not changed.
        recipe: determines the prompt and the scale of the score.
        name: of the model, for messages and model cards.
        **options: see `ScoringOptions`.

    Attributes:
        recipe, name, options: as given.
        quantization_report: how far `quantization` moves the logits of sample pairs; None if the weights are exact.

    Raises:
        InputError: an option is unknown or out of range, or the family takes no instruction.
        RecipeError: the template is not for reranking.
    """

    def __init__(
        self,
        classifier: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        recipe: Recipe,
        *,
        name: str = "a model",
        **options: Unpack[ScoringOptions],
    ) -> None:
        checked = cast("ScoringOptions", checked_options(options, ScoringOptions))
        check_cache_sizes(checked)
        self._set_up(classifier, tokenizer, recipe, name, checked, None)

    if not TYPE_CHECKING:  # which report a path by its type

        @wraps(__init__)
        def __new__(cls, *given: object, **options: object) -> Self:
            """Refuse the name of a model, before Python reports the arguments that are missing."""
            named = given[0] if given else options.get("classifier", options.get("model", options.get("model_name")))
            if cls.__init__ is Reranker.__init__ and isinstance(named, str | os.PathLike):
                raise InputError(
                    f"{cls.__name__}(...) takes a loaded classifier, its tokenizer and a recipe; to load a model, use "
                    f"{cls.__name__}.load({os.fspath(named)!r})"
                )
            return super().__new__(cls)

    def _set_up(
        self,
        classifier: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        recipe: Recipe,
        name: str,
        options: ScoringOptions,
        spec: ModelSpec | None,
    ) -> None:
        """Set all attributes. `load` keeps options that the constructor refuses, so it calls this instead."""
        activation = options.get("activation")
        self.recipe = recipe
        self.name = name
        self.options = cast("OpenOptions", options)
        scorer = LocalScorer(classifier, tokenizer, recipe, options)
        self._whole_head: WholeHead | None = None
        self._adapter: Adapter | None = None
        self._commits: tuple[str | None, str | None] = None, None
        self.quantization_report: QuantizationReport | None = None
        self._quantised: str | None = None  # what was loaded, by its content
        super().__init__(scorer, recipe.activation if activation is None else activation, spec)

    @classmethod
    def load(cls, model: str | os.PathLike[str] | ModelSpec | ResolvedModel, **options: Unpack[LoadOptions]) -> Self:
        """Load a model from the hub or a folder, and convert it.

        Args:
            model: hub id or path of a folder; or a spec or resolved model, which contains the options already.
            **options: see `LoadOptions`.

        Raises:
            CheckpointError: the model is not found, or damaged.
            DeviceMemoryError: it does not fit into the device's memory.
            RecipeError: no recipe is known for the model, or it cannot be converted.
            InputError: an option is unknown or out of range.
        """
        if not isinstance(model, ModelSpec | ResolvedModel):
            model = ModelSpec(cast("str", model), options=options)
        elif options:
            raise InputError(f"a spec already contains its options; put {', '.join(options)} into the spec")
        spec = model.spec if isinstance(model, ResolvedModel) else model
        too_large = f"{spec.name} does not fit into the free memory; use a smaller dtype or model, or another device"
        with strange_settings_named(spec.name), memory_errors_named(too_large):
            checkpoint, classifier = in_temporary_thread(lambda: _loaded(model))
            report = in_temporary_thread(lambda: quantise(classifier, checkpoint, spec)) if spec.quantization else None
            reranker = cls.__new__(cls)
            reranker._set_up(classifier, checkpoint.tokenizer, checkpoint.recipe, spec.name, spec.load_options, spec)
        reranker._whole_head, reranker._adapter = checkpoint.whole_head, checkpoint.adapter
        reranker._commits = checkpoint.commit, checkpoint.base_commit
        reranker.quantization_report = report
        reranker._quantised = None if spec.quantization is None else model_label(spec)
        given = recipe_of(spec.options.get("recipe"))
        if checkpoint.whole_head is not None and given is not None and not is_of_family(given):
            warn_if_doubtful(reranker.next_tokens(SAMPLE_QUERY, SAMPLE_DOCUMENT), spec.name)
        return reranker

    @property
    def licence(self) -> str | None:
        """The model's licence, as named by its card or the table of families."""
        return self.recipe.licence

    @property
    def device(self) -> str:
        """The model's device, such as "cpu" or "cuda:0"."""
        return self._scorer.device

    @property
    def max_tokens(self) -> int:
        """The longest prompt, in tokens."""
        return self._scorer.max_tokens

    @property
    def classifier(self) -> PreTrainedModel:
        """The sequence classifier, for other code; raises OnelogitError once the reranker is closed."""
        return self._scorer.classifier

    @property
    def scorer(self) -> LocalScorer:
        """What tokenises and computes, for callers that need the rows of a call, such as a server."""
        return self._scorer

    def prompt(self, query: str, document: str, instruction: str | None = None) -> Prompt:
        """The prompt of one pair, for people to look at, without scoring it.

        Args:
            query: not blank.
            document: may be empty. Its end is cut off if the prompt is too long.
            instruction: as in `rank`.

        Raises:
            InputError: an argument is invalid, or the query is too long for `max_tokens`.
        """
        return self._scorer.describe(*checked_pair(query, document), instruction)

    def next_tokens(self, query: str, document: str, instruction: str | None = None, count: int = 5) -> NextTokens:
        """The tokens that the language model would most likely write after a prompt: a check of the prompt.

        If the model's answers are not among them, the prompt is probably not the one that it was trained on. The
        probabilities say nothing about relevance. Reads the whole head from the checkpoint, slice by slice.

        Args:
            query: as in `prompt`.
            document: as in `prompt`.
            instruction: as in `prompt`.
            count: how many tokens to return.

        Raises:
            InputError: as `prompt`; or the reranker was created from objects, without the whole head.
            RecipeError: the model has a head of its own, so it has no next token.
            CheckpointError: the checkpoint can no longer be read.
        """
        checked_count("count", count)
        prompt = self.prompt(query, document, instruction)
        if not prompt.answers:
            raise RecipeError(f"{self.name} has a head of its own, so it has no next token")
        if self._whole_head is None:
            raise InputError("a reranker that was created from objects has no whole head; use Reranker.load")
        head, answers, row = self._whole_head, prompt.answers, TokenRow(prompt.ids)
        classifier, backend = self._scorer.classifier, self._scorer.tokenizer.backend_tokenizer
        return in_temporary_thread(lambda: find_next_tokens(classifier, head, backend, row, answers, count))

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> None:
        """Write the converted model to a folder that transformers, Sentence Transformers and vLLM load without flags.

        Args:
            path: the folder; it appears only once it is complete. It gets the exact weights, also after `quantization`.
            force: replace an existing folder.

        Raises:
            InputError: the folder exists.
            CheckpointError: it cannot be written; an existing folder is unchanged.
            UnsupportedModelError: the checkpoint is quantised, or transformers has no class for its head.
        """
        source = None if self._spec is None else self._spec.folder
        check_target(checked_path(path).absolute(), source, is_overwriting=force)
        with self._exact() as exact:
            export(exact._export_contents(), Path(path), is_overwriting=force)

    def as_cross_encoder(self) -> "CrossEncoder":
        """The same model as a `sentence_transformers.CrossEncoder`.

        It has its own copy of the weights; `close` this reranker to free its copy.

        Raises:
            InputError: Sentence Transformers is not installed.
            UnsupportedModelError: as `save`.
        """
        with self._exact() as exact:
            return open_cross_encoder(exact._export_contents())

    def __reduce__(self) -> tuple[Callable[..., "Reranker"], tuple[type[Self], ModelSpec], dict[str, object]]:
        return _load, (type(self), self._spec_to_pickle()), {"activation": self.activation}

    def __repr__(self) -> str:
        return self._described(
            model=self.name,
            family=self.recipe.family,
            device=self.device,
            dtype=self._scorer.dtype,
            quantization=None if self._spec is None else self._spec.quantization,
            max_tokens=self.max_tokens,
            batch_tokens=self._scorer.batch_tokens,
            licence=self.licence,
        )

    def _exact(self) -> AbstractContextManager["Reranker"]:
        """This reranker; if it is quantised, another one with the exact weights, which the context closes."""
        self._scorer.classifier  # noqa: B018  raises if it is closed
        if self._spec is None or self._spec.quantization is None:
            return nullcontext(self)
        exact = Reranker.load(exact_spec(self._spec))
        if model_label(self._spec) != self._quantised:
            raise CheckpointError(f"the files of {self.name} have changed since they were loaded; load the model again")
        exact.activation = self.activation
        return exact

    def _export_contents(self) -> ExportContents:
        scorer, instruction = self._scorer, self._scorer.instruction
        rows, logits = scorer.rows(PROBE_PAIRS), scorer.logits(PROBE_PAIRS).logits
        return ExportContents(
            classifier=scorer.classifier,
            tokenizer=scorer.tokenizer,
            recipe=replace(self.recipe, activation=self.activation, default_instruction=instruction or None),
            source=self.name,
            source_folder=None if self._spec is None else self._spec.folder,
            max_tokens=scorer.max_tokens,
            base=self._adapter and self._adapter.base,
            commit=self._commits[0],
            base_commit=self._commits[1],
            probes=[Probe(*pair, row.ids, logit) for pair, row, logit in zip(PROBE_PAIRS, rows, logits, strict=True)],
        )


def _load(kind: type[Reranker], spec: ModelSpec) -> Reranker:
    """Load what a pickle names. A function, because cloudpickle would pickle a class method with its whole module."""
    return kind.load(spec)


def _loaded(model: ModelSpec | ResolvedModel) -> tuple[Checkpoint, PreTrainedModel]:
    with _load_lock:
        checkpoint = load_checkpoint(model)
        return checkpoint, build_classifier(checkpoint)
