"""Families of Llama 2 and Mistral: token ids and logits are those of their reference code."""

import json
import logging
import re
import shutil
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoModelForSequenceClassification, LlamaConfig, PreTrainedTokenizerFast

from onelogit import RecipeError, Reranker
from onelogit.recipes.lookup import family_recipe
from support.peft_adapters import save_adapter
from support.reference import prompt_text
from support.rows import encoder_of, row_ids
from support.tiny import TEXTS, byte_level_tokenizer, native_checkpoint, starting_with

QUERY = "What is the capital of China?"
DOCUMENTS = ["The capital of China is Beijing.", "서울\n", " A longer document." * 20, ""]


def sentencepiece_like(form: str) -> PreTrainedTokenizerFast:
    """Like Llama 2's and Mistral's: BPE over characters with `▁` before each text, as old and new files write it."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    if form == "normalizer":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=form, split=False)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    control = ["<unk>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=[*control, *(f"<0x{byte:02X}>" for byte in range(256))],
        show_progress=False,
    )
    tokenizer.train_from_iterator([*TEXTS, *["▁query:▁document:▁[INST]▁true▁false"] * 9], trainer)
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] in control]
    tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.post_processor = starting_with(tokenizer, "<s>")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<unk>"
    )


@pytest.mark.parametrize("form", ["normalizer", "always", "first"])
def test_followir_begins_with_two_bos_tokens_as_its_reference_code_does(form: str):
    tokenizer, recipe = sentencepiece_like(form), family_recipe("followir")
    card = prompt_text(recipe, QUERY, DOCUMENTS[0]).removeprefix("<s>")  # the model card's prompt

    (row,) = row_ids(encoder_of(tokenizer, recipe.chat_template, 2048), [(QUERY, DOCUMENTS[0])])

    assert card.startswith("<s> [INST]")
    assert row == tokenizer(card)["input_ids"]
    assert row[:2] == [tokenizer.bos_token_id] * 2 != row[1:3]
    assert tokenizer.convert_ids_to_tokens(row[-1]).endswith("▁")  # the prompt's last character is a token of its own


@pytest.mark.parametrize("form", ["normalizer", "always", "first"])
def test_rankllama_begins_both_texts_with_a_bos_token_and_adds_no_last_one(form: str):
    tokenizer, recipe = sentencepiece_like(form), family_recipe("rankllama")
    pairs = [(QUERY, text) for text in DOCUMENTS]

    rows = row_ids(encoder_of(tokenizer, recipe.chat_template, 2048), pairs)

    def ids(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    bos = tokenizer.bos_token_id
    assert rows == [[bos, *ids(f"query: {QUERY}"), bos, *ids(f"document: {text}")] for text in DOCUMENTS]
    assert rows == [tokenizer(f"query: {QUERY}", f"document: {text}")["input_ids"] for text in DOCUMENTS]


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A RankLLaMA that was merged into its base model."""
    return native_checkpoint(
        tmp_path_factory.mktemp("models") / "merged", LlamaConfig, byte_level_tokenizer("<s>"), num_labels=1
    )


def model_cards_logits(folder: Path) -> list[float]:
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    with torch.inference_mode():
        batches = [tokenizer(f"query: {QUERY}", f"document: {text}", return_tensors="pt") for text in DOCUMENTS]
        return [float(model(input_ids=batch["input_ids"]).logits[0, 0]) for batch in batches]


def test_a_merged_rankllama_scores_as_on_its_model_card(merged: Path, tmp_path: Path):
    expected = model_cards_logits(merged)

    reranker = Reranker.load(merged, recipe="rankllama")
    ranking = reranker.rank(QUERY, DOCUMENTS)
    reranker.save(tmp_path / "saved")

    assert [each.logit for each in sorted(ranking)] == pytest.approx(expected, abs=1e-5)
    assert all(each.score == each.logit for each in ranking)
    assert max(expected) - min(expected) > 0.03
    assert Reranker.load(tmp_path / "saved").logits(QUERY, DOCUMENTS) == pytest.approx(expected, abs=1e-5)


def test_a_merged_rankllama_is_known_by_its_id_and_its_base_model(merged: Path, tmp_path: Path):
    cached = tmp_path / "models--castorini--rankllama-v1-7b-lora-passage" / "snapshots" / "a079ead"
    derived = tmp_path / "derived"
    shutil.copytree(merged, cached)
    shutil.copytree(merged, derived)
    (derived / "README.md").write_text("---\nbase_model: castorini/rankllama-v1-7b-lora-doc\n---\n")

    for folder in (cached, derived):
        with Reranker.load(folder) as reranker:
            assert reranker.recipe.family == "rankllama"
            assert reranker.logits(QUERY, DOCUMENTS) == pytest.approx(model_cards_logits(merged), abs=1e-5)


def test_a_merged_rankllama_without_a_sign_of_it_is_told_the_name_of_the_recipe(merged: Path, tmp_path: Path):
    named = shutil.copytree(merged, tmp_path / "rankllama-v1-7b-merged")

    with pytest.raises(RecipeError, match=re.escape("such as recipe='rankllama'")):
        Reranker.load(named)


def test_a_rankllama_adapter_is_known_by_its_id_and_scores_as_in_peft(tmp_path: Path):
    peft = pytest.importorskip("peft")
    base = native_checkpoint(tmp_path / "Llama-2-7b-hf", LlamaConfig, byte_level_tokenizer("<s>"), num_labels=1)
    names = ["q_proj", "v_proj", "o_proj", "down_proj", "up_proj", "gate_proj"]
    settings = peft.LoraConfig(task_type="SEQ_CLS", r=4, target_modules=names)
    folder = tmp_path / "models--castorini--rankllama-v1-7b-lora-passage" / "snapshots" / "92cfbfa"
    model = save_adapter(folder, base, settings, kind=AutoModelForSequenceClassification)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(base)
    with torch.inference_mode():
        batches = [tokenizer(f"query: {QUERY}", f"document: {text}", return_tensors="pt") for text in DOCUMENTS]
        expected = [float(model(input_ids=batch["input_ids"]).logits[0, 0]) for batch in batches]

    with Reranker.load(folder) as reranker:
        assert reranker.recipe.family == "rankllama"
        assert reranker.logits(QUERY, DOCUMENTS) == pytest.approx(expected, abs=1e-4)
    assert expected != pytest.approx(model_cards_logits(base), abs=1e-3)


def test_rankllama_is_no_recipe_of_a_model_without_a_head(tiny_qwen, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING), pytest.raises(RecipeError, match="has no classification head"):
        Reranker.load(tiny_qwen.folder, recipe="rankllama")
