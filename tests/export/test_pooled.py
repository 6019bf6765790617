"""Exports of decoders with a pooled head: every library gives the original's logits, or a refusal says why."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import CrossEncoder
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    Gemma3TextConfig,
    GemmaConfig,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    Qwen3Config,
)

from onelogit import Recipe, Reranker, UnsupportedModelError
from onelogit.cli.main import main
from support.bidirectional import save_bidirectional
from support.tiny import byte_level_tokenizer

QUERY = "What is the capital of China?"
DOCUMENTS = ["The capital of China is Beijing.", "서울", "Bananas are yellow. " * 20, "", "{{ x }}"]
FAMILY = "llama-nemotron-rerank"
NAMES = {"mean": "avg", "cls": "cls"}
ARCHITECTURES: dict[str, tuple[type[PretrainedConfig], dict[str, Any]]] = {
    "llama": (LlamaConfig, {"temperature": 0.5}),
    "llama in one direction": (LlamaConfig, {"is_causal": True}),
    "qwen3": (Qwen3Config, {"model_type": "qwen3_bidirec"}),
    "qwen3, a native class": (
        Qwen3Config,
        {
            "model_type": "qwen3",
            "architectures": ["Qwen3ForSequenceClassification"],
            "is_causal": False,
            "temperature": 3,
        },
    ),
    "mistral": (MistralConfig, {"model_type": "mistral_bidirec", "sliding_window": 40}),
}


def by_sentence_transformers(folder: Path, **options: Any) -> list[float]:
    model = CrossEncoder(str(folder), device="cpu", **options)
    pairs = [(QUERY, text) for text in DOCUMENTS]
    return [float(each) for each in model.predict(pairs, batch_size=3, activation_fn=nn.Identity())]


def by_the_code_of_its_card(folder: Path) -> list[float]:
    code = (folder / "README.md").read_text(encoding="utf-8").split("```python\n")[2].partition("```")[0]
    logits = []
    for document in DOCUMENTS:
        names: dict[str, Any] = {"query": QUERY, "document": document}
        with torch.inference_mode():
            exec(code.replace(f'"{folder.name}', f'"{folder}'), names)
        logits.append(float(names["logit"]))
    return logits


@pytest.mark.parametrize("pooling", NAMES)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_export_gives_the_same_logits_in_every_library(name: str, pooling: str, tmp_path: Path):
    config_class, fields = ARCHITECTURES[name]
    source = save_bidirectional(tmp_path / "model", config_class, **{"pooling": pooling, **fields})
    reranker, folder = Reranker.load(source, recipe=FAMILY), tmp_path / "exported"

    reranker.save(folder)

    expected = pytest.approx(reranker.logits(QUERY, DOCUMENTS), abs=1e-5, rel=1e-5)
    assert Reranker.load(folder).logits(QUERY, DOCUMENTS) == expected
    assert by_sentence_transformers(folder) == expected
    assert by_the_code_of_its_card(folder) == expected
    config = json.loads((folder / "config.json").read_text())
    is_known = name == "llama"  # by vLLM, as a class of its own
    own = "LlamaBidirectionalForSequenceClassification"
    assert (config["architectures"] == [own], config.get("pooling")) == (is_known, NAMES[pooling] if is_known else None)
    assert config["is_causal"] is (name == "llama in one direction")
    assert "temperature" not in config
    assert load_file(folder / "model.safetensors")["score.weight"].dtype == torch.float32


def test_the_code_of_a_card_reads_the_state_that_the_chain_reads(tmp_path: Path):
    """Of a module chain that reads the last token of a decoder without a causal mask."""
    source = tmp_path / "chain"
    Reranker.load(save_bidirectional(tmp_path / "model"), recipe=FAMILY).save(source)
    pooling = source / "1_Pooling" / "config.json"
    pooling.write_text(json.dumps({**json.loads(pooling.read_text()), "pooling_mode": "lasttoken"}))
    reranker, folder = Reranker.load(source), tmp_path / "exported"

    reranker.save(folder)

    expected = pytest.approx(reranker.logits(QUERY, DOCUMENTS), abs=1e-5, rel=1e-5)
    assert by_the_code_of_its_card(folder) == expected
    assert "gives other logits" not in (folder / "README.md").read_text(encoding="utf-8")


def test_an_export_in_half_precision_keeps_its_head_in_float32(tmp_path: Path):
    source = save_bidirectional(tmp_path / "model", dtype=torch.bfloat16, temperature=0.7)
    exact, folder = Reranker.load(source, dtype="float32").logits(QUERY, DOCUMENTS), tmp_path / "exported"

    Reranker.load(source).save(folder)

    tensors = load_file(folder / "model.safetensors")
    assert {name: each.dtype for name, each in tensors.items() if each.dtype != torch.bfloat16} == {
        "score.weight": torch.float32
    }
    expected = pytest.approx(exact, abs=1e-5, rel=1e-5)
    assert Reranker.load(folder, dtype="float32").logits(QUERY, DOCUMENTS) == expected
    assert by_sentence_transformers(folder, model_kwargs={"dtype": "float32"}) == expected
    assert by_sentence_transformers(folder, model_kwargs={"dtype": "bfloat16"}) == pytest.approx(exact, abs=0.3)


@pytest.mark.parametrize("model_type", ["llama_bidirec", "llama"])
def test_the_last_token_is_exported_as_a_class_of_transformers(model_type: str, tmp_path: Path):
    own = {"model_type": model_type, "is_causal": False, "auto_map": None}
    source = save_bidirectional(tmp_path / "model", pooling="last", temperature=0.5, **own)
    reranker, folder = Reranker.load(source), tmp_path / "exported"

    reranker.save(folder)

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    rows = reranker._scorer.rows([(QUERY, text) for text in DOCUMENTS], None)
    with torch.inference_mode():
        logits = [float(model(torch.tensor([row.ids])).logits[0, 0]) for row in rows]
    assert json.loads((folder / "config.json").read_text())["architectures"] == ["LlamaForSequenceClassification"]
    assert logits == pytest.approx(reranker.logits(QUERY, DOCUMENTS), abs=1e-5)
    assert by_sentence_transformers(folder) == pytest.approx(logits, abs=1e-4)
    assert Reranker.load(folder).logits(QUERY, DOCUMENTS) == pytest.approx(logits, abs=1e-5)


@pytest.mark.parametrize("pooling", ["avg", "last"])
def test_commands_convert_and_verify(pooling: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    source = save_bidirectional(tmp_path / "model", pooling=pooling, temperature=2.0)
    folder = tmp_path / "exported"

    assert main(["convert", str(source), "-o", str(folder), "--verify", "--json"]) == 0

    result = json.loads(capsys.readouterr().out)
    assert result["verification"]["agrees"] is True
    assert result["verification"]["rows_equal"] == len(result["verification"]["original_logits"])
    assert len({round(logit, 3) for logit in result["verification"]["original_logits"]}) > 20
    assert (" --chat-template " in result["vllm"].partition("#")[0]) is (pooling != "last")
    assert ("AutoModel.from_pretrained" in result["transformers"]) is (pooling != "last")


@pytest.mark.parametrize(
    ("config_class", "fields", "is_served"),
    [
        (LlamaConfig, {}, True),
        (LlamaConfig, {"is_causal": True, "architectures": ["LlamaForSequenceClassification"]}, True),
        (Qwen3Config, {"model_type": "qwen3_bidirec"}, True),
        (GemmaConfig, {"model_type": "gemma_bidirec"}, False),
        (Gemma3TextConfig, {"model_type": "gemma3_text", "use_bidirectional_attention": True}, False),
    ],
)
def test_a_command_for_vllm_is_named_only_if_vllm_attends_to_the_same_tokens(
    config_class: type[PretrainedConfig],
    fields: dict[str, Any],
    is_served: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    source, folder = save_bidirectional(tmp_path / "model", config_class, **fields), tmp_path / "exported"

    assert main(["convert", str(source), "-o", str(folder), "--recipe", FAMILY, "--json"]) == 0

    shown, card = json.loads(capsys.readouterr().out)["vllm"], (folder / "README.md").read_text(encoding="utf-8")
    for text in (shown, card):
        assert ("vllm serve" in text) is is_served
        assert ("onelogit serve" in text) is not is_served


def test_two_labels_are_exported_as_one_logit(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    source = save_bidirectional(tmp_path / "model", labels=2, id2label={"0": "a", "1": "b"}, label2id={"a": 0, "b": 1})
    command = ["convert", str(source), "-o", str(tmp_path / "exported"), "--relevant-label", "a", "--verify"]

    assert main(command) == 0

    expected = Reranker.load(source, relevant_label="a").logits(QUERY, DOCUMENTS)
    assert by_sentence_transformers(tmp_path / "exported") == pytest.approx(expected, abs=1e-5, rel=1e-5)


def test_a_cross_encoder_in_memory(tmp_path: Path):
    reranker = Reranker.load(save_bidirectional(tmp_path / "model"))

    scores = reranker.as_cross_encoder().predict([(QUERY, text) for text in DOCUMENTS])

    assert scores.tolist() == pytest.approx(reranker.logits(QUERY, DOCUMENTS), abs=1e-5, rel=1e-5)


def test_what_servers_cannot_compute_is_not_exported(tmp_path: Path):
    with_bias = Reranker.load(save_bidirectional(tmp_path / "bias", bias=True))
    with pytest.raises(UnsupportedModelError, match="the head has a bias"):
        with_bias.save(tmp_path / "exported")
    recipe = Recipe(family="pairs", chat_template=None, read_out=None, source="this test")
    pairs = Reranker.load(save_bidirectional(tmp_path / "pairs", tokenizer=byte_level_tokenizer()), recipe=recipe)
    with pytest.raises(UnsupportedModelError, match="plain pairs and pools .* pass a recipe with its prompt"):
        pairs.save(tmp_path / "exported")
    assert not (tmp_path / "exported").exists()
