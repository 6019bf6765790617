"""The logit of a converted model equals the causal model's, for every family."""

from collections.abc import Callable

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, Qwen3Config

from onelogit import ReadOut, Recipe, Reranker
from support.reference import causal_logit, prompt_ids
from support.tiny import Tiny, tiny_parts

QUERY = "What is the capital of China?"
DOCUMENTS = [
    "The capital of China is Beijing.",
    "서울은 대한민국의 수도이다.",
    "A much longer document. " * 12,
    "Two paragraphs.\n\nAnd code: `{{ x }}` {% if %}",
    "",
]


@pytest.mark.parametrize("is_tied", [True, False], ids=["tied", "untied"])
def test_converted_logits_equal_the_causal_models(family: Recipe, is_tied: bool, checkpoint: Callable[..., Tiny]):
    tiny = checkpoint("model", **tiny_parts(family), is_tied=is_tied)
    assert family.read_out is not None
    expected = [causal_logit(tiny, family.read_out, prompt_ids(tiny, family, QUERY, text)) for text in DOCUMENTS]

    reranker = Reranker.load(tiny.folder, recipe=family)
    alone = [reranker.logits(QUERY, [text])[0] for text in DOCUMENTS]
    together = reranker.logits(QUERY, DOCUMENTS)

    assert alone == pytest.approx(expected, abs=1e-5, rel=1e-5)
    assert together == pytest.approx(expected, abs=1e-5, rel=1e-5)
    assert max(expected) - min(expected) > 0.03  # equal logits would prove nothing


@pytest.mark.parametrize(
    "read_out",
    [
        ReadOut(true="yes"),
        ReadOut(true=5),
        ReadOut(true="yes", false="no"),
        ReadOut(true=7, false=0, scale=0.2),
        ReadOut(true="Yes", scale=-3.0),
    ],
)
def test_every_kind_of_read_out_converts(read_out: ReadOut, checkpoint: Callable[..., Tiny], template: str):
    tiny = checkpoint("model", is_tied=False)
    recipe = Recipe(family="mine", chat_template=template, read_out=read_out, source="this test")
    expected = [causal_logit(tiny, read_out, prompt_ids(tiny, recipe, QUERY, text)) for text in DOCUMENTS]

    logits = Reranker.load(tiny.folder, recipe=recipe).logits(QUERY, DOCUMENTS)

    assert logits == pytest.approx(expected, abs=1e-5, rel=1e-5)


def test_a_sharded_checkpoint_converts(checkpoint: Callable[..., Tiny]):
    whole = checkpoint("Qwen3-Reranker-whole", is_tied=False)
    shards = checkpoint("Qwen3-Reranker-shards", is_tied=False, max_shard_size="50KB")
    assert len(list(shards.folder.glob("*.safetensors"))) > 2

    assert Reranker.load(shards.folder).logits(QUERY, DOCUMENTS) == Reranker.load(whole.folder).logits(QUERY, DOCUMENTS)


def test_a_head_stored_in_float32_keeps_its_precision(checkpoint: Callable[..., Tiny]):
    tiny = checkpoint("Qwen3-Reranker-fp32", is_tied=False)

    reranker = Reranker.load(tiny.folder, dtype="bfloat16")

    head = tiny.model.get_output_embeddings().weight
    yes, no = (tiny.tokenizer.encode(word)[0] for word in ("yes", "no"))
    assert torch.equal(reranker.classifier.score.weight[0], head[yes] - head[no])
    assert reranker.classifier.dtype == torch.bfloat16
    assert reranker.classifier.score.weight.dtype == torch.float32


def test_the_bias_of_a_head_is_part_of_the_logit(checkpoint: Callable[..., Tiny]):
    tiny = checkpoint("Qwen3-Reranker-bias", is_tied=False)
    without = Reranker.load(tiny.folder).logits(QUERY, DOCUMENTS)
    tensors = load_file(tiny.folder / "model.safetensors")
    tensors["lm_head.bias"] = torch.arange(len(tensors["lm_head.weight"])).float() / 100
    save_file(tensors, tiny.folder / "model.safetensors", {"format": "pt"})
    yes, no = (tiny.tokenizer.encode(word)[0] for word in ("yes", "no"))

    logits = Reranker.load(tiny.folder).logits(QUERY, DOCUMENTS)

    assert logits == pytest.approx([logit + (yes - no) / 100 for logit in without], abs=1e-5)


def test_the_classifier_is_a_class_of_transformers_and_gives_the_logit_by_itself(tiny_qwen: Tiny):
    reranker = Reranker.load(tiny_qwen.folder, dtype="bfloat16")
    ids = prompt_ids(tiny_qwen, reranker.recipe, QUERY, DOCUMENTS[0])
    pad = reranker.classifier.config.pad_token_id

    with torch.inference_mode():
        output = reranker.classifier(
            input_ids=torch.tensor([ids, [pad] * 3 + ids[3:]]),
            attention_mask=torch.tensor([[1] * len(ids), [0] * 3 + [1] * (len(ids) - 3)]),
        ).logits

    assert type(reranker.classifier) is AutoModelForSequenceClassification._model_mapping[Qwen3Config]
    assert output.dtype == torch.float32
    assert output.shape == (2, 1)
    assert float(output[0, 0]) == pytest.approx(reranker.logits(QUERY, DOCUMENTS[:1])[0], abs=0.05)


def test_a_native_head_is_kept(checkpoint: Callable[..., Tiny], tmp_path):
    tiny = checkpoint("Qwen3-Reranker-origin")
    converted = Reranker.load(tiny.folder)
    folder = tmp_path / "tiny-seq-cls"
    converted.classifier.save_pretrained(folder)
    tiny.tokenizer.save_pretrained(folder)

    native = Reranker.load(folder, recipe="qwen3-reranker")

    assert native.recipe.read_out is None
    assert native.logits(QUERY, DOCUMENTS) == converted.logits(QUERY, DOCUMENTS)


def test_no_language_model_head_stays_in_memory(checkpoint: Callable[..., Tiny]):
    tiny = checkpoint("Qwen3-Reranker-untied", is_tied=False)

    names = [name for name, _ in Reranker.load(tiny.folder).classifier.named_parameters()]

    assert not [name for name in names if "lm_head" in name]
    assert names.count("score.weight") == 1
