"""A model and pairs -> the proof that its conversion is the original: prompts, token ids and logits, side by side."""

import gc
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from onelogit.errors import InputError, ServerError
from onelogit.options import LoadOptions, ModelSpec, is_url
from onelogit.prompts.template import compile_prompt
from onelogit.prompts.token_rows import TokenRow
from onelogit.remote.client import Client, ClientLimits
from onelogit.remote.protocols import PROTOCOLS, ScoreRequest, read
from onelogit.verification.comparison import Comparison, compare
from onelogit.verification.converted import ConversionResult, loaded_reranker, measure_conversion, score_pairs
from onelogit.verification.original import ModelInputs, OriginalModel
from onelogit.verification.sample_pairs import SamplePair

_LIMITS = ClientLimits(timeout_s=600.0)
_ROWS_A_REQUEST = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """What was found when a conversion was measured against its original.

    Attributes:
        model: hub id or path.
        family: of the recipe.
        device: where all was computed.
        dtype: of the backbones.
        original_logits: of transformers' own model with its whole head, one pair at a time; float32.
        converted: the logits of `Reranker.load`, compared with the original's.
        against: those of the second folder, as onelogit and as transformers read it; empty where none was given.
        tolerance: the largest difference of two logits that counts as none: 1e-4 in float32, a few rounding steps
            of the largest logit read in float16 and bfloat16.
        prompts_equal: how many prompts are, byte for byte, what transformers' renderer writes; None where the
            tokenizer joins query and document itself.
        rows_equal: how many rows of token ids are what the original's tokenizer makes of the whole prompt.
        truncated_count: how many rows were cut to fit, and so are not the original's: it was given the cut ones.
        pad_difference: the largest difference of a logit in one batch, padded to the longest row, from the same alone.
        is_frame_kept: whether a row cut to `max_tokens` has that many tokens, and all that the uncut one has in front
            of the document and behind it.
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

    @property
    def pair_count(self) -> int:
        return len(self.original_logits)

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """The conversion's, and those of the second folder."""
        return (self.converted, *self.against)

    @property
    def agrees(self) -> bool:
        """Whether every prompt and row is equal, every logit within the tolerance, and every check passed."""
        differences = [self.pad_difference, *(comparison.largest_difference for comparison in self.comparisons)]
        return (
            self.prompts_equal in (None, self.pair_count)
            and self.rows_equal + self.truncated_count == self.pair_count
            and max(differences) <= self.tolerance
            and self.is_frame_kept
        )

    def to_json(self) -> dict[str, Any]:
        """All of it as dicts, lists, strings and numbers, with `agrees`."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return {**plain, "agrees": self.agrees}


class _OriginalRows(NamedTuple):
    """What the original is given: its own rows, but the conversion's where those had to be cut."""

    inputs: list[ModelInputs]
    equal_count: int
    truncated_count: int


def measure_parity(model: str, pairs: Sequence[SamplePair], options: LoadOptions, against: str | None = None) -> Parity:
    """The conversion of a model, and of a second folder, against the original.

    The models are loaded one after the other: there is never more than one in memory.

    Args:
        model: hub id or path of a checkpoint that `Reranker.load` takes.
        pairs: what to score; at least one.
        options: of `Reranker.load`, for original and conversion alike; where they name no dtype, it is float32, or of
            quantised weights their own.
        against: a second folder that should give the same logits, such as an exported conversion, or the URL of a
            vLLM server that serves one.

    Raises:
        InputError: no pairs, or an option out of its range.
        OnelogitError: as `Reranker.load`.
        ServerError: the server is not there, or does not give logits.
    """
    if not pairs:
        raise InputError("there are no pairs to measure with")
    original = OriginalModel.find(model, options)
    # The conversion first: what cannot be loaded is refused in onelogit's own words.
    converted = measure_conversion(original, pairs, original.options)
    return _held_against(original, converted, pairs, against)


def _held_against(
    original: OriginalModel, converted: ConversionResult, pairs: Sequence[SamplePair], against: str | None
) -> Parity:
    """The conversion, and a second folder or a server, beside the original, which is loaded for this call."""
    rows, dtype = _original_rows(original, pairs, converted), str(original.options["dtype"])
    _let_go(original.options)
    reference = original.logits(rows.inputs, converted.device, "original")
    logits = {"converted": converted.logits}
    if against is not None:
        logits |= _second_logits(against, pairs, rows.inputs, converted.device, original.options)
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
        rows_equal=rows.equal_count,
        truncated_count=rows.truncated_count,
        pad_difference=converted.pad_difference,
        is_frame_kept=converted.is_frame_kept,
    )


def rounding_tolerance(dtype: str, largest_term: float, layer_count: int) -> float:
    """The largest difference of two logits that rounding explains.

    Args:
        dtype: by name.
        largest_term: the largest absolute value of a logit that was rounded to it.
        layer_count: of the backbone.
    """
    # Only the order of additions differs, which moves a logit by about 1e-6; a real change moves it by far more.
    if dtype == "float32":
        return 1e-4
    # A step is the gap between two neighbouring numbers of the logits' size. The original rounds the logits of its
    # vocabulary, which the conversion's float32 head does not: half a step for each of two. And each layer rounds the
    # hidden state twice, elsewhere for each shape of a batch: two random walks of 2 * layer_count steps drift apart
    # by the root of 4 * layer_count.
    _, exponent = math.frexp(largest_term)
    step = float(torch.finfo(getattr(torch, dtype)).eps) * 2.0 ** (exponent - 1)
    return step * (1 + 2 * math.sqrt(layer_count))


def _second_logits(
    against: str, pairs: Sequence[SamplePair], rows: Sequence[ModelInputs], device: str, options: LoadOptions
) -> dict[str, list[float]]:
    """Logits of a second folder by who read it: onelogit, by what the folder declares, and transformers alone."""
    if is_url(against):
        return {f"the server at {against}": server_logits(against, [row["input_ids"] for row in rows])}
    options = options.copy()
    options.pop("recipe", None)  # the folder's own, as its users would get it
    options.pop("revision", None)
    ours, theirs = (f"{Path(against).name} by {reader}" for reader in ("onelogit", "transformers"))
    _let_go(options)
    with loaded_reranker(ModelSpec(against, options=options)) as reranker:
        logits = score_pairs(reranker, pairs, ours)
    del reranker
    _let_go(options)
    return {ours: logits, theirs: OriginalModel.find(against, options).logits(rows, device, theirs).logits}


def _let_go(options: LoadOptions) -> None:
    """Make room for the next model: one that is spread over devices refers to itself, and would stay in memory."""
    if options.get("device_map") is not None:
        gc.collect()


def _original_rows(original: OriginalModel, pairs: Sequence[SamplePair], converted: ConversionResult) -> _OriginalRows:
    inputs = [original.inputs(pair) for pair in pairs]
    equal_count = sum(tuple(ids["input_ids"]) == row.ids for ids, row in zip(inputs, converted.rows, strict=True))
    cut = [index for index, ids in enumerate(inputs) if len(ids["input_ids"]) > converted.max_tokens]
    for index in cut:
        inputs[index] = _cut_inputs(converted.rows[index])
    return _OriginalRows(inputs, equal_count, len(cut))


def _cut_inputs(row: TokenRow) -> ModelInputs:
    ids, start = [*row.ids], row.second_start
    return {"input_ids": ids} | ({"token_type_ids": [0] * start + [1] * (len(ids) - start)} if start else {})


def _count_equal_prompts(original: OriginalModel, pairs: Sequence[SamplePair]) -> int | None:
    if original.recipe.chat_template is None:
        return None
    instruction = original.instruction or ""
    prompt = compile_prompt(original.recipe.chat_template, bool(instruction))
    texts = (
        prompt.text({"query": pair.query, "document": pair.document, "instruction": instruction}) for pair in pairs
    )
    return sum(text == original.text(pair) for text, pair in zip(texts, pairs, strict=True))


def server_logits(url: str, rows: Sequence[Sequence[int]]) -> list[float]:
    """The raw logit of each row, in order, from the server's `/classify`, with its activation off.

    Args:
        url: where the server listens, without a path: http://127.0.0.1:8000.
        rows: token ids; sent as they are, so that the server's prompt and truncation have no part in it.

    Raises:
        ServerError: the server is not there, or does not answer with one finite logit for each row.
    """
    client = Client(url, limits=_LIMITS)
    try:
        return client.run(_ask, client, rows).result()
    finally:
        client.close()


async def _ask(client: Client, rows: Sequence[Sequence[int]]) -> list[float]:
    protocol_spec = PROTOCOLS["vllm-tokens"]
    models = await client.list_models()
    if not models:
        raise ServerError(f"{client.url}/v1/models names no model: it is no vLLM server")
    parts = [rows[start : start + _ROWS_A_REQUEST] for start in range(0, len(rows), _ROWS_A_REQUEST)]
    answers = await client.ask_all(
        protocol_spec.path,
        [protocol_spec.build(ScoreRequest(rows=part, model=models[0])) for part in parts],
        lambda place, answer: read(protocol_spec, answer, len(parts[place])),
        lambda _: None,
    )
    return [logit for answer in answers for logit in answer]
