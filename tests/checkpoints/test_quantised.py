"""A quantised backbone is converted like any other: its head's rows come from the file, in the stored precision."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from compressed_tensors.compressors import ModelCompressor
from compressed_tensors.quantization import (
    QuantizationArgs,
    QuantizationConfig,
    apply_quantization_config,
    preset_name_to_scheme,
)
from compressed_tensors.quantization.utils import calculate_qparams
from packaging.version import Version
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, Qwen3Config

from onelogit import CheckpointError, InputError, Reranker, UnsupportedModelError, open_reranker
from onelogit.checkpoints.device import find_device_map
from onelogit.io.sample_pairs import bundled_pairs
from onelogit.option_checks import plain_options
from onelogit.recipes.families import FAMILIES
from onelogit.verification.parity import measure_parity
from support.reference import causal_logit, prompt_ids
from support.tiny import Tiny

RECIPE = next(recipe for recipe in FAMILIES if recipe.family == "qwen3-reranker")
QUERY = "What is the capital of China?"
DOCUMENTS = ["The capital of China is Beijing.", "서울", "Bananas are yellow. " * 20]
IN_4_BITS = {
    "load_in_4bit": True,
    "bnb_4bit_compute_dtype": "float32",
    "llm_int8_skip_modules": ["lm_head", "down_proj"],  # on a CPU, bitsandbytes supports only multiples of 64
}


def causal_logits(tiny: Tiny, folder: Path, dtype: str = "float32", **options: object) -> list[float]:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **options)
    quantised = Tiny(model, tiny.tokenizer, folder)
    ids = [prompt_ids(tiny, RECIPE, QUERY, document) for document in DOCUMENTS]
    return [causal_logit(quantised, RECIPE.read_out, each) for each in ids]


def compress(tiny: Tiny, folder: Path, scheme: str = "FP8_DYNAMIC", dtype: str = "float32") -> Path:
    """The model as published for vLLM: quantised by compressed-tensors, except its head."""
    model = AutoModelForCausalLM.from_pretrained(tiny.folder, dtype=dtype)
    groups = {"group_0": preset_name_to_scheme(scheme, ["Linear"])}
    apply_quantization_config(model, QuantizationConfig(config_groups=groups, ignore=["lm_head"]))
    for part in model.modules():
        if getattr(part, "quantization_scheme", None) is not None:
            _scale(part, part.quantization_scheme.weights)
    compressor = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    model.save_pretrained(folder)
    compressor.update_config(folder)
    tiny.tokenizer.save_pretrained(folder)
    return folder


def _scale(part: torch.nn.Module, weights: QuantizationArgs) -> None:
    overall = getattr(part, "weight_global_scale", None)
    if overall is not None:
        overall.data.fill_(448 * 6 / float(part.weight.detach().abs().max()))  # the largest of 8 bits, times that of 4
    grouped = part.weight.unflatten(1, (-1, weights.group_size or part.weight.shape[1]))
    scale, _ = calculate_qparams(grouped.amin(-1), grouped.amax(-1), weights, global_scale=overall)
    part.weight_scale.data.copy_(scale)


@pytest.mark.parametrize("options", [{}, {"attn_implementation": "eager"}], ids=str)
def test_a_backbone_quantised_on_loading_gives_the_logits_of_transformers(options: dict, tiny_qwen: Tiny):
    plain = Reranker.load(tiny_qwen.folder).logits(QUERY, DOCUMENTS)

    reranker = Reranker.load(tiny_qwen.folder, quantization_config=IN_4_BITS, **options)

    expected = causal_logits(tiny_qwen, tiny_qwen.folder, quantization_config=BitsAndBytesConfig(**IN_4_BITS))
    assert reranker.logits(QUERY, DOCUMENTS) == pytest.approx(expected, abs=2e-3)
    assert expected != pytest.approx(plain, abs=0.05)


@pytest.mark.parametrize(
    ("scheme", "dtype", "tolerance"),
    [("FP8_DYNAMIC", "float32", 1e-4), ("FP8_DYNAMIC", "bfloat16", 0.1), ("NVFP4A16", "bfloat16", 0.1)],
)
def test_a_backbone_stored_quantised_gives_the_logits_of_transformers(
    scheme: str, dtype: str, tolerance: float, tmp_path: Path, tiny_qwen: Tiny
):
    folder = compress(tiny_qwen, tmp_path / "Qwen3-Reranker-compressed", scheme, dtype)

    reranker = Reranker.load(folder, dtype=dtype)

    assert reranker.logits(QUERY, DOCUMENTS) == pytest.approx(causal_logits(tiny_qwen, folder, dtype), abs=tolerance)


def test_packed_weights_keep_their_dtype_even_if_another_is_faster(
    tmp_path: Path, tiny_qwen: Tiny, monkeypatch: pytest.MonkeyPatch
):
    folder = compress(tiny_qwen, tmp_path / "Qwen3-Reranker-compressed", "NVFP4A16", "bfloat16")
    monkeypatch.setattr("onelogit.checkpoints.device.has_bfloat16", lambda device: False)

    assert Reranker.load(folder).classifier.dtype == torch.bfloat16


def test_packed_weights_are_verified_in_their_dtype(tmp_path: Path, tiny_qwen: Tiny):
    folder = compress(tiny_qwen, tmp_path / "Qwen3-Reranker-compressed", "NVFP4A16", "bfloat16")

    parity = measure_parity(str(folder), bundled_pairs()[:4], {"device": "cpu"})

    assert parity.agrees
    assert parity.dtype == "bfloat16"


@pytest.mark.skipif(
    Version(transformers.__version__) < Version("5.21"), reason="older ones compute in the dtype of the file anyway"
)
def test_the_error_of_quantised_weights_that_need_another_dtype_says_so(tmp_path: Path, tiny_qwen: Tiny):
    folder = compress(tiny_qwen, tmp_path / "Qwen3-Reranker-compressed", "NVFP4A16", "bfloat16")

    with pytest.raises(CheckpointError, match=r"cannot be used in float32 on cpu; another dtype may work: "):
        Reranker.load(folder, dtype="float32")


def test_a_quantised_backbone_is_tried_with_shared_prefixes(tiny_qwen: Tiny, caplog: pytest.LogCaptureFixture):
    with caplog.at_level("INFO", logger="onelogit"):
        Reranker.load(tiny_qwen.folder, quantization_config=IN_4_BITS)

    assert "Qwen3ForSequenceClassification: sharing prefixes changes hidden states by" in caplog.text


def test_the_prefix_cache_works_with_a_quantised_backbone(tmp_path: Path, tiny_qwen: Tiny):
    folder = compress(tiny_qwen, tmp_path / "Qwen3-Reranker-compressed")
    reranker = Reranker.load(folder, document_cache_bytes=2**20)

    assert [reranker.logits(QUERY, DOCUMENTS) for _ in range(2)] == [
        pytest.approx(causal_logits(tiny_qwen, folder), abs=1e-4)
    ] * 2


@pytest.mark.parametrize("options", [{"batch_tokens": 20}, {"document_cache_bytes": 2**20}], ids=str)
def test_quantised_kernels_run_batches_in_which_no_row_ends(options: dict, tiny_qwen: Tiny):
    expected = Reranker.load(tiny_qwen.folder, quantization_config=IN_4_BITS).logits(QUERY, DOCUMENTS)

    reranker = Reranker.load(tiny_qwen.folder, quantization_config=IN_4_BITS, **options)

    assert reranker.logits(QUERY, DOCUMENTS) == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("is_stored", [True, False])
def test_quantised_weights_are_not_exported(is_stored: bool, tmp_path: Path, tiny_qwen: Tiny):
    if is_stored:
        reranker = Reranker.load(compress(tiny_qwen, tmp_path / "Qwen3-Reranker-compressed"))
    else:
        reranker = Reranker.load(tiny_qwen.folder, quantization_config=IN_4_BITS)

    with pytest.raises(UnsupportedModelError, match="quantised weights .* export the unquantised model"):
        reranker.save(tmp_path / "exported")

    assert not (tmp_path / "exported").exists()


FIELDS = {"load_in_4bit": True, "bnb_4bit_compute_dtype": torch.bfloat16}


@pytest.mark.parametrize("config", [BitsAndBytesConfig(**FIELDS), FIELDS], ids=["configuration", "fields"])
def test_a_quantisation_is_given_as_a_configuration_of_transformers_or_as_its_fields(config: object):
    plain = plain_options({"quantization_config": config})

    assert json.loads(json.dumps(plain)) == plain
    assert plain["quantization_config"]["load_in_4bit"] is True
    assert plain["quantization_config"]["bnb_4bit_compute_dtype"] == "bfloat16"


def test_a_quantisation_that_is_not_plain_data_is_refused(tiny_qwen: Tiny):
    with pytest.raises(InputError, match="quantization_config contains <object .*: not plain data; pass"):
        open_reranker(str(tiny_qwen.folder), quantization_config={"quant_method": object()})


@pytest.mark.parametrize("config", ["4bit", {"bits"}])
def test_an_invalid_quantisation_is_refused(config: object, tiny_qwen: Tiny):
    with pytest.raises(InputError, match="quantization_config must be a configuration of transformers, or its fields"):
        Reranker.load(tiny_qwen.folder, quantization_config=config)


def test_rerankers_with_the_same_quantisation_share_the_weights(tiny_qwen: Tiny):
    first, second, other = (
        open_reranker(str(tiny_qwen.folder), quantization_config=config)
        for config in (BitsAndBytesConfig(**IN_4_BITS), BitsAndBytesConfig(**IN_4_BITS), {"load_in_8bit": True})
    )

    assert first is second
    assert first is not other


def test_the_error_of_a_quantiser_is_passed_on(tiny_qwen: Tiny):
    with pytest.raises(CheckpointError, match="cannot be loaded: load_in_4bit must be a boolean"):
        Reranker.load(tiny_qwen.folder, quantization_config={"load_in_4bit": "yes"})


def test_quantised_weights_are_created_on_the_given_device():
    device, plain, quantised = torch.device("cuda:1"), Qwen3Config(), Qwen3Config(quantization_config={"bits": 4})

    assert find_device_map({}, plain, device) is None
    assert find_device_map({"quantization_config": IN_4_BITS}, plain, device) == {"": device}
    assert find_device_map({}, quantised, device) == {"": device}
    assert find_device_map({"device_map": "auto"}, quantised, device) == "auto"
