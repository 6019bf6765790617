"""A model and pairs of texts -> whether its conversion gives the original's prompts, token ids and logits."""

import gc
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from onelogit.errors import InputError, ServerError
from onelogit.io.sample_pairs import SamplePair
from onelogit.model_spec import ModelSpec
from onelogit.options import LoadOptions, is_url
from onelogit.prompts.layout import fill
from onelogit.prompts.template import compile_prompt
from onelogit.prompts.token_rows import TokenRow
from onelogit.remote.client import Client
from onelogit.remote.protocols import VLLM_TOKENS, ScoreRequest
from onelogit.verification.comparison import Comparison, compare
from onelogit.verification.converted import ConversionResult, loaded_reranker, measure_conversion, score_pairs
from onelogit.verification.original import ModelInputs, OriginalModel

_SERVER_TIMEOUT_S = 600.0
_ROWS_A_REQUEST = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """A conversion, measured against its original.

    Attributes:
        model: hub id or path.
        family: of the recipe.
        device: the device that computed the logits.
        dtype: of the backbones.
        quantization: of the conversion, as in `LoadOptions`; None if it has the original's exact weights.
        original_logits: from `OriginalModel.logits`; float32.
        converted: the logits of `Reranker.load`, compared with the original's.
        against: the logits of the second folder, computed by onelogit and by transformers, or of the server; empty
            if neither was given.
        tolerance: the largest difference of two logits that rounding explains; see `rounding_tolerance`. It does not
            apply to a quantised conversion, whose differences are larger, and only told.
        prompts_equal: the number of prompts that are equal to transformers' rendering, byte for byte; None if the
            tokenizer joins query and document.
        rows_equal: the number of rows whose token ids equal the ids from the original's tokenizer for the whole prompt.
        truncated_count: the number of rows that were truncated; the original reads the truncated rows.
        pad_difference: the largest difference between a logit in a padded batch and the same row's logit alone.
        is_frame_kept: whether a row truncated to `max_tokens` has that many tokens and all of the prompt before and
            after the document.
    """

    model: str
    family: str
    device: str
    dtype: str
    original_logits: tuple[float, ...]
    converted: Comparison
    against: tuple[Comparison, ...]
    tolerance: float
    prompts_equal: int | None
    rows_equal: int
    truncated_count: int
    pad_difference: float
    is_frame_kept: bool
    quantization: str | None = None

    @property
    def pair_count(self) -> int:
        return len(self.original_logits)

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """The comparison of the conversion, then the comparisons of the second folder or the server."""
        return (self.converted, *self.against)

    @property
    def agrees(self) -> bool:
        """Whether all prompts and rows are equal, all exact logits are within the tolerance, and all checks passed."""
        differences = [comparison.largest_difference for comparison in self.against]
        if self.quantization is None:
            differences += [self.pad_difference, self.converted.largest_difference]
        return (
            self.prompts_equal in (None, self.pair_count)
            and self.rows_equal + self.truncated_count == self.pair_count
            and all(difference <= self.tolerance for difference in differences)
            and self.is_frame_kept
        )

    def to_json(self) -> dict[str, Any]:
        """All fields and `agrees`, as data for JSON."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return {**plain, "agrees": self.agrees}


def measure_parity(model: str, pairs: Sequence[SamplePair], options: LoadOptions, against: str | None = None) -> Parity:
    """Measure the conversion of a model, and a second folder or a server, against the original.

    Only one model is in memory at a time.

    Args:
        model: hub id or path of a checkpoint for `Reranker.load`.
        pairs: to score; at least one.
        options: of `Reranker.load`, for original and conversion; the default dtype is float32, or the stored dtype for
            quantised weights.
        against: a second folder that should give the same logits, such as an export, or the url of a vLLM server that
            serves one.

    Raises:
        InputError: there are no pairs, or an option is out of range.
        OnelogitError: as `Reranker.load`.
        ServerError: the server cannot be reached, or does not give logits.
    """
    if not pairs:
        raise InputError("there are no pairs to score; give at least one")
    original = OriginalModel.find(model, options)
    # The conversion is loaded first, for onelogit's error messages.
    converted = measure_conversion(original, pairs)
    return _compare_with_original(original, converted, pairs, against)


def _compare_with_original(
    original: OriginalModel, converted: ConversionResult, pairs: Sequence[SamplePair], against: str | None
) -> Parity:
    dtype, inputs = str(original.options["dtype"]), [original.inputs(pair) for pair in pairs]
    rows_equal = sum(tuple(each["input_ids"]) == row.ids for each, row in zip(inputs, converted.rows, strict=True))
    truncated = [index for index, each in enumerate(inputs) if len(each["input_ids"]) > converted.max_tokens]
    for index in truncated:  # the original reads these as the conversion does
        inputs[index] = _inputs_of(converted.rows[index])
    _free_memory(original.options)
    reference = original.logits(inputs, converted.device, "original")
    logits = {"converted": converted.logits}
    if against is not None:
        logits |= _other_logits(against, pairs, inputs, converted.device, original.options)
    queries = [pair.query for pair in pairs]
    ours, *others = (compare(name, reference.logits, each, queries) for name, each in logits.items())
    return Parity(
        model=original.model,
        family=original.recipe.family,
        device=converted.device,
        dtype=dtype,
        original_logits=tuple(reference.logits),
        converted=ours,
        against=tuple(others),
        tolerance=rounding_tolerance(dtype, reference.largest_term, reference.layer_count),
        prompts_equal=_count_equal_prompts(original, pairs),
        rows_equal=rows_equal,
        truncated_count=len(truncated),
        pad_difference=converted.pad_difference,
        is_frame_kept=converted.is_frame_kept,
        quantization=original.options.get("quantization"),
    )


def rounding_tolerance(dtype: str, largest_term: float, layer_count: int) -> float:
    """The largest difference of two logits that rounding explains: 1e-4 in float32, otherwise a few rounding steps.

    Args:
        dtype: by name.
        largest_term: the largest absolute value of a logit that was rounded to it.
        layer_count: number of layers of the backbone.
    """
    # Only the order of additions differs, which changes a logit by about 1e-6; a real difference is far larger.
    if dtype == "float32":
        return 1e-4
    # A step is the gap between two neighbouring numbers of the logits' size. The original rounds the two logits of the
    # answer tokens, by up to half a step each; the conversion's float32 head does not. Also, each layer rounds the
    # hidden state twice, differently for each batch shape: two random walks of 2 * layer_count steps drift apart by the
    # square root of 4 * layer_count.
    _, exponent = math.frexp(largest_term)
    step = float(torch.finfo(getattr(torch, dtype)).eps) * 2.0 ** (exponent - 1)
    return step * (1 + 2 * math.sqrt(layer_count))


def _other_logits(
    against: str, pairs: Sequence[SamplePair], rows: Sequence[ModelInputs], device: str, options: LoadOptions
) -> dict[str, list[float]]:
    """Logits by the name of what computed them: the server, or onelogit and transformers with the folder's recipe."""
    if is_url(against):
        return {f"the server at {against}": server_logits(against, [row["input_ids"] for row in rows])}
    options = options.copy()
    options.pop("recipe", None)
    options.pop("relevant_label", None)  # a converted model has one
    options.pop("base_model", None)  # and is a whole model
    options.pop("revision", None)
    options.pop("quantization", None)  # it is compared as it is
    ours, theirs = (f"{Path(against).absolute().name} by {library}" for library in ("onelogit", "transformers"))
    _free_memory(options)
    with loaded_reranker(ModelSpec(against, options=options)) as reranker:
        logits = score_pairs(reranker, pairs, ours)
    del reranker
    _free_memory(options)
    return {ours: logits, theirs: OriginalModel.find(against, options).logits(rows, device, theirs).logits}


def _free_memory(options: LoadOptions) -> None:
    """Collect the previous model now: a model spread over devices holds references to itself."""
    if options.get("device_map") is not None:
        gc.collect()


def _inputs_of(row: TokenRow) -> ModelInputs:
    return {"input_ids": [*row.ids]} | ({"token_type_ids": [*row.types]} if row.types else {})


def _count_equal_prompts(original: OriginalModel, pairs: Sequence[SamplePair]) -> int | None:
    if original.recipe.chat_template is None:
        return None
    instruction = original.instruction or ""
    prompt = compile_prompt(original.recipe.chat_template, bool(instruction))
    return sum(
        fill(prompt, {"query": pair.query, "document": pair.document, "instruction": instruction})
        == original.text(pair)
        for pair in pairs
    )


def server_logits(url: str, rows: Sequence[Sequence[int]]) -> list[float]:
    """The raw logit of each row, in order, from the `/classify` of a vLLM server, with its activation off.

    Args:
        url: of the server, without a path: http://127.0.0.1:8000.
        rows: token ids, sent unchanged; the server applies neither a template nor truncation.

    Raises:
        ServerError: the server cannot be reached, or does not return one finite logit for each row.
    """
    client = Client(url, timeout_s=_SERVER_TIMEOUT_S)
    try:
        return client.run(lambda: _classify_rows(client, rows))
    finally:
        client.close()


async def _classify_rows(client: Client, rows: Sequence[Sequence[int]]) -> list[float]:
    models = await client.list_models()
    if not models:
        raise ServerError(f"{client.url}/v1/models lists no model, so this is not a vLLM server")
    parts = [rows[start : start + _ROWS_A_REQUEST] for start in range(0, len(rows), _ROWS_A_REQUEST)]
    return await client.scores(VLLM_TOKENS, [ScoreRequest(rows=part, model=models[0]) for part in parts])
