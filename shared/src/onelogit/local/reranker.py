"""Reranker: the stages in order, from a query and its documents to a ranking."""

import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Self, cast

from transformers import PreTrainedModel, PreTrainedTokenizerFast
from typing_extensions import Unpack

from onelogit.base_reranker import BaseReranker
from onelogit.checkpoints.loader import load_checkpoint
from onelogit.conversion.classifier import build_classifier
from onelogit.engine.scheduler import in_passing_thread
from onelogit.export.exporter import PROBE_PAIRS, ExportContents, Probe, export, open_cross_encoder
from onelogit.local.scorer import LocalScorer
from onelogit.options import LoadOptions, OpenOptions, ScoringOptions, check_options, scoring_options
from onelogit.recipes.recipe import Activation, Recipe
from onelogit.validation import (
    checked_choice,
)

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

# transformers exchanges parts of torch while it loads a model: two loads at once would leave them exchanged.
_loading = threading.Lock()


def _renew_lock() -> None:
    """In a forked child: who holds the lock is a thread of the parent's."""
    global _loading  # noqa: PLW0603  there is one in a process
    _loading = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)


class Reranker(BaseReranker[LocalScorer]):
    """A decoder language model that orders documents by their relevance to a query.

    Safe to use from many threads and event loops at once: who waits at the same time is computed together, as one
    forest. Also a context manager that closes itself.

    Args:
        classifier: a one-logit sequence classifier, as `conversion.classifier.sequence_classifier` makes it. It learns
            to attend over shared prefixes; other code may go on using it.
        tokenizer: with a fast backend; it is not changed.
        recipe: the prompt and the scale of the score.
        name: what the model is called, for people.
        **options: see `ScoringOptions`.

    Attributes:
        recipe: the same.
        name: the same.
        options: what was said when it was made or loaded.

    Raises:
        InputError: an option that is unknown or out of its range, or an instruction for a family that takes none.
        RecipeError: a template that is not one for reranking.
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
        check_options(options, ScoringOptions)
        activation = checked_choice("activation", options.get("activation"), Activation)
        self.recipe = recipe
        self.name = name
        self.options = cast("OpenOptions", {**options})
        scorer = LocalScorer(classifier, tokenizer, recipe, options)
        super().__init__(scorer, recipe.activation if activation is None else activation)

    @classmethod
    def load(cls, model: str | os.PathLike[str], **options: Unpack[LoadOptions]) -> Self:
        """The reranker of a model on the hub or in a folder, converted while it is loaded.

        Args:
            model: hub id or path of a folder.
            **options: see `LoadOptions`.

        Raises:
            CheckpointError: the model is not found or damaged.
            RecipeError: it is not known how the model reranks, or it cannot be converted.
            InputError: an unknown option, or one out of its range.
        """
        check_options(options)
        with _loading:
            checkpoint = in_passing_thread(lambda: load_checkpoint(model, options))
            classifier = in_passing_thread(lambda: build_classifier(checkpoint))
        scoring = scoring_options(options)
        reranker = cls(classifier, checkpoint.tokenizer, checkpoint.recipe, name=os.fspath(model), **scoring)
        reranker.options = cast("OpenOptions", {**options})
        return reranker

    @property
    def licence(self) -> str | None:
        """The model's licence, as its card or the table of families names it."""
        return self.recipe.licence

    @property
    def device(self) -> str:
        """Where the model computes, such as "cpu" or "cuda:0"."""
        return self._scorer.device

    @property
    def max_tokens(self) -> int:
        """The longest prompt, in tokens."""
        return self._scorer.max_tokens

    @property
    def classifier(self) -> PreTrainedModel:
        """The sequence classifier itself: any code for transformers can use it.

        Raises:
            OnelogitError: the reranker is closed.
        """
        return self._scorer.classifier

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> None:
        """Write the converted model to a folder that transformers, Sentence Transformers and vLLM serve without flags.

        Args:
            path: the folder; it appears whole or not at all.
            force: replace what stands there.

        Raises:
            InputError: the folder is there already.
            CheckpointError: it cannot be written; what stood there still stands.
            UnsupportedModelError: it is quantised, or has a head that transformers has no class for.
        """
        export(self._export_contents(), Path(path), is_overwriting=force)

    def as_cross_encoder(self) -> "CrossEncoder":
        """The same model as a `sentence_transformers.CrossEncoder`, for code that wants one.

        It holds a copy of the weights of its own; `close` this reranker where two are one too many.

        Raises:
            InputError: Sentence Transformers is not installed.
            UnsupportedModelError: as `save`.
        """
        return open_cross_encoder(self._export_contents())

    def __repr__(self) -> str:
        return f"Reranker(family={self.recipe.family!r}, device={self.device!r}, max_tokens={self.max_tokens})"

    def _export_contents(self) -> ExportContents:
        scorer, instruction = self._scorer, self._scorer.instruction
        rows, logits = scorer.rows(PROBE_PAIRS), scorer.logits(PROBE_PAIRS).logits
        return ExportContents(
            classifier=scorer.classifier,
            tokenizer=scorer.tokenizer,
            recipe=replace(self.recipe, activation=self.activation, default_instruction=instruction or None),
            source=self.name,
            max_tokens=scorer.max_tokens,
            probes=[Probe(*pair, row.ids, logit) for pair, row, logit in zip(PROBE_PAIRS, rows, logits, strict=True)],
        )
