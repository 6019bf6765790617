"""Scorer: pairs of texts -> logits; texts are tokenised where the caller is, rows computed where the model is."""

import asyncio
from collections.abc import Iterable, Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerFast

from onelogit.base_reranker import PairLogits
from onelogit.conversion.classifier import position_limit
from onelogit.engine.model_runner import ModelRunner
from onelogit.engine.scheduler import Call, Scheduler, in_passing_thread
from onelogit.errors import InputError, OnelogitError
from onelogit.io.progress import RowProgress
from onelogit.local.portions import in_portions
from onelogit.options import LongDocuments, ScoringOptions
from onelogit.prompts.encoder import Encoder
from onelogit.prompts.token_rows import TokenRow
from onelogit.ranking import best_logits
from onelogit.recipes.recipe import Recipe
from onelogit.validation import checked_choice, checked_count, checked_max_tokens

_BATCHES_TOGETHER = 8  # callers who wait are computed together up to so many batches; who comes then, waits for those


class LocalScorer:
    """A classifier with what writes its prompts. Safe to share between threads.

    Args:
        classifier: a one-logit sequence classifier.
        tokenizer: with a fast backend; it is not changed.
        recipe: the prompt.
        options: see `ScoringOptions`; the activation has no part in logits.

    Raises:
        InputError: a limit out of its range, or an instruction for a family that takes none.
        RecipeError: the recipe does not fit the tokenizer.
    """

    def __init__(
        self,
        classifier: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        recipe: Recipe,
        options: ScoringOptions,
    ) -> None:
        instruction = options.get("instruction")
        batch_tokens = checked_count("batch_tokens", options.get("batch_tokens"))
        self.tokenizer = tokenizer
        self.max_tokens = checked_max_tokens(options.get("max_tokens"), recipe, position_limit(classifier))
        self.device = str(classifier.device)
        self._family = recipe.family
        self._encoder = Encoder(
            tokenizer,
            recipe.chat_template,
            self.max_tokens,
            adds_special_tokens=recipe.adds_special_tokens,
            allow_control_tokens=bool(options.get("allow_control_tokens")),
            has_chunks=checked_choice("long_documents", options.get("long_documents"), LongDocuments) == "chunk_max",
        )
        instruction = recipe.default_instruction if instruction is None else instruction
        self.instruction = None if instruction is None else self._encoder.checked(instruction, self._family)
        cache_bytes, is_compiled = _cache_bytes(options), bool(options.get("compile"))
        forward = in_passing_thread(
            lambda: ModelRunner(classifier, batch_tokens, *cache_bytes, is_compiled=is_compiled)
        )
        self._scheduler = Scheduler(
            forward.compute,
            weigh=lambda row: len(row.ids),
            most_weight=_BATCHES_TOGETHER * forward.batch_tokens,
        )
        # On a CPU tokenising and computing would share the cores, and other devices wait for each batch.
        self._portion_tokens = forward.batch_tokens if classifier.device.type == "cuda" else None
        self._classifier: PreTrainedModel | None = classifier

    @property
    def classifier(self) -> PreTrainedModel:
        """The classifier.

        Raises:
            OnelogitError: it was let go.
        """
        if self._classifier is None:
            raise OnelogitError("this reranker is closed; load it again")
        return self._classifier

    @property
    def is_closed(self) -> bool:
        """Whether the classifier was let go."""
        return self._classifier is None

    def close(self) -> None:
        """Let go of the classifier. Calls that still wait raise OnelogitError."""
        self._classifier = None
        self._scheduler.close()

    def rows(self, pairs: Sequence[tuple[str, str]], instruction: str | None = None) -> list[TokenRow]:
        """The rows of token ids that the classifier reads.

        Args:
            pairs: queries and documents, as `inputs.checked_pairs` lets them through.
            instruction: None for the scorer's own, "" for none.

        Raises:
            InputError: a query leaves no room for a document, or the family takes no instruction.
        """
        return self._encoder.rows(
            pairs, self.instruction if instruction is None else self._encoder.checked(instruction, self._family)
        )

    def logits(
        self, pairs: Sequence[tuple[str, str]], instruction: str | None = None, *, progress: bool = False
    ) -> PairLogits:
        """The logit of each pair, in the given order.

        Raises:
            InputError: as `rows`.
            LogitError: the model gave NaN or an infinite number.
        """
        rows_done = RowProgress(is_shown=progress)
        with Call(self._scheduler, rows_done if progress else None) as call:
            owners, truncated_count = self._ask(call, pairs, instruction)
            with rows_done.shown(len(owners)):
                return PairLogits(best_logits(call.logits(), owners), truncated_count)

    async def alogits(
        self, pairs: Sequence[tuple[str, str]], instruction: str | None = None, *, progress: bool = False
    ) -> PairLogits:
        """`logits`, while the event loop goes on."""
        rows_done = RowProgress(is_shown=progress)
        with Call(self._scheduler, rows_done if progress else None) as call:
            owners, truncated_count = await asyncio.to_thread(self._ask, call, pairs, instruction)
            with rows_done.shown(len(owners)):
                return PairLogits(best_logits(await call.alogits(), owners), truncated_count)

    def _ask(
        self, call: Call[TokenRow], pairs: Sequence[tuple[str, str]], instruction: str | None
    ) -> tuple[list[int], int]:
        """Tokenise the pairs and add their rows to the call, portion by portion.

        Returns:
            The pair of each row, by its index, and how many documents were truncated.
        """
        owners: list[int] = []
        truncated_count = 0
        for places in self._portions(pairs):
            if call.is_over:
                break
            rows = self.rows([pairs[place] for place in places], instruction)
            call.add(rows)
            owners += [places[row.owner] for row in rows]
            truncated_count += sum(row.is_truncated for row in rows)
        return owners, truncated_count

    def _portions(self, pairs: Sequence[tuple[str, str]]) -> Iterable[Sequence[int]]:
        if self._portion_tokens is None:
            return [range(len(pairs))]
        is_document_first = self._encoder.is_document_first
        return in_portions(pairs, self._portion_tokens, self.max_tokens, is_document_first=is_document_first)


def _cache_bytes(options: ScoringOptions) -> tuple[int, int]:
    """For documents kept on the model's device, and on the CPU behind it."""
    names = ("document_cache_bytes", "document_cache_host_bytes")
    device_bytes, host_bytes = (checked_count(name, options.get(name), least=0) or 0 for name in names)  # type: ignore[arg-type]
    if host_bytes and not device_bytes:
        raise InputError("document_cache_host_bytes is for what leaves the device: it needs document_cache_bytes, too")
    return device_bytes, host_bytes
