"""Reranker: the stages in order, from a query and its documents to a ranking."""

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, cast

from transformers import PreTrainedModel, PreTrainedTokenizerFast
from typing_extensions import Unpack

from onelogit.assemble import assemble
from onelogit.export import PROBE_PAIRS, Conversion, Probe, export, open_cross_encoder
from onelogit.inputs import (
    check_score_threshold,
    check_text,
    check_top_n,
    checked_choice,
    checked_documents,
    checked_pairs,
)
from onelogit.load import load_checkpoint
from onelogit.options import LoadOptions, ScoringOptions, check_options, scoring_options
from onelogit.recipes import Activation, Recipe
from onelogit.scorer import Scorer
from onelogit.scores import Ranked, rank_logits
from onelogit.service import in_passing_thread

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder


class Reranker:
    """A decoder language model that orders documents by their relevance to a query.

    Safe to use from many threads and event loops at once: who waits at the same time is computed together, as one
    forest. Also a context manager that closes itself.

    Args:
        classifier: a one-logit sequence classifier, as `onelogit.convert.sequence_classifier` makes it. It learns to
            attend over shared prefixes; other code may go on using it.
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
        self.options = cast("LoadOptions", {**options})
        self._activation = recipe.activation if activation is None else activation
        self._scorer = Scorer(classifier, tokenizer, recipe, options)

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
        checkpoint = in_passing_thread(lambda: load_checkpoint(model, options))
        classifier = in_passing_thread(lambda: assemble(checkpoint))
        scoring = scoring_options(options)
        reranker = cls(classifier, checkpoint.tokenizer, checkpoint.recipe, name=os.fspath(model), **scoring)
        reranker.options = {**options}
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

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._scorer.is_closed

    def rank(
        self,
        query: str,
        documents: Iterable[str],
        top_n: int | None = None,
        score_threshold: float | None = None,
        instruction: str | None = None,
        *,
        progress: bool = False,
    ) -> list[Ranked]:
        """The documents from most to least relevant.

        Args:
            query: what is looked for; not blank.
            documents: texts, in any order; of those that are too long see `long_documents` in `ScoringOptions`.
            top_n: keep this many at most; None for all.
            score_threshold: keep documents whose score is at least this; None for all.
            instruction: what "relevant" means here; None for the reranker's own, "" for none.
            progress: show a progress bar.

        Returns:
            Sorted by logit, the highest first; equal logits in the given order. Empty for no documents.

        Raises:
            InputError: an argument of the wrong kind, or a query too long for `max_tokens`.
            LogitError: the model gave NaN or an infinite number.
        """
        check_top_n(top_n)
        check_score_threshold(score_threshold)
        logits = self.logits(query, documents, instruction, progress=progress)
        return rank_logits(logits, self._activation, top_n, score_threshold)

    async def arank(
        self,
        query: str,
        documents: Iterable[str],
        top_n: int | None = None,
        score_threshold: float | None = None,
        instruction: str | None = None,
        *,
        progress: bool = False,
    ) -> list[Ranked]:
        """`rank`, while the event loop goes on. Cancelling it leaves all other callers as they are."""
        check_top_n(top_n)
        check_score_threshold(score_threshold)
        logits = await self._scorer.alogits(_pairs(query, documents), instruction, progress=progress)
        return rank_logits(logits, self._activation, top_n, score_threshold)

    def logits(
        self, query: str, documents: Iterable[str], instruction: str | None = None, *, progress: bool = False
    ) -> list[float]:
        """The raw logit of each document, in the given order: float32, unbounded. Raises as `rank` does."""
        return self._scorer.logits(_pairs(query, documents), instruction, progress=progress)

    def pair_logits(
        self, pairs: Iterable[tuple[str, str]], instruction: str | None = None, progress: bool = False
    ) -> list[float]:
        """The raw logit of each (query, document), in the given order.

        Args:
            pairs: of any queries and documents; many at once are batched together.
            instruction: as in `rank`, for all pairs.
            progress: show a progress bar.

        Raises:
            InputError: as `rank`, and for a pair that is none.
        """
        return self._scorer.logits(checked_pairs(pairs), instruction, progress=progress)

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> None:
        """Write the converted model to a folder that transformers, Sentence Transformers and vLLM serve without flags.

        Args:
            path: the folder; it appears whole or not at all.
            force: replace what stands there.

        Raises:
            InputError: the folder is there already.
            CheckpointError: it cannot be written; what stood there still stands.
        """
        export(self._conversion(), Path(path), is_overwriting=force)

    def as_cross_encoder(self) -> "CrossEncoder":
        """The same model as a `sentence_transformers.CrossEncoder`, for code that wants one.

        It holds a copy of the weights of its own; `close` this reranker where two are one too many.

        Raises:
            InputError: Sentence Transformers is not installed.
        """
        return open_cross_encoder(self._conversion())

    def warm_up(self) -> None:
        """Score one short pair, so that the first real call finds everything ready."""
        self.logits("warm up", ["warm up"])

    async def awarm_up(self) -> None:
        """`warm_up`, while the event loop goes on."""
        await self.arank("warm up", ["warm up"])

    def close(self) -> None:
        """Let go of the model and its memory. Closing twice is fine; scoring afterwards raises OnelogitError."""
        self._scorer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __deepcopy__(self, memo: object) -> Self:
        """The same reranker: it does not change, and its weights are not for copying."""
        return self

    def __repr__(self) -> str:
        return f"Reranker(family={self.recipe.family!r}, device={self.device!r}, max_tokens={self.max_tokens})"

    def _conversion(self) -> Conversion:
        scorer, instruction = self._scorer, self._scorer.instruction
        rows, logits = scorer.rows(PROBE_PAIRS).rows, scorer.logits(PROBE_PAIRS)
        return Conversion(
            classifier=scorer.classifier,
            tokenizer=scorer.tokenizer,
            recipe=replace(self.recipe, activation=self._activation, default_instruction=instruction or None),
            source=self.name,
            max_tokens=scorer.max_tokens,
            probes=[Probe(*pair, row, logit) for pair, row, logit in zip(PROBE_PAIRS, rows, logits, strict=True)],
        )


def _pairs(query: str, documents: Iterable[str]) -> list[tuple[str, str]]:
    """The query with each document; where there is none, any query will do."""
    documents = checked_documents(documents)
    if documents:
        check_text(query, "the query", is_blank_allowed=False)
    return [(query, document) for document in documents]
