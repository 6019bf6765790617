"""A classifier in memory -> the same classifier in 8 bits, and how far that moves its logits.

The logits of the bundled pairs are computed before and after, so that two copies of the weights are never in memory.
"""

import ctypes
import gc
import logging
import sys
import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from onelogit.checkpoints.loader import Checkpoint
from onelogit.conversion.classifier import position_limit
from onelogit.engine.memory import is_out_of_memory
from onelogit.engine.model_runner import ModelRunner
from onelogit.errors import InputError, OnelogitError, UnsupportedModelError, first_line
from onelogit.io.sample_pairs import bundled_pairs
from onelogit.model_spec import ModelSpec
from onelogit.prompts.encoder import Encoder
from onelogit.prompts.token_rows import TokenRow
from onelogit.quantization.quantise import quantise_layers

logger = logging.getLogger(__name__)

_TOP, _LEAST_FOR_TOP = 10, 20
_EXACT_SECONDS, _LEAST_QUERIES = 5, 3
_FOR_MANY_CALLS = ("compile", "document_cache_bytes", "document_cache_host_bytes", "max_waiting")


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizationReport:
    """How far a quantisation moves the logits of bundled pairs, in Korean, English and Chinese.

    Of the 48 pairs, as many are compared as take about five seconds with the exact weights.

    Attributes:
        layer_count: the number of quantised linear layers.
        pair_count: the number of pairs.
        largest_difference: of a logit from that of the exact weights.
        mean_difference: the mean absolute difference.
        standard_deviation: of the exact logits, with which to compare the differences.
        kendall_tau: tau-b of the two orders of all pairs: 1 for the same order, -1 for the reverse; None if all
            logits are equal.
        top_10_overlap: the share of the ten best pairs that are among the ten best with both weights: 0 to 1; None for
            fewer than 20 pairs.
        seconds: that the comparison and the quantisation took.
    """

    layer_count: int
    pair_count: int
    largest_difference: float
    mean_difference: float
    standard_deviation: float
    kendall_tau: float | None
    top_10_overlap: float | None
    seconds: float

    def __str__(self) -> str:
        ranking = [
            *([] if self.kendall_tau is None else [f"Kendall's tau of their order is {self.kendall_tau:.3f}"]),
            *([] if self.top_10_overlap is None else [f"{self.top_10_overlap:.0%} of the ten best stay"]),
        ]
        moved = (
            f"int8 is approximate: on {self.pair_count} sample pairs in Korean, English and Chinese, logits, whose "
            f"standard deviation is {self.standard_deviation:.2g}, move by {self.mean_difference:.2g} on average and "
            f"{self.largest_difference:.2g} at most"
        )
        return "; ".join([moved, " and ".join(ranking)]) if ranking else moved


def quantise(classifier: PreTrainedModel, checkpoint: Checkpoint, spec: ModelSpec) -> QuantizationReport | None:
    """Quantise a classifier in place, and log how far that moves its logits.

    Args:
        classifier: of the checkpoint, on a CPU, before anything prepares it for speed.
        checkpoint: with its tokenizer and recipe.
        spec: with a quantization.

    Returns:
        None if the model is too short for the prompts of the bundled pairs.

    Raises:
        UnsupportedModelError: there are no linear layers, or the model's code reads their weights itself.
    """
    start, batch_tokens = time.perf_counter(), spec.options.get("batch_tokens")
    samples = _sample_rows(classifier, checkpoint)
    exact = _exact_logits(ModelRunner(_copy(classifier), batch_tokens), samples)
    _return_freed_memory()
    try:
        layer_count = quantise_layers(classifier, [rows[0].ids for rows in samples[::2]])
        runner = ModelRunner(_copy(classifier), batch_tokens)
        quantised = [logit for rows, _ in exact for logit in runner.logits(rows)]
    except Exception as error:  # a model's code may fail in any way without the weights that it expects
        if isinstance(error, OnelogitError) or is_out_of_memory(error):
            raise
        raise UnsupportedModelError(
            f"{type(classifier).__name__} of transformers cannot compute with quantization={spec.quantization!r} "
            f"({type(error).__name__}: {first_line(error)}); leave it out"
        ) from error
    del runner
    _return_freed_memory()
    if not exact:
        return None
    seconds = time.perf_counter() - start
    report = _compared([logit for _, logits in exact for logit in logits], quantised, layer_count, seconds)
    logger.info("%s: %s", spec.name, report)
    return report


def exact_spec(spec: ModelSpec) -> ModelSpec:
    """The spec of the same model with its exact weights, and without what makes many calls faster."""
    changed = {**spec.options, "quantization": None, **dict.fromkeys(_FOR_MANY_CALLS)}
    return ModelSpec(spec.model, options=changed, base=spec.base)


def _return_freed_memory() -> None:
    """Return to the system what the exact weights and their trial took: cycles keep it, and then glibc."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def _sample_rows(classifier: PreTrainedModel, checkpoint: Checkpoint) -> list[list[TokenRow]]:
    """The rows of each query of the bundled pairs, the fewest first; none if the model is too short for them."""
    encoder = Encoder(checkpoint.recipe, checkpoint.tokenizer, {}, position_limit(classifier))
    by_query = [[*pairs] for _, pairs in groupby(bundled_pairs(), key=attrgetter("query"))]
    try:
        return [encoder.rows([pair[:2] for pair in pairs], encoder.instruction) for pairs in sorted(by_query, key=len)]
    except InputError as error:
        logger.info("the effect of quantisation is not measured: %s", error)
        return []


def _exact_logits(runner: ModelRunner, rows: Sequence[list[TokenRow]]) -> list[tuple[list[TokenRow], list[float]]]:
    """The rows of some queries with their logits: of as many queries as the time allows."""
    found: list[tuple[list[TokenRow], list[float]]] = []
    end = time.perf_counter() + _EXACT_SECONDS
    for each in rows:
        if len(found) >= _LEAST_QUERIES and time.perf_counter() > end:
            break
        found.append((each, runner.logits(each)))
    return found


def _copy(classifier: PreTrainedModel) -> PreTrainedModel:
    """The classifier with the same weights in memory; what prepares the copy for speed leaves the classifier alone."""
    weights: dict[int, Any] = {id(buffer): buffer.detach() for buffer in classifier.buffers()}
    weights |= {id(each): nn.Parameter(each.detach(), requires_grad=False) for each in classifier.parameters()}
    return deepcopy(classifier, weights)


def _compared(
    exact: Sequence[float], quantised: Sequence[float], layer_count: int, seconds: float
) -> QuantizationReport:
    before, after = torch.tensor(exact, dtype=torch.float64), torch.tensor(quantised, dtype=torch.float64)
    differences = (after - before).abs()
    # Sums over all pairs of pairs: concordant less discordant ones, and those that are not tied.
    signs = [(logits[:, None] - logits).sign() for logits in (before, after)]
    untied = [float((sign * sign).sum()) for sign in signs]
    tau = float((signs[0] * signs[1]).sum()) / (untied[0] * untied[1]) ** 0.5 if all(untied) else None
    best = [set(logits.argsort(descending=True, stable=True)[:_TOP].tolist()) for logits in (before, after)]
    return QuantizationReport(
        layer_count=layer_count,
        pair_count=len(exact),
        largest_difference=float(differences.max()),
        mean_difference=float(differences.mean()),
        standard_deviation=float(before.std()),
        kendall_tau=tau,
        top_10_overlap=len(best[0] & best[1]) / _TOP if len(exact) >= _LEAST_FOR_TOP else None,
        seconds=seconds,
    )
