"""Reranker: the stages in order, from a query and its documents to a ranking."""

import asyncio
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from typing_extensions import Unpack

from onelogit.convert import one_logit_head, position_limit, sequence_classifier
from onelogit.encode import Encoder
from onelogit.errors import InputError, OnelogitError
from onelogit.export import PROBE_PAIRS, Conversion, Probe, export
from onelogit.forward import compute_logits
from onelogit.inputs import (
    check_score_threshold,
    check_text,
    check_top_n,
    checked_activation,
    checked_count,
    checked_documents,
    checked_max_tokens,
)
from onelogit.load import load_checkpoint
from onelogit.options import LoadOptions, check_options
from onelogit.recipes import Activation, Recipe
from onelogit.scores import Ranked, check_logits, rank_logits

logger = logging.getLogger(__name__)


class Reranker:
    """A decoder language model that orders documents by their relevance to a query.

    Safe to use from several threads at once. Also a context manager that closes itself.

    Args:
        classifier: a one-logit sequence classifier, as `onelogit.convert.sequence_classifier` makes it.
        tokenizer: with a fast backend; it is not changed.
        recipe: the prompt and the scale of the score.
        instruction: replaces the recipe's default instruction; "" for none.
        max_tokens: longest prompt in tokens; None for the recipe's, or the model's where that is shorter.
        batch_tokens: most tokens in one forward pass, padding included; None for the device's default.
        activation: replaces the recipe's way from logit to score.
        allow_control_tokens: read control tokens spelled out in a query or document as such.
        name: what the model is called, for people.

    Raises:
        InputError: an argument out of its range, or an instruction for a family that takes none.
        RecipeError: a template that is not one for reranking.
    """

    def __init__(
        self,
        classifier: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        recipe: Recipe,
        *,
        instruction: str | None = None,
        max_tokens: int | None = None,
        batch_tokens: int | None = None,
        activation: Activation | None = None,
        allow_control_tokens: bool = False,
        name: str = "a model",
    ) -> None:
        self.recipe = recipe
        self.name = name
        self.max_tokens = checked_max_tokens(max_tokens, recipe, position_limit(classifier))
        self._batch_tokens = checked_count("batch_tokens", batch_tokens)
        self._activation = checked_activation(recipe.activation if activation is None else activation)
        self._encoder = Encoder(tokenizer, recipe.chat_template, self.max_tokens, allow_control_tokens)
        self._instruction = recipe.default_instruction if instruction is None else self._checked(instruction)
        self._tokenizer = tokenizer
        self._classifier: PreTrainedModel | None = classifier
        self._device = str(classifier.device)

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
        checkpoint = load_checkpoint(model, options)
        classifier = checkpoint.model
        if checkpoint.head_rows is not None:
            head = one_logit_head(*checkpoint.head_rows, checkpoint.recipe.read_out)
            classifier = sequence_classifier(classifier, head, checkpoint.pad_token_id)
        return cls(
            classifier,
            checkpoint.tokenizer,
            checkpoint.recipe,
            instruction=options.get("instruction"),
            max_tokens=options.get("max_tokens"),
            batch_tokens=options.get("batch_tokens"),
            activation=options.get("activation"),
            allow_control_tokens=options.get("allow_control_tokens", False),
            name=os.fspath(model),
        )

    @property
    def licence(self) -> str | None:
        """The model's licence, as its card or the table of families names it."""
        return self.recipe.licence

    @property
    def device(self) -> str:
        """Where the model computes, such as "cpu" or "cuda:0"."""
        return self._device

    @property
    def classifier(self) -> PreTrainedModel:
        """The sequence classifier itself: any code for transformers can use it.

        Raises:
            OnelogitError: the reranker is closed.
        """
        if self._classifier is None:
            raise OnelogitError("this reranker is closed; load it again")
        return self._classifier

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._classifier is None

    def rank(
        self,
        query: str,
        documents: Iterable[str],
        top_n: int | None = None,
        score_threshold: float | None = None,
        instruction: str | None = None,
    ) -> list[Ranked]:
        """The documents from most to least relevant.

        Args:
            query: what is looked for; not blank.
            documents: texts, in any order; a long one is cut at its end.
            top_n: keep this many at most; None for all.
            score_threshold: keep documents whose score is at least this; None for all.
            instruction: what "relevant" means here; None for the reranker's own, "" for none.

        Returns:
            Sorted by logit, the highest first; equal logits in the given order. Empty for no documents.

        Raises:
            InputError: an argument of the wrong kind, or a query too long for `max_tokens`.
            LogitError: the model gave NaN or an infinite number.
        """
        check_top_n(top_n)
        check_score_threshold(score_threshold)
        return rank_logits(self.logits(query, documents, instruction), self._activation, top_n, score_threshold)

    async def arank(
        self,
        query: str,
        documents: Iterable[str],
        top_n: int | None = None,
        score_threshold: float | None = None,
        instruction: str | None = None,
    ) -> list[Ranked]:
        """`rank`, in a thread of its own: the event loop goes on meanwhile."""
        return await asyncio.to_thread(self.rank, query, documents, top_n, score_threshold, instruction)

    def logits(self, query: str, documents: Iterable[str], instruction: str | None = None) -> list[float]:
        """The raw logit of each document, in the given order: float32, unbounded.

        Raises:
            InputError: as `rank`.
            LogitError: as `rank`.
        """
        documents = checked_documents(documents)
        check_text(query, "the query", is_blank_allowed=False)
        return self._pair_logits([(query, document) for document in documents], instruction, progress=False)

    def pair_logits(
        self, pairs: Iterable[tuple[str, str]], instruction: str | None = None, progress: bool = False
    ) -> list[float]:
        """The raw logit of each (query, document), in the given order.

        Args:
            pairs: of any queries and documents; many at once are batched together.
            instruction: as in `rank`, for all pairs.
            progress: show a progress bar.

        Raises:
            InputError: as `rank`.
            LogitError: as `rank`.
        """
        pairs = list(pairs)
        for index, (query, document) in enumerate(pairs):
            check_text(query, f"the query of pair {index}", is_blank_allowed=False)
            check_text(document, f"the document of pair {index}")
        return self._pair_logits(pairs, instruction, progress)

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> None:
        """Write the converted model to a folder that transformers, Sentence Transformers and vLLM serve without flags.

        Args:
            path: the folder; it appears whole or not at all.
            force: replace what stands there.

        Raises:
            InputError: the folder is there already.
            CheckpointError: it cannot be written; what stood there still stands.
        """
        recipe = replace(self.recipe, activation=self._activation, default_instruction=self._instruction or None)
        rows = self._encoder.rows(PROBE_PAIRS, self._instruction)
        logits = compute_logits(self.classifier, rows.rows, self._batch_tokens, second_starts=rows.second_starts)
        probes = [Probe(*pair, row, logit) for pair, row, logit in zip(PROBE_PAIRS, rows.rows, logits, strict=True)]
        conversion = Conversion(
            classifier=self.classifier,
            tokenizer=self._tokenizer,
            recipe=recipe,
            source=self.name,
            max_tokens=self.max_tokens,
            probes=probes,
        )
        export(conversion, Path(path), is_overwriting=force)

    def warm_up(self) -> None:
        """Score one short pair, so that the first real call finds everything ready."""
        self.logits("warm up", ["warm up"])

    def close(self) -> None:
        """Let go of the model and its memory. Closing twice is fine; scoring afterwards raises OnelogitError."""
        self._classifier = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Reranker(family={self.recipe.family!r}, device={self.device!r}, max_tokens={self.max_tokens})"

    def _pair_logits(self, pairs: Sequence[tuple[str, str]], instruction: str | None, progress: bool) -> list[float]:
        classifier = self.classifier
        instruction = self._instruction if instruction is None else self._checked(instruction)
        if not pairs:
            return []
        rows, truncated_count, second_starts = self._encoder.rows(pairs, instruction)
        if truncated_count:
            logger.warning(
                "%d of %d documents were cut at their end to fit max_tokens=%d",
                truncated_count,
                len(pairs),
                self.max_tokens,
            )
        with tqdm(total=len(pairs), desc="reranking", unit="pair", disable=not progress) as bar:
            logits = compute_logits(classifier, rows, self._batch_tokens, bar.update, second_starts)
        check_logits(logits)
        return logits

    def _checked(self, instruction: str) -> str:
        check_text(instruction, "the instruction")
        if instruction and not self._encoder.takes_instruction():
            raise InputError(f"the family {self.recipe.family} takes no instruction, but got {instruction!r}")
        return instruction
