"""A checkpoint as onelogit loads it -> its rows and logits, and whether padding or cutting changes what it reads."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from onelogit.checkpoints.resolve import ResolvedModel
from onelogit.engine.model_runner import ModelRunner
from onelogit.io.progress import tracked, waiting
from onelogit.local.reranker import Reranker
from onelogit.options import LoadOptions, ModelSpec
from onelogit.prompts.encoder import Encoder
from onelogit.prompts.token_rows import TokenRow
from onelogit.verification.original import OriginalModel
from onelogit.verification.sample_pairs import SamplePair

_PAIRS_AT_ONCE = 16
_PADDED_ROWS = 8


class ConversionResult(NamedTuple):
    """What the conversion gives for the pairs, in their order.

    Attributes:
        logits: float32.
        rows: one row of token ids for each pair.
        max_tokens: the longest row.
        device: where it was computed.
        pad_difference: the largest difference of a logit in one batch, padded to the longest row, from the same alone.
        is_frame_kept: see `is_frame_kept`.
    """

    logits: list[float]
    rows: list[TokenRow]
    max_tokens: int
    device: str
    pad_difference: float
    is_frame_kept: bool


def measure_conversion(original: OriginalModel, pairs: Sequence[SamplePair], options: LoadOptions) -> ConversionResult:
    """The conversion of an original, loaded for this call.

    Raises:
        OnelogitError: as `Reranker.load`.
    """
    with loaded_reranker(original.found._replace(spec=ModelSpec(original.model, options=options))) as reranker:
        logits = score_pairs(reranker, pairs, "converted")
        max_tokens = reranker.max_tokens
        encoding_options: LoadOptions = {**options, "max_tokens": max_tokens, "long_documents": "cut"}
        encoder = Encoder.for_recipe(reranker.recipe, original.tokenizer, encoding_options)
        rows = encoder.rows([(pair.query, pair.document) for pair in pairs], original.instruction)
        return ConversionResult(
            logits=logits,
            rows=rows,
            max_tokens=max_tokens,
            device=reranker.device,
            pad_difference=_pad_difference(reranker, rows),
            is_frame_kept=is_frame_kept(encoder, original, min((pair.query for pair in pairs), key=len)),
        )


@contextmanager
def loaded_reranker(model: ResolvedModel | ModelSpec) -> Iterator[Reranker]:
    """The conversion, for the duration of the block; shows a spinner while it loads.

    Raises:
        OnelogitError: as `Reranker.load`.
    """
    with waiting(f"loading {model.name}"):
        reranker = Reranker.load(model)
    with reranker:
        yield reranker


def score_pairs(reranker: Reranker, pairs: Sequence[SamplePair], name: str) -> list[float]:
    """The logit of each pair, a few at a time, with a progress bar of that name."""
    starts = range(0, len(pairs), _PAIRS_AT_ONCE)
    chunks = [[(pair.query, pair.document) for pair in pairs[start : start + _PAIRS_AT_ONCE]] for start in starts]
    return [logit for chunk in tracked(chunks, name) for logit in reranker.pair_logits(chunk)]


def is_frame_kept(encoder: Encoder, original: OriginalModel, query: str) -> bool:
    """Whether a document far too long loses its end and nothing else.

    The row must have exactly `max_tokens` tokens: a beginning of the uncut row and an end of it, which hold at least
    what the prompt has in front of the document and behind it.
    """
    endless = SamplePair(query, "A document that does not end. " * encoder.max_tokens + "Here.")
    row = encoder.rows([(endless.query, endless.document)], original.instruction)[0].ids
    uncut = original.inputs(endless)["input_ids"]
    frame = original.inputs(SamplePair(query, ""))["input_ids"]
    begun, ended = _shared(row, uncut), _shared(row[::-1], uncut[::-1])
    return (
        len(row) == encoder.max_tokens
        and begun + ended >= len(row)
        and begun >= _shared(frame, uncut)
        and ended >= _shared(frame[::-1], uncut[::-1])
    )


def _shared(row: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two rows have in common from the first on."""
    pairs = enumerate(zip(row, other, strict=False))
    return next((place for place, (ours, theirs) in pairs if ours != theirs), min(len(row), len(other)))


def _pad_difference(reranker: Reranker, rows: Sequence[TokenRow]) -> float:
    """Over rows from the longest to the shortest, so that padding is as much as it can be."""
    by_length = sorted(rows, key=lambda row: -len(row.ids))
    some = [*by_length[:: max(1, len(by_length) // _PADDED_ROWS)], by_length[-1]]
    forward = ModelRunner(reranker.classifier, len(some[0].ids) * len(some))
    forward.shares_prefixes = False  # the logits above were read as a forest; this is about padding
    together, alone = forward.logits(some), [forward.logits([row])[0] for row in some]
    return max(abs(ours - theirs) for ours, theirs in zip(together, alone, strict=True))
