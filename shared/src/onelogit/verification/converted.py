"""A checkpoint that onelogit converts -> its token ids and logits, and the effect of padding and truncation on them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile
from typing import NamedTuple

from onelogit.checkpoints.resolve import ResolvedModel
from onelogit.engine.model_runner import ModelRunner
from onelogit.io.progress import progress_bar, waiting
from onelogit.io.sample_pairs import SamplePair
from onelogit.local.reranker import Reranker
from onelogit.model_spec import ModelSpec
from onelogit.options import LoadOptions
from onelogit.prompts.encoder import Encoder
from onelogit.prompts.token_rows import TokenRow
from onelogit.verification.original import OriginalModel

_PAIRS_A_CHUNK = 16
_PADDED_ROWS = 8


class ConversionResult(NamedTuple):
    """The results of the conversion for the pairs, in their order.

    Attributes:
        logits: float32.
        rows: one row for each pair.
        max_tokens: the limit of a row.
        device: the device that computed the logits.
        pad_difference: the largest difference between a logit in a padded batch and the same row's logit alone.
        is_frame_kept: see `truncates_document_only`.
    """

    logits: list[float]
    rows: list[TokenRow]
    max_tokens: int
    device: str
    pad_difference: float
    is_frame_kept: bool


def measure_conversion(original: OriginalModel, pairs: Sequence[SamplePair]) -> ConversionResult:
    """Measure the conversion of an original, which is in memory only during this call.

    Raises:
        OnelogitError: as `Reranker.load`.
    """
    with loaded_reranker(original.found._replace(spec=ModelSpec(original.model, options=original.options))) as reranker:
        logits = score_pairs(reranker, pairs, "converted")
        max_tokens = reranker.max_tokens
        encoding_options: LoadOptions = {**original.options, "max_tokens": max_tokens, "long_documents": "cut"}
        encoder = Encoder(reranker.recipe, original.tokenizer, encoding_options)
        rows = encoder.rows([(pair.query, pair.document) for pair in pairs], original.instruction)
        return ConversionResult(
            logits=logits,
            rows=rows,
            max_tokens=max_tokens,
            device=reranker.device,
            pad_difference=_pad_difference(reranker, rows),
            is_frame_kept=truncates_document_only(encoder, original, min((pair.query for pair in pairs), key=len)),
        )


@contextmanager
def loaded_reranker(model: ResolvedModel | ModelSpec) -> Iterator[Reranker]:
    """A reranker for the duration of the block; shows a spinner while it loads.

    Raises:
        OnelogitError: as `Reranker.load`.
    """
    with waiting(f"loading {model.name}"):
        reranker = Reranker.load(model)
    with reranker:
        yield reranker


def score_pairs(reranker: Reranker, pairs: Sequence[SamplePair], name: str) -> list[float]:
    """The logit of each pair, computed a few pairs at a time, with a progress bar of that name."""
    logits: list[float] = []
    with progress_bar(name, len(pairs)) as advance:
        for start in range(0, len(pairs), _PAIRS_A_CHUNK):
            chunk = [(pair.query, pair.document) for pair in pairs[start : start + _PAIRS_A_CHUNK]]
            logits += reranker.pair_logits(chunk)
            advance(len(chunk))
    return logits


def truncates_document_only(encoder: Encoder, original: OriginalModel, query: str) -> bool:
    """Whether truncation removes only the end of a document that is much too long, and nothing else of the prompt.

    The row must have exactly `max_tokens` tokens: the complete row's beginning and end, including at least the prompt
    before and after the document.
    """
    pair = SamplePair(query, "A document that does not end. " * encoder.max_tokens + "Here.")
    row = encoder.rows([(pair.query, pair.document)], original.instruction)[0].ids
    complete = original.inputs(pair)["input_ids"]
    without_document = original.inputs(SamplePair(query, ""))["input_ids"]
    start, end = _common_prefix(row, complete), _common_prefix(row[::-1], complete[::-1])
    return (
        len(row) == encoder.max_tokens
        and start + end >= len(row)
        and start >= _common_prefix(without_document, complete)
        and end >= _common_prefix(without_document[::-1], complete[::-1])
    )


def _common_prefix(row: Sequence[int], other: Sequence[int]) -> int:
    """The number of equal tokens at the beginning of two rows."""
    equal = takewhile(lambda pair: pair[0] == pair[1], zip(row, other, strict=False))
    return sum(1 for _ in equal)


def _pad_difference(reranker: Reranker, rows: Sequence[TokenRow]) -> float:
    """The difference for rows of all lengths in one batch, so that most of them are padded."""
    by_length = sorted(rows, key=lambda row: -len(row.ids))
    some = [*by_length[:: max(1, len(by_length) // _PADDED_ROWS)], by_length[-1]]
    runner = ModelRunner(reranker.classifier, len(some[0].ids) * len(some))
    runner.shares_prefixes = False  # else there would be no padding
    together, alone = runner.logits(some), [runner.logits([row])[0] for row in some]
    return max(abs(ours - theirs) for ours, theirs in zip(together, alone, strict=True))
