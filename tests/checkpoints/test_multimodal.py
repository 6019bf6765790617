"""Multimodal models for texts: the text backbone alone gives the logits of the whole model of transformers."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from onelogit import FAMILIES, Recipe, Reranker, UnsupportedModelError
from onelogit.io.sample_pairs import bundled_pairs
from onelogit.verification.parity import measure_parity
from support.multimodal import CONTAINERS, multimodal_checkpoint
from support.reference import causal_logit, prompt_ids
from support.tiny import Tiny

RECIPE = next(each for each in FAMILIES if each.family == "qwen3-vl-reranker")
CARD = {"README.md": "---\nbase_model: Qwen/Qwen3-VL-Reranker-2B\n---\n"}
QUERY = "What is the capital of China?"
DOCUMENTS = [
    "The capital of China is Beijing.",
    "서울은 대한민국의 수도이다.",
    "A longer document. " * 4,
    "",
    "No.",
]


def logits_of_whole(tiny: Tiny, recipe: Recipe = RECIPE) -> list[float]:
    return [causal_logit(tiny, recipe.read_out, prompt_ids(tiny, recipe, QUERY, each)) for each in DOCUMENTS]


def assert_equal(folder: Path, expected: list[float], **options: Any) -> None:
    with Reranker.load(folder, **options) as reranker:
        assert reranker.logits(QUERY, DOCUMENTS) == pytest.approx(expected, abs=1e-5, rel=1e-5)
        assert [reranker.logits(QUERY, [each])[0] for each in DOCUMENTS] == pytest.approx(expected, abs=1e-5, rel=1e-5)
    assert max(expected) - min(expected) > 0.03  # equal logits would prove nothing


@pytest.mark.parametrize("is_tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("kind", CONTAINERS)
def test_texts_get_the_logits_of_the_whole_model(kind: str, is_tied: bool, tmp_path: Path):
    tiny = multimodal_checkpoint(tmp_path / "model", kind, is_tied=is_tied, files=CARD)

    assert_equal(tiny.folder, logits_of_whole(tiny))


@pytest.mark.parametrize("batch_tokens", [200, 100_000])
def test_shared_and_padded_prompts_get_the_same_logits(batch_tokens: int, tmp_path: Path):
    tiny = multimodal_checkpoint(tmp_path / "model", files=CARD)

    assert_equal(tiny.folder, logits_of_whole(tiny), batch_tokens=batch_tokens)
    with torch.inference_mode():
        rows = [prompt_ids(tiny, RECIPE, QUERY, each) for each in DOCUMENTS[:2]]
        pad = max(map(len, rows))
        ids = torch.tensor([[tiny.tokenizer.pad_token_id] * (pad - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (pad - len(row)) + [1] * len(row) for row in rows])
        whole = tiny.model(input_ids=ids, attention_mask=mask).logits[:, -1]
        with Reranker.load(tiny.folder) as reranker:
            logits = reranker.classifier(input_ids=ids, attention_mask=mask).logits[:, 0]
    yes, no = (tiny.tokenizer.encode(each)[0] for each in ("yes", "no"))
    assert logits.tolist() == pytest.approx((whole[:, yes] - whole[:, no]).tolist(), abs=1e-5)


CHANGES: dict[str, tuple[str, dict[str, Any]]] = {
    "scaled positions": (
        "qwen3_vl",
        {
            "max_position_embeddings": 1024,
            "rope_parameters": {
                "rope_type": "yarn",
                "factor": 4.0,
                "original_max_position_embeddings": 256,
                "rope_theta": 1e6,
                "mrope_section": [6, 5, 5],
                "mrope_interleaved": True,
            },
        },
    ),
    "biases": ("qwen3_vl", {"attention_bias": True}),
    "sliding window": (
        "qwen2_5_vl",
        {
            "use_sliding_window": True,
            "sliding_window": 16,
            "max_window_layers": 1,
            "layer_types": ["full_attention", "sliding_attention"],
        },
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_further_fields_of_the_text_backbone_count(change: str, tmp_path: Path):
    kind, fields = CHANGES[change]
    tiny = multimodal_checkpoint(tmp_path / "model", kind, files=CARD, **fields)
    plain = multimodal_checkpoint(tmp_path / "plain", kind, files=CARD)

    assert_equal(tiny.folder, logits_of_whole(tiny))
    assert change == "biases" or logits_of_whole(tiny) != pytest.approx(logits_of_whole(plain), abs=1e-3)


RENAMED: dict[str, Callable[[str], str]] = {
    "older names": lambda name: name.replace("model.language_model.", "language_model.model.").replace(
        "lm_head.", "language_model.lm_head."
    ),
    "torch.compile": lambda name: f"_orig_mod.{name}",
}


@pytest.mark.parametrize("renamed", RENAMED)
def test_other_names_of_the_tensors_are_known(renamed: str, tmp_path: Path):
    tiny = multimodal_checkpoint(tmp_path / "model", files=CARD)
    file = tiny.folder / "model.safetensors"
    save_file({RENAMED[renamed](name): each for name, each in load_file(file).items()}, file, {"format": "pt"})

    assert_equal(tiny.folder, logits_of_whole(tiny))


@pytest.mark.parametrize("architectures", ["Qwen3VLForConditionalGeneration", None])
def test_the_class_may_be_named_otherwise_or_not_at_all(architectures: str | None, tmp_path: Path):
    tiny = multimodal_checkpoint(tmp_path / "model", files=CARD)
    config = json.loads((tiny.folder / "config.json").read_text())
    (tiny.folder / "config.json").write_text(json.dumps({**config, "architectures": architectures}))

    assert_equal(tiny.folder, logits_of_whole(tiny))


def test_weights_without_the_vision_tower_are_enough(tmp_path: Path):
    tiny = multimodal_checkpoint(tmp_path / "model", files=CARD)
    file = tiny.folder / "model.safetensors"
    save_file({name: each for name, each in load_file(file).items() if "visual" not in name}, file, {"format": "pt"})

    assert_equal(tiny.folder, logits_of_whole(tiny))


def test_a_configuration_without_a_part_for_the_text_is_read(tmp_path: Path):
    tiny = multimodal_checkpoint(tmp_path / "model", "qwen2_5_vl", files=CARD)
    config = json.loads((tiny.folder / "config.json").read_text())
    text = {name: value for name, value in config.pop("text_config").items() if name != "model_type"}
    rope = {"rope_theta": text.pop("rope_parameters")["rope_theta"]}
    rope["rope_scaling"] = {"type": "mrope", "mrope_section": [6, 5, 5]}
    (tiny.folder / "config.json").write_text(json.dumps({**text, **rope, **config}))

    assert_equal(tiny.folder, logits_of_whole(tiny))


def test_an_export_is_a_text_model_and_agrees(tmp_path: Path):
    tiny = multimodal_checkpoint(tmp_path / "model", files=CARD)

    with Reranker.load(tiny.folder) as reranker:
        reranker.save(tmp_path / "exported")

    config = json.loads((tmp_path / "exported" / "config.json").read_text())
    assert (config["model_type"], config["architectures"]) == ("qwen3", ["Qwen3ForSequenceClassification"])
    shutil.rmtree(tiny.folder)
    assert_equal(tmp_path / "exported", logits_of_whole(tiny))


@pytest.mark.parametrize("kind", CONTAINERS)
def test_verification_runs_the_whole_model(kind: str, tmp_path: Path):
    tiny = multimodal_checkpoint(tmp_path / "model", kind, files=CARD)

    parity = measure_parity(str(tiny.folder), bundled_pairs()[:3], {})

    assert parity.converted.largest_difference < 1e-4
    assert parity.rows_equal == 3


DECLARED = {
    "modules.json": [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"},
        {
            "idx": 1,
            "name": "1",
            "path": "1_LogitScore",
            "type": "sentence_transformers.cross_encoder.modules.logit_score.LogitScore",
        },
    ],
    "1_LogitScore/config.json": {"true_token_id": 300, "false_token_id": 301},
    "config_sentence_transformers.json": {"model_type": "CrossEncoder"},
    "sentence_bert_config.json": {
        "transformer_task": "any-to-any",
        "modality_config": {"message": {"method": "forward", "format": "structured"}},
        "processing_kwargs": {"chat_template": {"chat_template": "reranker", "add_generation_prompt": True}},
    },
    "additional_chat_templates/reranker.jinja": "{%- for message in messages %}<|im_start|>{{ message.role }}\n"
    "{%- for part in message.content %}{{ '<image>' if part.type == 'image' else part.text }}{% endfor %}<|im_end|>"
    "{% endfor %}<|im_start|>assistant",
}


def test_a_declared_prompt_for_texts_and_images_is_used_for_texts(tmp_path: Path):
    tiny = multimodal_checkpoint(tmp_path / "model", "qwen3_5", files=DECLARED)
    with Reranker.load(tiny.folder) as reranker:
        recipe = reranker.recipe

    assert recipe.family == "declared"
    assert_equal(tiny.folder, logits_of_whole(tiny, recipe))


@pytest.mark.parametrize("kind", ["gemma3", "qwen3_5"])
def test_a_classifier_with_a_vision_tower_gives_its_own_logits(kind: str, tmp_path: Path):
    tiny = multimodal_checkpoint(tmp_path / "base", kind)
    config, pad = tiny.model.config, tiny.tokenizer.pad_token_id
    config = type(config).from_dict({**config.to_dict(), "num_labels": 1})
    config.text_config.num_labels, config.text_config.pad_token_id = 1, pad
    model: Any = AutoModelForSequenceClassification.from_config(config).eval()
    model.save_pretrained(tmp_path / "model")
    tiny.tokenizer.save_pretrained(tmp_path / "model")
    with torch.inference_mode():
        rows = [torch.tensor([prompt_ids(tiny, RECIPE, QUERY, each)]) for each in DOCUMENTS]
        expected = [model(input_ids=row).logits.item() for row in rows]

    assert_equal(tmp_path / "model", expected, recipe="qwen3-vl-reranker")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quantization_config": {"quant_method": "fp8"}}, "quantised multimodal model"),
        (
            {"model_type": "qwen3_vl_moe", "architectures": ["Qwen3VLMoeForConditionalGeneration"]},
            "not known to be equal",
        ),
        ({"model_type": "internvl", "architectures": ["InternVLForConditionalGeneration"]}, "not known to be equal"),
    ],
)
def test_what_is_not_proved_is_refused(changes: dict[str, Any], message: str, tmp_path: Path):
    tiny = multimodal_checkpoint(tmp_path / "model", files=CARD)
    config = json.loads((tiny.folder / "config.json").read_text())
    (tiny.folder / "config.json").write_text(json.dumps(config | changes))

    with pytest.raises(UnsupportedModelError, match=message):
        Reranker.load(tiny.folder)


def test_an_adapter_of_a_multimodal_model_is_refused(tmp_path: Path):
    tiny = multimodal_checkpoint(tmp_path / "model", files=CARD)
    folder = tmp_path / "adapter"
    folder.mkdir()
    settings = {"peft_type": "LORA", "base_model_name_or_path": str(tiny.folder), "r": 2, "target_modules": ["q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    tensors = {"base_model.model.model.language_model.layers.0.self_attn.q_proj.lora_A.weight": torch.zeros(2, 64)}
    save_file(tensors, folder / "adapter_model.safetensors")

    with pytest.raises(UnsupportedModelError, match="an adapter of a multimodal model.*merge_and_unload"):
        Reranker.load(folder)


def test_an_undeclared_prompt_is_not_guessed(tmp_path: Path):
    tiny = multimodal_checkpoint(tmp_path / "LightOn-rerank-PW-2B", "qwen3_5")

    with pytest.raises(UnsupportedModelError, match=r"it does not declare its prompt.* Use it with all of its files"):
        Reranker.load(tiny.folder)
