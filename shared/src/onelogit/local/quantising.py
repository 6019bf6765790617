"""A classifier in memory -> the same classifier in 8 bits, and how far that moves its logits.

The logits of the bundled pairs are computed before and after, so that two copies of the weights are never in memory.
"""

import logging
import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from onelogit.checkpoints.loader import Checkpoint
from onelogit.conversion.classifier import position_limit
from onelogit.engine.model_runner import ModelRunner
from onelogit.errors import InputError, OnelogitError, UnsupportedModelError, first_line
from onelogit.io.sample_pairs import bundled_pairs
from onelogit.model_spec import ModelSpec
from onelogit.prompts.encoder import Encoder
from onelogit.prompts.token_rows import TokenRow
from onelogit.quantization.quantise import quantise_layers

logger = logging.getLogger(__name__)

_TOP = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizationReport:
    """How far a quantisation moves the logits of the bundled pairs, in Korean, English and Chinese.

    Attributes:
        layer_count: the number of quantised linear layers.
        pair_count: the number of pairs.
        largest_difference: of a logit from that of the exact weights.
        mean_difference: the mean absolute difference.
        standard_deviation: of the exact logits, with which to compare the differences.
        kendall_tau: tau-b of the two orders of all pairs: 1 for the same order, -1 for the reverse; None if all
            logits are equal.
        top_10_overlap: the share of the ten best pairs that are among the ten best with both weights: 0 to 1.
        seconds: that the comparison and the quantisation took.
    """

    layer_count: int
    pair_count: int
    largest_difference: float
    mean_difference: float
    standard_deviation: float
    kendall_tau: float | None
    top_10_overlap: float
    seconds: float

    def __str__(self) -> str:
        tau = "" if self.kendall_tau is None else f"Kendall's tau of their order is {self.kendall_tau:.3f}, and "
        return (
            f"int8 is approximate: on {self.pair_count} sample pairs in Korean, English and Chinese, "
            f"logits move by {self.mean_difference:.2g} on average and {self.largest_difference:.2g} at most (their "
            f"standard deviation is {self.standard_deviation:.2g}); {tau}{self.top_10_overlap:.0%} of the ten best stay"
        )


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
    start, quantization = time.perf_counter(), spec.quantization
    batch_tokens = spec.options.get("batch_tokens")
    rows = _sample_rows(classifier, checkpoint)
    exact = _logits(classifier, rows, batch_tokens)
    layer_count = quantise_layers(classifier)
    try:
        quantised = _logits(classifier, rows, batch_tokens)
    except OnelogitError:
        raise
    except Exception as error:  # a model's code may fail in any way without the weights that it expects
        raise UnsupportedModelError(
            f"{type(classifier).__name__} of transformers cannot compute with quantization={quantization!r} "
            f"({type(error).__name__}: {first_line(error)}); leave it out"
        ) from error
    if not rows:
        return None
    report = _compared(exact, quantised, layer_count, time.perf_counter() - start)
    logger.info("%s: %s", spec.name, report)
    return report


def _sample_rows(classifier: PreTrainedModel, checkpoint: Checkpoint) -> list[TokenRow]:
    """The rows of the bundled pairs; none if the model has too few positions for them."""
    encoder = Encoder(checkpoint.recipe, checkpoint.tokenizer, {}, position_limit(classifier))
    try:
        return encoder.rows([pair[:2] for pair in bundled_pairs()], encoder.instruction)
    except InputError as error:
        logger.info("the effect of quantisation is not measured: %s", error)
        return []


def _logits(classifier: PreTrainedModel, rows: Sequence[TokenRow], batch_tokens: int | None) -> list[float]:
    """The logits of rows, as fast as the engine computes them; the classifier itself is not prepared for it."""
    weights: dict[int, Any] = {id(buffer): buffer.detach() for buffer in classifier.buffers()}
    weights |= {id(each): nn.Parameter(each.detach(), requires_grad=False) for each in classifier.parameters()}
    return ModelRunner(deepcopy(classifier, weights), batch_tokens).logits(rows)


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
        top_10_overlap=len(best[0] & best[1]) / len(best[0]),
        seconds=seconds,
    )
