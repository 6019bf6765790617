"""A merged adapter in use: verified, exported, opened from the registry, with options that do not fit it."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from onelogit import CheckpointError, InputError, Reranker, UnsupportedModelError, open_reranker
from onelogit.export.multi_label import save_labels
from onelogit.io.sample_pairs import bundled_pairs
from onelogit.quantization.processor import INSTRUCTIONS, capabilities
from onelogit.verification.parity import measure_parity
from support.commands import output
from support.peft_adapters import DOCUMENTS, QUERY, save_adapter
from support.tiny import causal_checkpoint

peft = pytest.importorskip("peft")

CARD = "---\nbase_model: Qwen/Qwen3-Reranker-0.6B\nlicense: llama2\n---\n"


@pytest.fixture(params=[["q_proj", "down_proj"], ["q_proj", "lm_head"]], ids=["layers", "with head"])
def adapter(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    base = causal_checkpoint(tmp_path / "base", files={"README.md": CARD}).folder
    settings = peft.LoraConfig(r=4, target_modules=request.param, task_type="CAUSAL_LM")
    save_adapter(tmp_path / "adapter", base, settings)
    (tmp_path / "adapter" / "README.md").write_text("---\nlicense: mit\n---\n")
    return tmp_path / "adapter"


@pytest.mark.parametrize("options", [{}, {"dtype": "bfloat16"}, {"device_map": {"": "cpu"}}])
def test_verify_compares_with_pefts_unmerged_model(options: Any, adapter: Path):
    parity = measure_parity(str(adapter), bundled_pairs()[:6], {"device": "cpu", **options})

    assert parity.agrees


def test_convert_writes_a_whole_model_and_names_base_adapter_and_licences(adapter: Path, tmp_path: Path, capsys):
    pytest.importorskip("scipy")
    output(capsys, "convert", str(adapter), "-o", str(tmp_path / "out"), "--verify", "--device", "cpu")

    card = (tmp_path / "out" / "README.md").read_text()
    expected = Reranker.load(adapter).logits(QUERY, DOCUMENTS)
    assert Reranker.load(tmp_path / "out").logits(QUERY, DOCUMENTS) == pytest.approx(expected, abs=1e-5)
    assert "`adapter`, an adapter merged into `base`" in card
    assert "license_name: llama2, mit" in card
    assert not (tmp_path / "out" / "adapter_config.json").exists()


def test_convert_verifies_a_model_whose_base_is_named(adapter: Path, tmp_path: Path, capsys):
    pytest.importorskip("scipy")
    moved, folder = (tmp_path / "base").rename(tmp_path / "moved"), tmp_path / "out"

    output(capsys, "convert", str(adapter), "-o", str(folder), "--base-model", str(moved), "--verify")

    assert "Compared with the original on 48 pairs" in (folder / "README.md").read_text()


def test_the_command_takes_the_base(adapter: Path, tmp_path: Path, capsys):
    moved = (tmp_path / "base").rename(tmp_path / "moved")

    shown = output(capsys, "prompt", str(adapter), "--base-model", str(moved), "--json")

    assert '"family": "qwen3-reranker"' in shown


def test_a_changed_adapter_or_base_is_opened_anew(adapter: Path, tmp_path: Path):
    first = open_reranker(str(adapter))
    assert open_reranker(str(adapter)) is first

    (tmp_path / "base" / "README.md").write_text(f"{CARD}\nchanged\n")

    assert open_reranker(str(adapter)) is not first


def test_weights_are_not_quantised_before_the_merge(adapter: Path, tmp_path: Path):
    with pytest.raises(InputError, match="is an adapter, which is merged into unquantised weights"):
        Reranker.load(adapter, quantization_config=BitsAndBytesConfig(load_in_4bit=True))
    config = tmp_path / "base" / "config.json"
    config.write_text(
        config.read_text().replace("{", '{"quantization_config": {"quant_method": "gptq", "bits": 4},', 1)
    )
    with pytest.raises(
        UnsupportedModelError, match="whose weights are quantised.*name the unquantised model with base_m"
    ):
        Reranker.load(adapter)


@pytest.mark.skipif(not any(capabilities().get(name) for name in INSTRUCTIONS), reason="needs VNNI or AMX")
def test_8_bits_come_after_the_merge_and_are_not_saved(adapter: Path, tmp_path: Path):
    with Reranker.load(adapter) as exact, Reranker.load(adapter, quantization="int8", device="cpu") as quantised:
        expected, found = (each.logits(QUERY, DOCUMENTS) for each in (exact, quantised))
        exact.save(tmp_path / "exact")
        quantised.save(tmp_path / "int8")

    assert found != expected
    assert found == pytest.approx(expected, abs=0.3)
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("exact", "int8")]
    assert files[0] == files[1]


def test_several_labels_of_an_adapter_are_refused(adapter: Path, tmp_path: Path):
    with pytest.raises(UnsupportedModelError, match="is a PEFT adapter, which is merged only into rerankers"):
        save_labels(str(adapter), ["yes", "no"], tmp_path / "labels", {})


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"hidden_size": 32}, "size mismatch for .*lora_A"),
        ({"num_hidden_layers": 1}, r"has no layer for .*layers\.1\."),
        ({"num_hidden_layers": 3}, r"has no weights for .*layers\.2\."),
    ],
)
def test_an_adapter_of_another_base_is_refused_by_what_does_not_fit(
    fields: dict[str, int], reason: str, adapter: Path, tmp_path: Path
):
    config = AutoConfig.from_pretrained(tmp_path / "base")
    config.update({**fields, "layer_types": ["full_attention"] * fields.get("num_hidden_layers", 2)})
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "other")
    AutoTokenizer.from_pretrained(tmp_path / "base").save_pretrained(tmp_path / "other")

    with pytest.raises(CheckpointError, match=f"does not fit its base model .*{reason}.*with base_model="):
        Reranker.load(adapter, base_model=tmp_path / "other", recipe="qwen3-reranker")
