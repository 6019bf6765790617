"""Which tokens attend to which: every field that changes it gives transformers' own logits, or is refused by name."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BigBirdConfig,
    CTRLConfig,
    DiffLlamaConfig,
    DogeConfig,
    Exaone4Config,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPTNeoConfig,
    LlamaConfig,
    MistralConfig,
    NemotronConfig,
    Phi3Config,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from onelogit import ReadOut, Recipe, Reranker, UnsupportedModelError
from onelogit.engine.attention.visibility import VISIBILITY_FIELDS
from onelogit.engine.model_runner import ModelRunner
from support.classifiers import classifier_of, random_rows
from support.reference import causal_logit, prompt_ids
from support.tiny import Tiny

SLIDING, FULL, CHUNKED = "sliding_attention", "full_attention", "chunked_attention"
MIXED = [SLIDING, FULL, SLIDING]
BOTH = {"is_causal": False}
GPT_NEO = {"attention_types": [[["local", "global", "local"], 1]], "window_size": 6, "num_layers": 3, "num_heads": 4}

# architecture, fields, whether prefixes are shared
HONOURED = {
    "qwen2, is_causal": (Qwen2Config, BOTH, False),
    "qwen3, is_causal": (Qwen3Config, BOTH, False),
    "llama, is_causal": (LlamaConfig, BOTH, False),
    "mistral, is_causal in a window": (MistralConfig, {**BOTH, "sliding_window": 6}, False),
    "gemma, is_causal": (GemmaConfig, BOTH, False),
    "gemma2, is_causal": (Gemma2Config, BOTH, False),
    "phi3, is_causal": (Phi3Config, BOTH, False),
    "qwen3, is_causal in windows": (
        Qwen3Config,
        {**BOTH, "use_sliding_window": True, "sliding_window": 7, "layer_types": MIXED},
        False,
    ),
    "qwen3, is_causal is true": (Qwen3Config, {"is_causal": True}, True),
    "gemma3, use_bidirectional_attention": (Gemma3TextConfig, {"use_bidirectional_attention": True}, False),
    "gemma3, use_bidirectional_attention in windows": (
        Gemma3TextConfig,
        {"use_bidirectional_attention": True, "sliding_window": 6, "layer_types": MIXED},
        False,
    ),
    "qwen3, windows": (
        Qwen3Config,
        {"use_sliding_window": True, "sliding_window": 7, "layer_types": MIXED},
        True,
    ),
    "qwen3, a window that is off": (Qwen3Config, {"sliding_window": 7}, True),
    "qwen2, max_window_layers": (
        Qwen2Config,
        {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 2},
        True,
    ),
    "mistral, a window of one token": (MistralConfig, {"sliding_window": 1}, True),
    "llama, layer_types that it ignores": (LlamaConfig, {"layer_types": [SLIDING] * 3, "sliding_window": 4}, True),
    "llama, chunks that it ignores": (LlamaConfig, {"layer_types": [CHUNKED] * 3, "attention_chunk_size": 4}, False),
    "exaone4, windows": (Exaone4Config, {"sliding_window": 6, "layer_types": MIXED}, False),
    "phi3, windows": (Phi3Config, {"sliding_window": 6}, False),
    "gpt_neo, attention_types": (GPTNeoConfig, GPT_NEO, False),
    "diffllama, two attentions in a layer": (DiffLlamaConfig, {}, False),
}
REFUSED = {
    "llama ignores it": (LlamaConfig, {"use_bidirectional_attention": True}, "both directions .* ignores it"),
    "nemotron ignores it": (NemotronConfig, BOTH, r"is_causal=False.*NemotronForSequenceClassification .* ignores it"),
    "neither true nor false": (LlamaConfig, {"is_causal": None}, "is_causal=None"),
    "gemma, only without padding": (GemmaConfig, {"use_bidirectional_attention": True}, "in a padded batch than alone"),
    "a layer type of another model": (
        Qwen3Config,
        {"layer_types": [CHUNKED] * 3, "attention_chunk_size": 4},
        "cannot compute .*chunked_attention",
    ),
    "windows without a size": (Qwen3Config, {"layer_types": [SLIDING] * 3}, "cannot compute .*sliding_window"),
    "an empty window": (MistralConfig, {"sliding_window": 0}, "sliding_window=0 .*at least one token"),
    "a negative window": (MistralConfig, {"sliding_window": -1}, "sliding_window=-1 .*at least one token"),
    "a number of keys": (DogeConfig, {}, "keep_window_size=2048 .* depend on other rows"),
    "another head": (CTRLConfig, {}, "no linear layer named score"),
}


@torch.inference_mode()
def by_transformers(model: PreTrainedModel, ids: list[list[int]]) -> list[float]:
    return [float(model(torch.tensor([row]), use_cache=False).logits[0, 0]) for row in ids]


@pytest.mark.parametrize("batch_tokens", [50, 10_000])
@pytest.mark.parametrize("name", HONOURED)
def test_a_field_gives_the_logits_of_transformers_in_a_batch(name: str, batch_tokens: int):
    config_class, fields, shares = HONOURED[name]
    classifier, rows = classifier_of(config_class, **fields), random_rows(12)
    expected = by_transformers(classifier, [[*row.ids] for row in rows])

    runner = ModelRunner(classifier, batch_tokens)

    assert runner.shares_prefixes is shares
    assert runner.logits(rows) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", REFUSED)
def test_a_field_that_transformers_does_not_honour_is_refused(name: str):
    config_class, fields, complaint = REFUSED[name]

    with pytest.raises(UnsupportedModelError, match=complaint):
        ModelRunner(classifier_of(config_class, **fields))


def test_attention_in_both_directions_changes_the_logits():
    logits = [
        ModelRunner(classifier_of(Qwen3Config, **fields)).logits(random_rows(3))
        for fields in ({}, {"is_causal": False})
    ]

    assert min(abs(a - b) for a, b in zip(*logits, strict=True)) > 0.01


def with_fields(folder: Path, **fields: object) -> Path:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **fields}))
    return folder


QUERY = "What is the capital of China?"
DOCUMENTS = ["The capital of China is Beijing.", "서울", "Bananas are yellow. " * 20, ""]


@pytest.mark.parametrize("config_class", [LlamaConfig, Qwen3Config, MistralConfig])
def test_a_causal_model_and_its_export_attend_in_both_directions(
    config_class: type[PretrainedConfig], checkpoint: Callable[..., Tiny], template: str, tmp_path: Path
):
    tiny = checkpoint("model", config_class)
    with_fields(tiny.folder, is_causal=False)
    read_out = ReadOut(true="yes", false="no")
    recipe = Recipe(family="mine", chat_template=template, read_out=read_out, source="this test")
    model = AutoModelForCausalLM.from_pretrained(tiny.folder)
    expected = [
        causal_logit(Tiny(model, tiny.tokenizer, tiny.folder), read_out, prompt_ids(tiny, recipe, QUERY, text))
        for text in DOCUMENTS
    ]

    reranker = Reranker.load(tiny.folder, recipe=recipe)
    reranker.save(tmp_path / "exported")

    assert reranker.logits(QUERY, DOCUMENTS) == pytest.approx(expected, abs=1e-5)
    assert Reranker.load(tmp_path / "exported").logits(QUERY, DOCUMENTS) == pytest.approx(expected, abs=1e-5)
    causal = [causal_logit(tiny, read_out, prompt_ids(tiny, recipe, QUERY, text)) for text in DOCUMENTS]
    assert expected != pytest.approx(causal, abs=0.01)


@pytest.mark.parametrize("has_template", [True, False])
def test_a_native_head_attends_in_both_directions(
    has_template: bool, checkpoint: Callable[..., Tiny], template: str, tmp_path: Path
):
    tiny = checkpoint("Qwen3-Reranker-origin", LlamaConfig)
    folder = tmp_path / "native"
    Reranker.load(tiny.folder).classifier.save_pretrained(folder)
    tiny.tokenizer.save_pretrained(folder)
    with_fields(folder, is_causal=False)
    recipe = Recipe(family="mine", chat_template=template if has_template else None, read_out=None, source="this test")
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()

    reranker = Reranker.load(folder, recipe=recipe, document_cache_bytes=2**20)

    rows = [
        prompt_ids(tiny, recipe, QUERY, text) if has_template else tiny.tokenizer([[QUERY, text]])["input_ids"][0]
        for text in DOCUMENTS
    ]
    assert reranker.logits(QUERY, DOCUMENTS) == pytest.approx(by_transformers(model, rows), abs=1e-5)


def test_a_native_head_whose_padding_matters_is_refused(checkpoint: Callable[..., Tiny], tmp_path: Path):
    tiny = checkpoint("bge-reranker-v2-gemma", GemmaConfig)
    folder = tmp_path / "native"
    Reranker.load(tiny.folder).classifier.save_pretrained(folder)
    tiny.tokenizer.save_pretrained(folder)
    with_fields(folder, use_bidirectional_attention=True)
    recipe = Recipe(family="mine", chat_template=None, read_out=None, source="this test")

    with pytest.raises(UnsupportedModelError, match='in a padded batch than alone.* write "is_causal": false into its'):
        Reranker.load(folder, recipe=recipe)

    with_fields(folder, is_causal=False)
    reranker = Reranker.load(folder, recipe=recipe)
    alone = [reranker.logits(QUERY, [text])[0] for text in DOCUMENTS]
    assert reranker.logits(QUERY, DOCUMENTS) == pytest.approx(alone, abs=1e-5)


def test_an_encoder_whose_rows_depend_on_earlier_rows_is_refused():
    config = BigBirdConfig(
        vocab_size=400, hidden_size=64, num_hidden_layers=1, num_attention_heads=2, intermediate_size=96, num_labels=1
    )

    with pytest.raises(UnsupportedModelError, match="attention_type='block_sparse' in config.json"):
        ModelRunner(AutoModelForSequenceClassification.from_config(config).eval())


@pytest.mark.skipif(not transformers.__version__.startswith("5.23."), reason="the table is of this version")
@pytest.mark.parametrize("name", VISIBILITY_FIELDS)
def test_the_table_names_the_files_that_read_a_field(name: str):
    root = Path(transformers.__file__).parent

    for source in VISIBILITY_FIELDS[name].sources:
        assert re.search(rf"\b{name}\b", (root / source).read_text(encoding="utf-8")), source
