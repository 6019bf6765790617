"""Pairs of texts -> logits. The caller's thread tokenises the texts; the model's thread computes the rows."""

import asyncio
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, cast

from transformers import PreTrainedModel, PreTrainedTokenizerFast

from onelogit.base_reranker import PairLogits
from onelogit.conversion.classifier import position_limit
from onelogit.engine.model_runner import ModelRunner
from onelogit.engine.scheduler import Scheduler, ScoringCall
from onelogit.errors import InputError, OnelogitError
from onelogit.io.progress import RowProgress
from onelogit.local.call_limit import CallLimit
from onelogit.options import ScoringOptions
from onelogit.prompts.encoder import Encoder
from onelogit.prompts.prompt import Prompt
from onelogit.prompts.token_rows import TokenRow
from onelogit.prompts.tokenizer import without_limits
from onelogit.ranking import best_logits
from onelogit.recipes.recipe import Recipe
from onelogit.threads import in_temporary_thread

_MAX_SCHEDULED_BATCHES = 8  # the size, in batches, up to which waiting callers are computed together
_BYTES_PER_TOKEN = 4  # approximate, in UTF-8


class LocalScorer:
    """Tokenises pairs and computes their logits with a one-logit classifier. Thread-safe.

    Raises:
        InputError: a limit is out of range, or the family takes no instruction.
        RecipeError: the recipe does not fit the tokenizer.
    """

    def __init__(
        self, classifier: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, recipe: Recipe, options: ScoringOptions
    ) -> None:
        self.tokenizer = tokenizer
        self._plain_tokenizer = without_limits(tokenizer.backend_tokenizer)
        self._encoder = Encoder(recipe, tokenizer, options, position_limit(classifier))
        self.max_tokens, self.instruction = self._encoder.max_tokens, self._encoder.instruction
        self.device = str(classifier.device)
        self.dtype = str(classifier.dtype).removeprefix("torch.")
        cache_bytes = options.get("document_cache_bytes") or 0, options.get("document_cache_host_bytes") or 0
        sizes, is_compiled = (options.get("batch_tokens"), *cache_bytes), bool(options.get("compile"))
        new_runner = partial(ModelRunner, classifier, *sizes, is_compiled=is_compiled)
        runner = in_temporary_thread(new_runner)
        self.batch_tokens = runner.batch_tokens
        max_cost = _MAX_SCHEDULED_BATCHES * runner.batch_tokens
        self._scheduler = Scheduler(runner.compute, cost_of=lambda row: len(row.ids), max_batch_cost=max_cost)
        max_waiting = options.get("max_waiting")
        self._limit, self._process = None if max_waiting is None else CallLimit(max_waiting), os.getpid()
        # On a CPU, tokenising would compete with computing for the cores; MPS waits for each batch anyway.
        self._portion_tokens = runner.batch_tokens if classifier.device.type == "cuda" else None
        self._classifier: PreTrainedModel | None = classifier

    @property
    def classifier(self) -> PreTrainedModel:
        """The classifier; raises OnelogitError after the scorer is closed."""
        if self._classifier is None:
            raise OnelogitError("this reranker is closed; load it again")
        return self._classifier

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._classifier is None

    def close(self) -> None:
        """Release the classifier. Calls that still wait raise OnelogitError."""
        self._classifier = None
        self._scheduler.close()

    def rows(self, pairs: Sequence[tuple[str, str]], instruction: str | None = None) -> list[TokenRow]:
        """The rows of token ids for the classifier.

        Args:
            pairs: queries and documents, checked by `validation.checked_pairs`.
            instruction: None for the scorer's default, "" for none.

        Raises:
            InputError: a query leaves no room for a document, or the family takes no instruction.
        """
        return self._encoder.rows(pairs, self._encoder.checked_instruction(instruction))

    def describe(self, query: str, document: str, instruction: str | None = None) -> Prompt:
        """The prompt of one pair, which `validation.checked_pair` has checked. Raises as `rows`."""
        return self._encoder.describe(query, document, self._encoder.checked_instruction(instruction))

    def logits(
        self, pairs: Sequence[tuple[str, str]], instruction: str | None = None, *, progress: bool = False
    ) -> PairLogits:
        """The logit of each pair, in the given order.

        Raises:
            InputError: as `rows`.
            LogitError: a logit is NaN or infinite.
            DeviceMemoryError: a single prompt does not fit into the device's memory.
            OverloadError: as many calls wait already as `max_waiting` allows.
            OnelogitError: the scorer is closed, or the model is on a GPU and was loaded before a fork.
        """
        rows_done = RowProgress(is_shown=True) if progress else None
        with self._call(rows_done) as call:
            owners, truncated_count = self._submit(call, pairs, instruction)
            with nullcontext() if rows_done is None else rows_done.shown(len(owners)):
                return PairLogits(best_logits(call.logits(), owners), truncated_count)

    async def alogits(
        self, pairs: Sequence[tuple[str, str]], instruction: str | None = None, *, progress: bool = False
    ) -> PairLogits:
        """`logits`, without blocking the event loop."""
        rows_done = RowProgress(is_shown=True) if progress else None
        with self._call(rows_done) as call:
            owners, truncated_count = await asyncio.to_thread(self._submit, call, pairs, instruction)
            with nullcontext() if rows_done is None else rows_done.shown(len(owners)):
                return PairLogits(best_logits(await call.alogits(), owners), truncated_count)

    async def arow_logits(self, rows: Sequence[TokenRow]) -> list[float]:
        """The logit of each owner of some rows, without blocking the event loop.

        Args:
            rows: from `rows`, or checked by `checked_rows`; an owner with several rows gets its best logit.

        Raises:
            LogitError, DeviceMemoryError, OverloadError, OnelogitError: as `logits`.
        """
        with self._call() as call:
            call.add(rows)
            return best_logits(await call.alogits(), [row.owner for row in rows])

    def checked_rows(self, rows: Sequence[Sequence[int]]) -> list[TokenRow]:
        """The rows of whole prompts that somebody else tokenised.

        Raises:
            InputError: a row is empty, longer than `max_tokens`, or contains an unknown id; or the model reads pairs.
        """
        if "token_type_ids" in self.tokenizer.model_input_names:
            raise InputError(
                "this model reads query and document as a pair, which token ids cannot express; send texts"
            )
        vocabulary = int(cast("Any", self.classifier.get_input_embeddings()).weight.shape[0])
        for index, ids in enumerate(rows):
            if not 0 < len(ids) <= self.max_tokens:
                raise InputError(f"row {index} has {len(ids)} tokens; a row has from 1 to max_tokens={self.max_tokens}")
            if not 0 <= min(ids) <= max(ids) < vocabulary:
                wrong = min(ids) if min(ids) < 0 else max(ids)
                raise InputError(f"row {index} has the token id {wrong}; the model's ids are 0 to {vocabulary - 1}")
        return [TokenRow(tuple(ids), owner=index) for index, ids in enumerate(rows)]

    def first_tokens(self, documents: Sequence[str], count: int) -> list[str]:
        """The first `count` tokens of each document, as text; no character is cut."""
        encodings = self._plain_tokenizer.encode_batch(documents, add_special_tokens=False)
        return [
            document if len(encoding.ids) <= count else document[: encoding.offsets[count][0]]
            for document, encoding in zip(documents, encodings, strict=True)
        ]

    @contextmanager
    def _call(self, on_progress: RowProgress | None = None) -> Iterator[ScoringCall[TokenRow]]:
        """A call that has one of the places of `max_waiting`."""
        if self._process != os.getpid() and not self.device.startswith("cpu"):
            raise OnelogitError(
                f"the model on {self.device} was loaded before this process was forked, and GPUs cannot be used across "
                "a fork; load it in each process, or start processes with the method spawn"
            )
        place = nullcontext() if self._limit is None else self._limit.place()
        with place, ScoringCall(self._scheduler, on_progress) as call:
            yield call

    def _submit(
        self, call: ScoringCall[TokenRow], pairs: Sequence[tuple[str, str]], instruction: str | None
    ) -> tuple[list[int], int]:
        """Tokenise the pairs and submit their rows, portion by portion.

        Returns:
            The index of each row's pair, and how many documents were truncated.
        """
        owners: list[int] = []
        truncated_count = 0
        for portion in self._portions(pairs):
            if call.is_over:
                break
            rows = self.rows([pairs[index] for index in portion], instruction)
            call.add(rows)
            owners += [portion[row.owner] for row in rows]
            truncated_count += sum(row.is_truncated for row in rows)
        return owners, truncated_count

    def _portions(self, pairs: Sequence[tuple[str, str]]) -> Iterable[Sequence[int]]:
        if self._portion_tokens is None:
            return [range(len(pairs))]
        is_document_first = self._encoder.is_document_first
        return split_into_portions(pairs, self._portion_tokens, self.max_tokens, is_document_first=is_document_first)


def split_into_portions(
    pairs: Sequence[tuple[str, str]], batch_tokens: int, max_tokens: int, *, is_document_first: bool
) -> Iterator[list[int]]:
    """Divide a call into portions, so that a device computes one portion while the next is tokenised.

    Pairs whose prompts begin with the same text are kept together, because each portion computes a shared prefix once;
    identical pairs are never separated.

    Yields:
        The indices of the pairs in a portion; the only portion has all pairs if they are too few to divide.
    """
    texts = [(document, query) if is_document_first else (query, document) for query, document in pairs]
    order = sorted(range(len(pairs)), key=texts.__getitem__)
    added = [*_added_bytes([texts[index] for index in order], max_tokens * _BYTES_PER_TOKEN)]
    # A portion must compute long enough to hide the launch of the next one, so portions have a minimum size and never
    # leave a smaller remainder. They at most double, because the next one is tokenised while one is computed.
    limit = batch_tokens * _BYTES_PER_TOKEN
    wanted, held, left = limit / 4, 0, sum(added)
    portion: list[int] = []
    for index, count in zip(order, added, strict=True):
        if count and wanted <= held <= left:
            yield portion
            wanted, held, portion = min(2 * wanted, limit), 0, []
        portion.append(index)
        held, left = held + count, left - count
    yield portion


def _added_bytes(texts: Sequence[tuple[str, str]], max_text_bytes: int) -> Iterator[int]:
    """The bytes that each pair adds to the pair before it; 0 if the two are identical."""
    before = ("", "")
    for pair in texts:
        first, second = (min(len(text.encode()), max_text_bytes) for text in pair)
        yield 0 if pair == before else second if pair[0] == before[0] else first + second
        before = pair
