"""The exported folder: the same logits for every library that opens it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from sentence_transformers import CrossEncoder
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig, Qwen3ForCausalLM, pipeline
from transformers.utils.chat_template_utils import render_jinja_template

from onelogit import ReadOut, Recipe, Reranker, UnsupportedModelError
from onelogit.export.metadata import exported_template
from onelogit.prompts.template import takes_instruction
from onelogit.recipes.families import FAMILIES
from onelogit.recipes.templates import QWEN3_INSTRUCTION, QWEN3_TEMPLATE
from support.tiny import Tiny, native_checkpoint, pair_tokenizer, tiny_parts

QUERY = "What is the capital of China?"
DOCUMENTS = ["The capital of China is Beijing.", "서울", "A longer document. " * 20, "yes"]


def scores(reranker: Reranker) -> list[float]:
    return [ranked.score for ranked in sorted(reranker.rank(QUERY, DOCUMENTS))]


def conversation(document: str) -> list[dict[str, str]]:
    return [{"role": "query", "content": QUERY}, {"role": "document", "content": document}]


@pytest.mark.parametrize("is_tied", [True, False], ids=["tied", "untied"])
def test_every_library_computes_the_same_logits_from_the_folder_without_flags(
    family: Recipe, is_tied: bool, checkpoint: Callable[..., Tiny], tmp_path: Path
):
    reranker = Reranker.load(checkpoint("model", **tiny_parts(family), is_tied=is_tied).folder, recipe=family)
    folder = tmp_path / "converted"
    expected = reranker.logits(QUERY, DOCUMENTS)

    reranker.save(folder)

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = [tokenizer.apply_chat_template(conversation(text), tokenize=False) for text in DOCUMENTS]
    with torch.inference_mode():
        batch = tokenizer(texts, padding=True, return_tensors="pt", return_token_type_ids=False)
        by_transformers = model(**batch).logits[:, 0].tolist()
    classify = pipeline("text-classification", model=str(folder), device="cpu", batch_size=4)
    by_pipeline = [answer["score"] for answer in classify(texts, function_to_apply="none")]
    by_cross_encoder = CrossEncoder(str(folder), device="cpu").predict([(QUERY, text) for text in DOCUMENTS])
    # Padding at the left shifts the positions, which changes the fifth digit with these wide random weights.
    assert by_transformers == pytest.approx(expected, abs=2e-4)
    assert by_pipeline == pytest.approx(expected, abs=2e-4)
    assert by_cross_encoder.tolist() == pytest.approx(scores(reranker), abs=2e-4)
    assert Reranker.load(folder).logits(QUERY, DOCUMENTS) == pytest.approx(expected, abs=2e-5)


def test_a_bfloat16_checkpoint_keeps_its_dtype_and_its_head_in_float32(tiny_qwen: Tiny, tmp_path: Path):
    reranker = Reranker.load(tiny_qwen.folder, dtype="bfloat16")
    reranker.save(tmp_path / "converted")

    again = Reranker.load(tmp_path / "converted", dtype="bfloat16")

    assert json.loads((tmp_path / "converted" / "config.json").read_text())["dtype"] == "bfloat16"
    assert again.logits(QUERY, DOCUMENTS) == reranker.logits(QUERY, DOCUMENTS)
    by_cross_encoder = CrossEncoder(str(tmp_path / "converted"), device="cpu")
    logits = by_cross_encoder.predict([(QUERY, text) for text in DOCUMENTS], activation_fn=torch.nn.Identity())
    assert logits.tolist() == pytest.approx(reranker.logits(QUERY, DOCUMENTS), abs=0.2)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("is_tied", [True, False], ids=["tied", "untied"])
def test_a_stored_half_precision_is_saved_even_if_a_cpu_computes_it_as_float32(
    is_tied: bool,
    half: torch.dtype,
    checkpoint: Callable[..., Tiny],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("onelogit.checkpoints.device.has_bfloat16", lambda device: False)
    folder = checkpoint("ctxl-rerank-v2-half", is_tied=is_tied).folder  # the half precision can represent its head
    Qwen3ForCausalLM.from_pretrained(folder, dtype=half).save_pretrained(folder)
    stored = load_file(folder / "model.safetensors")
    reranker = Reranker.load(folder)
    reranker.save(tmp_path / "once")

    reranker.save(tmp_path / "saved")

    saved = load_file(tmp_path / "saved" / "model.safetensors")
    assert reranker.classifier.dtype == torch.float32
    assert saved.pop("score.weight").dtype == torch.float32
    assert saved.keys() == stored.keys() - {"lm_head.weight"}
    assert all(torch.equal(tensor, stored[name]) and tensor.dtype == half for name, tensor in saved.items())
    assert f"torch.{json.loads((tmp_path / 'saved' / 'config.json').read_text())['dtype']}" == str(half)
    assert f"torch.{json.loads((tmp_path / 'saved' / 'reranker_probe.json').read_text())['dtype']}" == str(half)
    assert Reranker.load(tmp_path / "saved").logits(QUERY, DOCUMENTS) == reranker.logits(QUERY, DOCUMENTS)


def test_an_explicit_dtype_is_the_one_saved(checkpoint: Callable[..., Tiny], tmp_path: Path):
    folder = checkpoint("Qwen3-Reranker-half").folder
    Qwen3ForCausalLM.from_pretrained(folder, dtype=torch.float16).save_pretrained(folder)

    Reranker.load(folder, dtype="float32").save(tmp_path / "saved")

    saved = load_file(tmp_path / "saved" / "model.safetensors")
    assert {tensor.dtype for tensor in saved.values()} == {torch.float32}
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["dtype"] == "float32"


def test_an_encoder_is_saved_unchanged(tmp_path: Path):
    tokenizer = pair_tokenizer("[CLS]", "[SEP]", "[SEP]", has_types=True)
    reranker = Reranker.load(native_checkpoint(tmp_path / "encoder", BertConfig, tokenizer, num_labels=1))

    reranker.save(tmp_path / "saved")

    by_cross_encoder = CrossEncoder(str(tmp_path / "saved"), device="cpu").predict(
        [(QUERY, text) for text in DOCUMENTS]
    )
    assert "stored in float32" not in (tmp_path / "saved" / "README.md").read_text()
    assert "use_sep_token" not in (tmp_path / "saved" / "config.json").read_text()
    assert by_cross_encoder.tolist() == pytest.approx(scores(reranker), abs=1e-5)
    assert scores(Reranker.load(tmp_path / "saved")) == pytest.approx(scores(reranker), abs=1e-5)


def test_the_files_declare_what_servers_need(tiny_qwen: Tiny, tmp_path: Path):
    Reranker.load(tiny_qwen.folder, max_tokens=500).save(tmp_path / "converted")

    config = json.loads((tmp_path / "converted" / "config.json").read_text())
    assert config["architectures"] == ["Qwen3ForSequenceClassification"]
    assert config["id2label"] == {"0": "LABEL_0"}
    assert config["use_sep_token"] is False
    assert config["pad_token_id"] == tiny_qwen.tokenizer.pad_token_id
    assert config["sentence_transformers"] == {"activation_fn": "torch.nn.modules.activation.Sigmoid"}
    assert (tmp_path / "converted" / "chat_template.jinja").read_text().endswith(QWEN3_TEMPLATE)
    tokenizer = json.loads((tmp_path / "converted" / "tokenizer_config.json").read_text())
    assert (tokenizer["padding_side"], tokenizer["model_max_length"]) == ("left", 500)


def test_the_chosen_instruction_and_activation_are_saved(tiny_qwen: Tiny, tmp_path: Path):
    reranker = Reranker.load(tiny_qwen.folder, instruction="Find lies.", activation="identity")
    reranker.save(tmp_path / "converted")

    by_cross_encoder = CrossEncoder(str(tmp_path / "converted"), device="cpu")

    predicted = by_cross_encoder.predict([(QUERY, text) for text in DOCUMENTS])
    assert predicted.tolist() == pytest.approx(reranker.logits(QUERY, DOCUMENTS), abs=2e-4)


@pytest.mark.parametrize(
    "recipe", [recipe for recipe in FAMILIES if recipe.default_instruction], ids=lambda r: r.family
)
def test_a_request_without_an_instruction_gets_the_default_one(recipe: Recipe):
    """As vLLM renders it: with neither the variable `instruction` nor a system message."""
    template = exported_template(recipe)
    assert template is not None

    ((prompt,), _) = render_jinja_template([conversation("d")], chat_template=template)

    assert recipe.default_instruction in prompt


@pytest.mark.parametrize(
    "recipe",
    [recipe for recipe in FAMILIES if recipe.chat_template and takes_instruction(recipe.chat_template)],
    ids=lambda r: r.family,
)
def test_a_request_with_an_instruction_gets_it_as_a_variable_or_as_a_system_message(recipe: Recipe):
    """vLLM passes the variable `instruction`, Sentence Transformers a system message."""
    template = exported_template(recipe)
    message = [{"role": "system", "content": "Find lies."}]

    ((variable,), _) = render_jinja_template([conversation("d")], chat_template=template, instruction="Find lies.")
    ((system,), _) = render_jinja_template([[*message, *conversation("d")]], chat_template=template)
    ((original,), _) = render_jinja_template([[*message, *conversation("d")]], chat_template=recipe.chat_template)

    assert variable == system == original
    assert "Find lies." in variable


def test_the_probe_holds_three_prompts_with_their_logits(tiny_qwen: Tiny, tmp_path: Path):
    reranker = Reranker.load(tiny_qwen.folder)
    reranker.save(tmp_path / "converted")

    probe = json.loads((tmp_path / "converted" / "reranker_probe.json").read_text())

    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "converted")
    assert probe["instruction"] == QWEN3_INSTRUCTION
    assert len(probe["prompts"]) == 3
    for prompt in probe["prompts"]:
        with torch.inference_mode():
            logit = model(input_ids=torch.tensor([prompt["token_ids"]])).logits.item()
        assert logit == pytest.approx(prompt["logit"], abs=probe["tolerance"])
        assert reranker.logits(prompt["query"], [prompt["document"]])[0] == pytest.approx(prompt["logit"], abs=1e-5)


def test_the_model_card_names_origin_licence_and_read_out(checkpoint: Callable[..., Tiny], tmp_path: Path):
    card = "---\nlicense: cc-by-nc-sa-4.0\n---\n"
    tiny = checkpoint("ctxl-rerank-v2-tiny", files={"README.md": card})

    Reranker.load(tiny.folder).save(tmp_path / "converted")

    text = (tmp_path / "converted" / "README.md").read_text()
    front = yaml.safe_load(text.split("---")[1])
    assert front["license"] == "cc-by-nc-sa-4.0"
    assert front["pipeline_tag"] == "text-ranking"
    assert "row 0" in text
    assert "ctxl-rerank-v2-tiny" in text
    assert str(tiny.folder) not in text
    assert Reranker.load(tmp_path / "converted").licence == "cc-by-nc-sa-4.0"


def test_a_folder_whose_name_looks_like_a_hub_id_is_a_folder(
    checkpoint: Callable[..., Tiny], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    checkpoint("mine/Qwen3-Reranker-tiny")
    monkeypatch.chdir(tmp_path)

    Reranker.load("mine/Qwen3-Reranker-tiny").save("converted")

    text = (tmp_path / "converted" / "README.md").read_text()
    assert "base_model" not in text
    assert "huggingface.co/mine" not in text
    assert json.loads((tmp_path / "converted" / "reranker_probe.json").read_text())["source"] == "Qwen3-Reranker-tiny"


def test_an_export_of_an_export_has_the_same_files_and_scores(tiny_qwen: Tiny, tmp_path: Path):
    first = Reranker.load(tiny_qwen.folder)
    first.save(tmp_path / "one")
    Reranker.load(tmp_path / "one").save(tmp_path / "two")

    names = sorted(file.name for file in (tmp_path / "one").iterdir())

    assert names == sorted(file.name for file in (tmp_path / "two").iterdir())
    assert scores(Reranker.load(tmp_path / "two")) == pytest.approx(scores(first), abs=1e-6)


def test_a_custom_read_out_is_saved(checkpoint: Callable[..., Tiny], tmp_path: Path, template: str):
    read_out = ReadOut(true="Yes", false="No", scale=0.5)
    recipe = Recipe(family="mine", chat_template=template, read_out=read_out, activation="sigmoid", source="this test")
    reranker = Reranker.load(checkpoint("model", is_tied=False).folder, recipe=recipe)

    reranker.save(tmp_path / "converted")

    predicted = CrossEncoder(str(tmp_path / "converted"), device="cpu").predict([(QUERY, text) for text in DOCUMENTS])
    assert predicted.tolist() == pytest.approx(scores(reranker), abs=2e-4)


def test_as_cross_encoder_gives_the_same_scores(tiny_qwen: Tiny):
    reranker = Reranker.load(tiny_qwen.folder)

    cross_encoder = reranker.as_cross_encoder()

    assert isinstance(cross_encoder, CrossEncoder)
    predicted = cross_encoder.predict([(QUERY, text) for text in DOCUMENTS])
    assert predicted.tolist() == pytest.approx(scores(reranker), abs=2e-4)


def test_the_fields_that_make_vllm_convert_are_removed_from_the_export(checkpoint: Callable[..., Tiny], tmp_path: Path):
    tiny = checkpoint("model", files={"chat_template.jinja": QWEN3_TEMPLATE})
    config = json.loads((tiny.folder / "config.json").read_text())
    fields = {"classifier_from_token": ["no", "yes"], "method": "from_2_way_softmax"}
    (tiny.folder / "config.json").write_text(json.dumps({**config, **fields, "is_original_qwen3_reranker": True}))
    reranker = Reranker.load(tiny.folder)

    reranker.save(tmp_path / "converted")

    saved = json.loads((tmp_path / "converted" / "config.json").read_text())
    assert not {*fields, "is_original_qwen3_reranker"} & set(saved)
    assert scores(Reranker.load(tmp_path / "converted")) == pytest.approx(scores(reranker), abs=1e-5)


def test_a_head_with_a_bias_is_not_exported(checkpoint: Callable[..., Tiny], tmp_path: Path):
    tiny = checkpoint("Qwen3-Reranker-bias", is_tied=False)
    tensors = load_file(tiny.folder / "model.safetensors")
    tensors["lm_head.bias"] = torch.ones(len(tensors["lm_head.weight"]))
    save_file(tensors, tiny.folder / "model.safetensors", {"format": "pt"})

    with pytest.raises(UnsupportedModelError, match="has a bias"):
        Reranker.load(tiny.folder).save(tmp_path / "converted")
    assert not (tmp_path / "converted").exists()


@pytest.mark.parametrize("instruction", ["find 🔥 cats", 'say "no" {{ x }}', ""])
def test_any_instruction_survives_the_export(instruction: str, checkpoint: Callable[..., Tiny], tmp_path: Path):
    tiny = checkpoint("zerank-2")
    reranker = Reranker.load(tiny.folder, instruction=instruction)

    reranker.save(tmp_path / "converted")

    assert Reranker.load(tmp_path / "converted").logits(QUERY, DOCUMENTS) == pytest.approx(
        reranker.logits(QUERY, DOCUMENTS), abs=1e-5
    )
    template = (tmp_path / "converted" / "chat_template.jinja").read_text("utf-8")
    ((prompt,), _) = render_jinja_template([conversation("d")], chat_template=template)
    assert instruction in prompt


def test_an_export_without_an_instruction_gets_no_default_one(checkpoint: Callable[..., Tiny], tmp_path: Path):
    reranker = Reranker.load(checkpoint("Qwen3-Reranker-tiny").folder, instruction="")
    reranker.save(tmp_path / "Qwen3-Reranker-converted")

    again = Reranker.load(tmp_path / "Qwen3-Reranker-converted")

    assert again.logits(QUERY, DOCUMENTS) == pytest.approx(reranker.logits(QUERY, DOCUMENTS), abs=1e-5)


def test_weights_that_changed_after_loading_are_saved_exactly(
    checkpoint: Callable[..., Tiny], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("onelogit.checkpoints.device.has_bfloat16", lambda device: False)
    folder = checkpoint("Qwen3-Reranker-half").folder
    Qwen3ForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(folder)
    reranker = Reranker.load(folder)
    for weight in reranker.classifier.base_model.parameters():
        weight.data.mul_(1.001)  # as training would

    reranker.save(tmp_path / "saved")

    assert Reranker.load(tmp_path / "saved").logits(QUERY, DOCUMENTS) == reranker.logits(QUERY, DOCUMENTS)
