"""Rows of token ids -> logits, batch by batch, on the model's device. Not for several threads at once.

Decoders whose attention can take it read a forest: every shared prefix once, no padding. All others read padded rows.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from onelogit.attention import Reading
from onelogit.convert import Float32Head
from onelogit.decoder import (
    attends_over_forests,
    current,
    is_known_to_read_forests,
    may_read_forests,
    rotates_by_length,
    stop_reading_forests,
    use_in,
)
from onelogit.document_cache import DocumentCache
from onelogit.forest import CARRIED, Batch, Cursor, next_batch
from onelogit.in_turn import rounded
from onelogit.keys import Block
from onelogit.memory import default_batch_tokens, is_out_of_memory, release_cached
from onelogit.quicken import quicken
from onelogit.scores import Computed
from onelogit.written import Rows

logger = logging.getLogger(__name__)

T = TypeVar("T")

_PROBE_ENDINGS = ((7, 8, 9), range(200, 220), (*range(200, 210), *range(300, 330)))
_TOLERANCE, _HALF_TOLERANCE = 1e-3, 0.1  # of a hidden state's norm; rows that see each other differ by about 1


class TokenRow(NamedTuple):
    """One prompt.

    Attributes:
        ids: its tokens; at least one.
        second_start: where its second text begins, for a classifier that is told by token_type_ids.
        stems: lengths of those prefixes that other rows may share, ascending, in tokens.
    """

    ids: tuple[int, ...]
    second_start: int = 0
    stems: tuple[int, ...] = ()


def token_rows(rows: Rows) -> list[TokenRow]:
    """What the encoder wrote, row by row."""
    starts = [0] * len(rows.rows) if rows.second_starts is None else rows.second_starts
    stems = rows.stems or [()] * len(rows.rows)
    return [TokenRow(tuple(ids), start, stem) for ids, start, stem in zip(rows.rows, starts, stems, strict=True)]


class Forward:
    """A classifier, and what makes it compute.

    Args:
        classifier: of `sequence_classifier`, or one complete with its own head.
        batch_tokens: most tokens in one forward pass; None for what the free memory allows.
        document_cache: keeps keys and values between calls; None for none.

    Attributes:
        classifier: the same.
        batch_tokens: halved each time the memory does not hold a batch.
        reads_forests: whether shared prefixes are computed once.
    """

    def __init__(
        self,
        classifier: PreTrainedModel,
        batch_tokens: int | None = None,
        document_cache: DocumentCache | None = None,
    ) -> None:
        self.classifier = classifier
        self.batch_tokens = default_batch_tokens(classifier) if batch_tokens is None else batch_tokens
        self.document_cache = document_cache
        self._layer_count = int(getattr(classifier.config.get_text_config(), "num_hidden_layers", 0))
        self._has_own_head = not isinstance(getattr(classifier, "score", None), Float32Head)
        if not self._has_own_head:
            quicken(classifier)
        self.reads_forests = not self._has_own_head and self._learns_to_read_forests()

    def logits(self, rows: Sequence[TokenRow]) -> list[float]:
        """The logit of each row, in the order of the rows."""
        logits = [0.0] * len(rows)
        for computed in self.compute(rows):
            for index, logit in zip(*computed, strict=True):
                logits[index] = logit
        return logits

    def compute(self, rows: Sequence[TokenRow]) -> Iterator[Computed]:
        """The logit of each row: at its last token where the head is ours, else what the classifier itself gives.

        Identical rows are computed once. A batch that the memory does not hold is computed again as smaller ones.

        Yields:
            The indices of some rows with their logits, float32 values; each row once, in no order.
        """
        places: dict[tuple[tuple[int, ...], int], list[int]] = {}
        for index, row in enumerate(rows):
            places.setdefault((row.ids, row.second_start if self._has_own_head else 0), []).append(index)
        copies_of = [copies for _, copies in sorted(places.items())]
        is_forest = self.reads_forests and attends_over_forests(self.classifier)
        compute = self._compute_forest if is_forest else self._compute_padded
        for computed in compute([rows[copies[0]] for copies in copies_of]):
            copies = [copies_of[place] for place in computed.indices]
            yield Computed(
                [index for indices in copies for index in indices],
                [logit for indices, logit in zip(copies, computed.logits, strict=True) for _ in indices],
            )

    def _compute_forest(self, rows: Sequence[TokenRow]) -> Iterator[Computed]:
        cache = self.document_cache
        ids = [row.ids for row in rows]
        stems = None if cache is None else [row.stems for row in rows]
        find_known = None if cache is None else lambda row: cache.find(rows[row].ids, rows[row].stems)
        cursor, carried = Cursor(), Block()
        while cursor.row < len(rows):
            batch = next_batch(ids, cursor, self.batch_tokens, stems, find_known)
            reading = self._reading(batch, carried)
            logits = self._attempt(self._read_forest_out, reading, len(batch.ids))
            if logits is None:
                continue
            for stem, block in zip(batch.stems, reading.stems, strict=True):
                if cache is not None:
                    cache.keep(ids[stem.row][: stem.length], block)
            cursor, carried = batch.after, reading.carried
            yield Computed([end.row for end in batch.ends], logits)

    def _reading(self, batch: Batch, carried: Block) -> Reading:
        past = [carried if block is CARRIED else block for block in batch.past]
        return Reading(batch, past, self._layer_count, self._width(len(batch.ids)))

    def _width(self, token_count: int) -> int:
        """Of the pass: rounded up within the budget, so that the kernels of matrix products, too, meet it again."""
        is_rounded = self.classifier.device.type != "cuda" and rounded(token_count) <= self.batch_tokens
        return rounded(token_count) if is_rounded else token_count

    def _compute_padded(self, rows: Sequence[TokenRow]) -> Iterator[Computed]:
        # A rotary embedding that depends on the longest row of a batch gives a row another logit beside a longer one.
        is_one_by_one = rotates_by_length(self.classifier)
        read = self._classify if self._has_own_head else self._read_padded_out
        order = sorted(range(len(rows)), key=lambda row: -len(rows[row].ids))  # the largest batch first
        while order:
            width = len(rows[order[0]].ids)
            batch = order[: 1 if is_one_by_one else max(1, self.batch_tokens // width)]
            logits = self._attempt(read, [rows[row] for row in batch], width * len(batch) if len(batch) > 1 else 1)
            if logits is not None:
                order = order[len(batch) :]
                yield Computed(batch, logits)

    def _attempt(self, read: Callable[[T], list[float]], batch: T, token_count: int) -> list[float] | None:
        """The logits of a batch, or None where the memory does not hold it: then the budget is halved."""
        try:
            return read(batch)
        except (RuntimeError, MemoryError) as error:
            if token_count <= 1 or not is_out_of_memory(error):
                raise
        release_cached(self.classifier.device)  # behind the handler, where the failed batch is let go
        self.batch_tokens = max(1, self.batch_tokens // 2)
        logger.warning("out of memory over %d tokens; going on with batch_tokens=%d", token_count, self.batch_tokens)
        return None

    @torch.inference_mode()
    def _read_forest(self, reading: Reading) -> Tensor:
        """The last hidden state of each row that ends in the batch, shape (rows, hidden)."""
        batch, device = reading.batch, self.classifier.device
        fillers = [0] * (reading.width - len(batch.ids))
        with current(reading):
            hidden: Tensor = self.classifier.base_model(
                input_ids=torch.tensor([batch.ids + fillers], device=device),
                position_ids=torch.tensor([batch.positions + fillers], device=device),
                attention_mask=torch.zeros((1, 1, 1, 1), device=device),  # as if prepared: no mask is made
                use_cache=False,
            ).last_hidden_state
        return hidden[0, reading.ends(hidden.device)]

    @torch.inference_mode()
    def _read_padded(self, rows: Sequence[TokenRow]) -> Tensor:
        """The last hidden state of each row, shape (rows, hidden)."""
        # Padded at the right, without a mask: a causal model never looks right, so each row reads as if it were alone.
        device = self.classifier.device
        hidden: Tensor = self.classifier.base_model(
            input_ids=_padded([row.ids for row in rows], 0, device), use_cache=False
        ).last_hidden_state
        last = torch.tensor([len(row.ids) - 1 for row in rows], device=hidden.device)
        return hidden[torch.arange(len(rows), device=hidden.device), last]

    @torch.inference_mode()
    def _classify(self, rows: Sequence[TokenRow]) -> list[float]:
        device = self.classifier.device
        inputs = {
            "input_ids": _padded([row.ids for row in rows], self.classifier.config.pad_token_id or 0, device),
            "attention_mask": _padded([[1] * len(row.ids) for row in rows], 0, device),
        }
        if rows[0].second_start:
            types = [[0] * row.second_start + [1] * (len(row.ids) - row.second_start) for row in rows]
            inputs["token_type_ids"] = _padded(types, 0, device)
        return _floats(self.classifier(**inputs).logits)

    def _read_forest_out(self, reading: Reading) -> list[float]:
        return self._read_out(self._read_forest(reading))

    def _read_padded_out(self, rows: Sequence[TokenRow]) -> list[float]:
        return self._read_out(self._read_padded(rows))

    @torch.inference_mode()
    def _read_out(self, hidden: Tensor) -> list[float]:
        return _floats(self.classifier.get_submodule("score")(hidden))

    def _learns_to_read_forests(self) -> bool:
        if not may_read_forests(self.classifier):
            return False
        use_in(self.classifier)
        is_able = is_known_to_read_forests(self.classifier) or self._reads_forests_rightly()
        if not is_able:
            stop_reading_forests(self.classifier)
        return is_able

    def _reads_forests_rightly(self) -> bool:
        """Whether rows that share a prefix end in the same hidden states read as a forest and padded."""
        vocabulary = int(self.classifier.config.get_text_config().vocab_size)
        ids = sorted(tuple(id % vocabulary for id in (*range(100, 112), *own)) for own in _PROBE_ENDINGS)
        try:
            forest = self._read_forest(self._reading(next_batch(ids, Cursor(), 1000), Block()))
            padded = self._read_padded([TokenRow(row) for row in ids])
        except Exception as error:  # a model's code may fail in any way over what it was not written for
            logger.info("%s cannot read shared prefixes once: %s", type(self.classifier).__name__, error)
            return False
        difference = float((forest - padded).float().norm() / padded.float().norm())
        logger.info("%s: reading prefixes once differs by %.2g", type(self.classifier).__name__, difference)
        return difference < (_TOLERANCE if self.classifier.dtype == torch.float32 else _HALF_TOLERANCE)


def _padded(rows: Sequence[Sequence[int]], filler: int, device: torch.device) -> Tensor:
    """Shape (rows, longest), filled up at the right."""
    width = max(map(len, rows))
    return torch.tensor([[*row, *[filler] * (width - len(row))] for row in rows], device=device)


def _floats(logits: Tensor) -> list[float]:
    return [float(logit) for logit in logits[:, 0].float().tolist()]
