"""A model in 8 bits: about the same logits, however its rows are computed; what it exports is exact."""

import logging
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    GemmaConfig,
    GPT2Config,
    JetMoeConfig,
    LlamaConfig,
    MistralConfig,
    ModernBertConfig,
    Qwen2Config,
    Qwen3_5TextConfig,
    Qwen3Config,
)

from onelogit import (
    CheckpointError,
    DeviceMemoryError,
    InputError,
    ModelSpec,
    OnelogitError,
    Reranker,
    UnsupportedModelError,
    open_reranker,
)
from onelogit.checkpoints import device
from onelogit.checkpoints.fingerprint import model_label
from onelogit.engine.model_runner import ModelRunner
from onelogit.local import quantising
from onelogit.local.quantising import QuantizationReport, exact_spec
from onelogit.quantization import processor
from onelogit.quantization.int8_linear import Int8Linear
from onelogit.quantization.quantise import has_int8_layers, quantise_layers
from support.classifiers import classifier_of, encoder_of, random_rows
from support.tiny import Tiny, native_checkpoint, pair_tokenizer

QUERY = "What is the capital of China?"
DOCUMENTS = ["The capital of China is Beijing.", "서울", "Bananas are yellow. " * 20, "No.", "yes no " * 5]

pytestmark = pytest.mark.skipif(
    not any(processor.capabilities().get(name) for name in processor.INSTRUCTIONS), reason="needs VNNI or AMX"
)


def quantised(model: object, **options: object) -> Reranker:
    return Reranker.load(model, **{"quantization": "int8", "device": "cpu", **options})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def int8(tiny_qwen: Tiny) -> Iterator[Reranker]:
    with quantised(tiny_qwen.folder) as reranker:
        yield reranker


def difference(classifier: Any, rows: Any, expected: list[float], **options: Any) -> float:
    """The root mean square of the differences, in standard deviations of what is expected."""
    before, after = torch.tensor(expected), torch.tensor(ModelRunner(classifier, **options).logits(rows))
    return float((after - before).square().mean().sqrt() / before.std())


@pytest.mark.parametrize(
    ("config_class", "fields"),
    [
        (Qwen3Config, {}),
        (Qwen2Config, {}),
        (LlamaConfig, {}),
        (MistralConfig, {"sliding_window": 16}),
        (GemmaConfig, {}),
        (
            Qwen3_5TextConfig,
            {
                "layer_types": ["linear_attention", "full_attention", "linear_attention"],
                "linear_num_key_heads": 2,
                "linear_num_value_heads": 2,
                "linear_key_head_dim": 32,
                "linear_value_head_dim": 32,
            },
        ),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_decoder_shares_prefixes_with_about_the_same_logits(config_class: Any, fields: dict, dtype: torch.dtype):
    rows, classifier = random_rows(40), classifier_of(config_class, **fields)
    classifier.base_model.to(dtype)
    exact = ModelRunner(classifier).logits(rows)
    other = classifier_of(config_class, **fields)
    other.base_model.to(dtype)
    head = other.score.weight.clone()

    count = quantise_layers(other)

    assert count == sum(isinstance(part, Int8Linear) for part in other.modules()) >= 3 * 3
    assert torch.equal(other.score.weight, head)
    assert other.base_model.embed_tokens.weight.dtype == dtype
    shared = ModelRunner(other)
    assert shared.shares_prefixes
    assert 0 < difference(other, rows, exact) < 0.15
    assert difference(other, rows, shared.logits(rows), batch_tokens=16) < 0.1
    shared.shares_prefixes = False
    assert difference(other, rows, shared.logits(rows)) < 0.1


def test_the_document_cache_keeps_what_8_bit_layers_compute():
    rows, classifier = random_rows(30), classifier_of(Qwen3Config)
    quantise_layers(classifier)
    expected = ModelRunner(classifier).logits(rows)

    runner = ModelRunner(classifier, 64, 2**22)

    for _ in range(2):
        assert runner.logits(rows) == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize("kind", [BertConfig, ModernBertConfig])
def test_an_encoder_is_quantised_and_packed(kind: Any, tmp_path: Path):
    names = ("[CLS]", "[SEP] [SEP]" if kind is ModernBertConfig else "[SEP]", "[SEP]")
    folder = native_checkpoint(tmp_path / "encoder", kind, pair_tokenizer(*names), num_labels=1)
    exact = Reranker.load(folder).logits(QUERY, DOCUMENTS)

    reranker = quantised(folder)

    assert has_int8_layers(reranker.classifier)
    assert not has_int8_layers(reranker.classifier.classifier)
    assert reranker.logits(QUERY, DOCUMENTS) == pytest.approx(exact, abs=0.8 * float(torch.tensor(exact).std()))
    assert reranker.logits(QUERY, DOCUMENTS) != exact


@pytest.mark.parametrize("kind", [BertConfig, ModernBertConfig])
def test_the_noise_of_8_bits_is_not_mistaken_for_rows_that_see_each_other(kind: Any):
    fields = {"local_attention": 16} if kind is ModernBertConfig else {}
    classifier, rows = encoder_of(kind, **fields).to(torch.bfloat16), random_rows(30)

    quantise_layers(classifier, [row.ids for row in rows[::4]])

    assert ModelRunner(classifier).packs_rows


def test_it_reports_how_far_logits_move(tiny_qwen: Tiny, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, "onelogit.local.quantising"):
        report = quantised(tiny_qwen.folder).quantization_report

    assert isinstance(report, QuantizationReport)
    assert report.layer_count == 2 * 5  # not the narrow keys and values
    assert report.pair_count in range(12, 49)
    assert 0 < report.mean_difference < report.largest_difference < report.standard_deviation
    assert 0.8 < report.kendall_tau < 1
    assert [record.getMessage() for record in caplog.records if "approximate" in record.getMessage()] == [
        f"{tiny_qwen.folder}: {report}"
    ]
    assert str(report).startswith(f"int8 is approximate: on {report.pair_count} sample pairs")
    assert Reranker.load(tiny_qwen.folder).quantization_report is None


def test_the_model_takes_half_the_memory(int8: Reranker, tiny_qwen: Tiny):
    names = {name for name, _ in int8.classifier.named_parameters()}

    assert not any("mlp" in name or "o_proj" in name for name in names)
    assert "model.embed_tokens.weight" in names


def test_what_it_saves_are_the_original_weights(int8: Reranker, tiny_qwen: Tiny, tmp_path: Path):
    with Reranker.load(tiny_qwen.folder) as exact:
        exact.save(tmp_path / "exact")
        expected = exact.logits(QUERY, DOCUMENTS)

    int8.save(tmp_path / "int8")

    for file in ("model.safetensors", "config.json", "onelogit.json"):
        if (tmp_path / "exact" / file).exists():
            assert (tmp_path / "int8" / file).read_bytes() == (tmp_path / "exact" / file).read_bytes()
    assert Reranker.load(tmp_path / "int8").logits(QUERY, DOCUMENTS) == expected
    with pytest.raises(InputError, match="exists; remove it"):
        int8.save(tmp_path / "int8")
    assert int8.as_cross_encoder().predict([(QUERY, DOCUMENTS[0])]) is not None


def test_a_pickle_is_quantised_again_and_specs_differ(int8: Reranker, tiny_qwen: Tiny):
    with pickle.loads(pickle.dumps(int8)) as other:
        assert other.quantization_report is not None
        assert other.logits(QUERY, DOCUMENTS) == pytest.approx(int8.logits(QUERY, DOCUMENTS), abs=1e-3)
    exact = open_reranker(str(tiny_qwen.folder))
    assert exact.spec != int8.spec
    assert model_label(exact.spec) != model_label(int8.spec)


def test_one_document_does_not_change_the_logit_of_another(int8: Reranker):
    together = int8.logits(QUERY, DOCUMENTS)

    assert [int8.logits(QUERY, [each])[0] for each in DOCUMENTS] == pytest.approx(together, abs=0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "cuda"}, r"computes on a CPU, not on device='cuda'; pass device='cpu'"),
        ({"device": "mps"}, "computes on a CPU, not on device='mps'"),
        ({"device_map": "auto", "device": None}, "quantization='int8' and device_map exclude each other"),
        ({"quantization_config": {"load_in_8bit": True}}, "quantization='int8' and quantization_config exclude each"),
        ({"quantization": "int4"}, "quantization must be 'int8', not 'int4'; for another method, pass a configuration"),
        ({"quantization": {"load_in_8bit": True}}, "quantization must be 'int8', not a dict; for another method"),
        ({"quantization": 8}, "quantization must be 'int8', not a int"),
    ],
)
def test_what_it_excludes_is_refused(options: dict, message: str, tiny_qwen: Tiny):
    with pytest.raises(InputError, match=message):
        quantised(tiny_qwen.folder, **options)


def test_a_default_device_that_is_no_cpu_is_named(monkeypatch: pytest.MonkeyPatch, tiny_qwen: Tiny):
    monkeypatch.setattr(device.torch.backends.mps, "is_available", lambda: True)

    with pytest.raises(InputError, match="computes on a CPU, and the fastest device here is mps; pass device='cpu'"):
        quantised(tiny_qwen.folder, device=None)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (("capabilities", lambda: {"avx2": True}), "needs an x86 processor with VNNI or AMX"),
        (("_is_exact", lambda: False), "its 8-bit products overflow"),
        (("_is_exact", lambda: torch.ops.onednn.no_such_operator), "has no oneDNN operators for it"),
    ],
)
def test_a_processor_that_cannot_do_it_is_refused_before_weights_are_read(
    changed: tuple[str, Callable[[], object]], message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(processor, *changed)
    processor._why_unsupported.cache_clear()

    with pytest.raises(InputError, match=f"quantization='int8' cannot be used here: .*{message}.*; leave it out"):
        quantised(tmp_path / "nothing")
    processor._why_unsupported.cache_clear()


def test_weights_that_are_quantised_already_are_refused(checkpoint: Callable[..., Tiny]):
    tiny = checkpoint("Qwen3-Reranker-quantised")
    config = tiny.folder / "config.json"
    config.write_text(
        config.read_text().replace("{", '{"quantization_config": {"quant_method": "gptq", "bits": 4},', 1)
    )

    with pytest.raises((InputError, CheckpointError), match="are quantised already; leave quantization out"):
        quantised(tiny.folder, recipe="qwen3-reranker")


def test_a_model_without_linear_layers_is_refused():
    with pytest.raises(UnsupportedModelError, match="has no linear layers that quantization='int8' could quantise"):
        quantise_layers(classifier_of(GPT2Config, n_positions=64, n_layer=1))


def test_a_closed_reranker_is_not_saved(tiny_qwen: Tiny, tmp_path: Path):
    reranker = quantised(tiny_qwen.folder)
    reranker.close()

    with pytest.raises(OnelogitError, match="closed"):
        reranker.save(tmp_path / "out")


def test_8_bit_layers_are_not_compiled(tiny_qwen: Tiny, int8: Reranker, caplog: pytest.LogCaptureFixture):
    with quantised(tiny_qwen.folder, compile=True) as reranker:
        assert "has 8-bit layers, so it is not compiled" in caplog.text
        assert reranker.logits(QUERY, DOCUMENTS) == int8.logits(QUERY, DOCUMENTS)


def test_a_model_that_has_changed_is_not_saved_as_the_original(checkpoint: Callable[..., Tiny], tmp_path: Path):
    tiny = checkpoint("Qwen3-Reranker-0.6B")
    reranker = quantised(tiny.folder)
    weights = load_file(tiny.folder / "model.safetensors")
    weights["model.layers.0.mlp.down_proj.weight"] *= 2
    save_file(weights, tiny.folder / "model.safetensors", {"format": "pt"})

    with pytest.raises(CheckpointError, match="have changed since they were loaded; load the model again"):
        reranker.save(tmp_path / "out")

    assert not (tmp_path / "out").exists()


def test_exact_weights_are_loaded_without_what_only_many_calls_need():
    options = {"quantization": "int8", "compile": True, "document_cache_bytes": 10**6, "max_tokens": 99}

    assert exact_spec(ModelSpec("some/model", options=options)).options == {"max_tokens": 99}


def test_memory_that_runs_out_while_weights_are_quantised_is_named(tiny_qwen: Tiny, monkeypatch: pytest.MonkeyPatch):
    def run_out(*_: object) -> int:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(quantising, "quantise_layers", run_out)

    with pytest.raises(DeviceMemoryError, match="does not fit into the free memory"):
        quantised(tiny_qwen.folder)


def test_the_choice_of_experts_stays_exact():
    classifier = classifier_of(JetMoeConfig, num_local_experts=64, kv_channels=16)

    quantise_layers(classifier)

    routers = [part for name, part in classifier.named_modules() if name.endswith("router.layer")]
    assert routers
    assert not any(isinstance(part, Int8Linear) for part in routers)
