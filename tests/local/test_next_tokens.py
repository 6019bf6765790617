"""The next tokens of a prompt are the language model's own, and a doubtful prompt is one warning."""

import logging
from collections.abc import Callable

import pytest
import torch
from transformers import GemmaConfig, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

from onelogit import DEMO_MODEL, InputError, ReadOut, Recipe, RecipeError, Reranker
from onelogit.checkpoints.head_weights import _ROWS_A_SLICE
from onelogit.recipes.templates import QWEN3_TEMPLATE
from support.tiny import Tiny

QUERY, DOCUMENT = "What is the capital of China?", "Beijing 서울"
SAMPLE = (QUERY, "The capital of China is Beijing.")  # as the check while loading
DOUBT = "probably not the one that the model was trained on"


def recipe(template: str, true: str = "yes", false: str | None = "no") -> Recipe:
    return Recipe(family="mine", chat_template=template, read_out=ReadOut(true=true, false=false), source="this test")


@pytest.mark.parametrize("is_tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("config_class", [Qwen3Config, Qwen2Config, LlamaConfig, MistralConfig, GemmaConfig])
def test_the_probabilities_are_the_causal_models(
    config_class: type, is_tied: bool, checkpoint: Callable[..., Tiny], template: str
):
    tiny = checkpoint("any", config_class, is_tied=is_tied)
    with Reranker.load(tiny.folder, recipe=recipe(template)) as reranker:
        prompt = reranker.prompt(QUERY, DOCUMENT)
        found = reranker.next_tokens(QUERY, DOCUMENT, count=7)

    with torch.inference_mode():
        expected = tiny.model(torch.tensor([prompt.ids])).logits[0, -1].float().softmax(dim=0)
    assert [token.probability for token in found.tokens] == pytest.approx(expected.topk(7).values.tolist(), abs=1e-5)
    assert [token.id for token in found.tokens] == expected.topk(7).indices.tolist()
    share = sum(expected[answer.id] for answer in prompt.answers)
    assert found.answer_share == pytest.approx(float(share), abs=1e-5)
    assert found.answers == prompt.answers


def test_a_head_of_several_slices_with_a_bias_is_read_whole(tmp_path, monkeypatch, checkpoint, template):
    monkeypatch.setattr("onelogit.checkpoints.head_weights._ROWS_A_SLICE", 7)
    tiny = checkpoint("sliced")
    assert len(tiny.tokenizer) % 7
    assert len(tiny.tokenizer) < _ROWS_A_SLICE
    with Reranker.load(tiny.folder, recipe=recipe(template)) as reranker:
        ids = reranker.prompt(QUERY, DOCUMENT).ids
        found = reranker.next_tokens(QUERY, DOCUMENT, count=10**6)

    with torch.inference_mode():
        expected = tiny.model(torch.tensor([ids])).logits[0, -1].softmax(dim=0)
    assert len(found.tokens) == len(expected)
    assert sum(token.probability for token in found.tokens) == pytest.approx(1, abs=1e-4)
    for token in found.tokens[:20]:
        assert token.probability == pytest.approx(float(expected[token.id]), abs=1e-5)


def test_a_recipe_of_ones_own_whose_answers_are_unlikely_is_one_warning(
    checkpoint: Callable[..., Tiny], template: str, caplog: pytest.LogCaptureFixture
):
    folder = checkpoint("random").folder

    with caplog.at_level(logging.WARNING, "onelogit"), Reranker.load(folder, recipe=recipe(template)) as reranker:
        warnings = [record.getMessage() for record in caplog.records if DOUBT in record.getMessage()]
        assert len(warnings) == 1
        assert "'yes' and 'no' have a share of" in warnings[0]
        assert "onelogit prompt" in warnings[0]
        reranker.rank(QUERY, [DOCUMENT])
        assert len([record for record in caplog.records if DOUBT in record.getMessage()]) == 1


def test_a_recipe_whose_answers_are_likely_gives_no_warning(
    checkpoint: Callable[..., Tiny], template: str, caplog: pytest.LogCaptureFixture
):
    folder = checkpoint("random").folder
    with Reranker.load(folder, recipe=recipe(template)) as reranker:
        likeliest = reranker.next_tokens(*SAMPLE, count=1).tokens[0]
    caplog.clear()
    read_out = ReadOut(true=likeliest.id)
    own = Recipe(family="mine", chat_template=template, read_out=read_out, source="this test")

    with Reranker.load(folder, recipe=own) as reranker:
        share = reranker.next_tokens(*SAMPLE).answer_share

    assert (share < 0.1) == (DOUBT in caplog.text)
    assert share == pytest.approx(likeliest.probability, abs=1e-6)


@pytest.mark.parametrize(
    "given",
    ["qwen3-reranker", {"family": "qwen3-reranker", "default_instruction": "Find it."}, None],
    ids=["name", "instruction", "none"],
)
def test_a_familys_prompt_is_not_checked(
    given: object, tiny_qwen: Tiny, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    with Reranker.load(tiny_qwen.folder, recipe=given):  # type: ignore[arg-type]
        assert DOUBT not in caplog.text


@pytest.mark.parametrize(
    "changed", [{"chat_template": f"{QWEN3_TEMPLATE}So:"}, {"read_out": {"true": "Yes"}}], ids=["prompt", "answer"]
)
def test_a_familys_recipe_with_another_prompt_or_answer_is_checked(
    changed: dict, tiny_qwen: Tiny, caplog: pytest.LogCaptureFixture
):
    with Reranker.load(tiny_qwen.folder, recipe={"family": "qwen3-reranker", **changed}) as reranker:
        assert reranker.next_tokens(*SAMPLE).is_prompt_doubtful

    assert DOUBT in caplog.text


def test_a_model_without_a_next_token_says_so(tmp_path, checkpoint: Callable[..., Tiny], tiny_qwen: Tiny):
    with Reranker.load(tiny_qwen.folder) as reranker:
        reranker.save(tmp_path / "converted")
        objects = Reranker(reranker.classifier, tiny_qwen.tokenizer, reranker.recipe)
    with Reranker.load(tmp_path / "converted") as converted:
        with pytest.raises(RecipeError, match="has a head of its own, so it has no next token"):
            converted.next_tokens(QUERY, DOCUMENT)
        assert converted.prompt(QUERY, DOCUMENT).answers == ()
    with pytest.raises(InputError, match=r"use Reranker\.load"):
        objects.next_tokens(QUERY, DOCUMENT)


@pytest.mark.parametrize("count", [0, -1, 1.5, True])
def test_the_count_is_checked(count: object):
    with Reranker.load(DEMO_MODEL) as reranker, pytest.raises(InputError, match="count"):
        reranker.next_tokens(QUERY, DOCUMENT, count=count)  # type: ignore[arg-type]
