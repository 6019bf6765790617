"""PEFT adapters: merged as PEFT computes them, in every form that PEFT writes, or refused by name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    Qwen3Config,
)

from onelogit import CheckpointError, Reranker, UnsupportedModelError
from support.peft_adapters import DOCUMENTS, PAIRS, QUERY, save_adapter, unmerged_logits
from support.tiny import Tiny, causal_checkpoint, native_checkpoint, pair_tokenizer

peft = pytest.importorskip("peft")

CARD = {"README.md": "---\nbase_model: Qwen/Qwen3-Reranker-0.6B\nlicense: apache-2.0\n---\n"}
LAYERS = ["q_proj", "v_proj", "up_proj"]
CAUSAL = {"task_type": "CAUSAL_LM"}


def lora(**fields: Any) -> Any:
    return peft.LoraConfig(**{"r": 4, "lora_alpha": 16, "target_modules": LAYERS, **CAUSAL, **fields})


MERGEABLE: dict[str, Callable[[], Any]] = {
    "LoRA": lora,
    "no task": lambda: lora(task_type=None),
    "of the backbone": lambda: lora(task_type="FEATURE_EXTRACTION"),
    "rank-stabilised": lambda: lora(use_rslora=True),
    "DoRA": lambda: lora(use_dora=True),
    "with biases": lambda: lora(bias="all"),
    "all linear layers": lambda: lora(target_modules="all-linear"),
    "layers by a pattern": lambda: lora(target_modules=r".*\.(q_proj|down_proj)"),
    "ranks by layer": lambda: lora(
        rank_pattern={"q_proj": 2, "layers.1.v_proj": 8}, alpha_pattern={"up_proj": 3}, layers_to_transform=[1]
    ),
    "of the head": lambda: lora(target_modules=[*LAYERS, "lm_head"]),
    "of the embeddings": lambda: lora(target_modules=[*LAYERS, "embed_tokens"]),
    "DoRA of embeddings and head": lambda: lora(target_modules=["embed_tokens", "lm_head"], use_dora=True),
    "of tied embeddings": lambda: lora(target_modules=[*LAYERS, "embed_tokens"], ensure_weight_tying=True),
    "a whole head": lambda: lora(modules_to_save=["lm_head"]),
    "whole embeddings": lambda: lora(modules_to_save=["embed_tokens"]),
    "whole embeddings and head": lambda: lora(modules_to_save=["embed_tokens", "lm_head"]),
    "a whole norm": lambda: lora(modules_to_save=["norm"]),
    "tokens": lambda: lora(trainable_token_indices=[3, 65, 70]),
    "PiSSA": lambda: lora(init_lora_weights="pissa"),
    "IA3": lambda: peft.IA3Config(target_modules=["v_proj", "down_proj"], feedforward_modules=["down_proj"], **CAUSAL),
    "AdaLoRA": lambda: peft.AdaLoraConfig(target_modules=LAYERS, total_step=10, init_r=4, target_r=4, **CAUSAL),
    "LoHa": lambda: peft.LoHaConfig(target_modules=LAYERS, r=2, **CAUSAL),
    "OFT": lambda: peft.OFTConfig(target_modules=LAYERS, oft_block_size=4, r=0, **CAUSAL),
    "VeRA": lambda: peft.VeraConfig(target_modules=["q_proj"], r=4, **CAUSAL),
    "norms": lambda: peft.LNTuningConfig(target_modules=["input_layernorm"], **CAUSAL),
}
UNMERGEABLE = {
    "LoRA with biases": (lambda: lora(lora_bias=True), r"lora_bias=True` because the base layer has no bias"),
    "activated LoRA": (lambda: lora(alora_invocation_tokens=[1, 2]), "aLoRA does not support merging"),
    "repeated layers": (lambda: lora(layer_replication=[[0, 2], [1, 2]]), "repeats layers of its base model"),
    "soft prompts": (lambda: peft.PromptTuningConfig(num_virtual_tokens=4, **CAUSAL), "of the kind PROMPT_TUNING"),
    "prefixes": (lambda: peft.PrefixTuningConfig(num_virtual_tokens=4, **CAUSAL), "of the kind PREFIX_TUNING"),
}


@pytest.fixture(scope="session", params=[True, False], ids=["tied", "untied"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    folder = tmp_path_factory.mktemp("base") / "base"
    return causal_checkpoint(folder, is_tied=request.param, files=CARD)


@pytest.fixture(scope="session")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return causal_checkpoint(tmp_path_factory.mktemp("base") / "base", files=CARD)


def answers(base: Tiny) -> list[int]:
    return [int(base.tokenizer.convert_tokens_to_ids(token)) for token in ("yes", "no")]


def check_equal(folder: Path, adapted: Any, ids: list[int] | None) -> Reranker:
    reranker = Reranker.load(folder)
    assert reranker.logits(QUERY, DOCUMENTS) == pytest.approx(unmerged_logits(adapted, reranker, ids), abs=1e-4)
    return reranker


@pytest.mark.parametrize("kind", MERGEABLE)
def test_a_merged_adapter_gives_the_logits_of_the_unmerged_model(kind: str, base: Tiny, tmp_path: Path):
    adapted = save_adapter(tmp_path / "adapter", base.folder, MERGEABLE[kind]())
    plain = Reranker.load(base.folder).logits(QUERY, DOCUMENTS)

    reranker = check_equal(tmp_path / "adapter", adapted, answers(base))

    assert reranker.logits(QUERY, DOCUMENTS) != pytest.approx(plain, abs=1e-2)
    assert reranker.recipe.family == "qwen3-reranker"
    hidden = torch.tensor([reranker.prompt(*PAIRS[0]).ids])
    with torch.inference_mode():
        probabilities = adapted(input_ids=hidden).logits[0, -1].softmax(-1)
    likeliest = reranker.next_tokens(*PAIRS[0], count=3).tokens
    assert [each.id for each in likeliest] == probabilities.topk(3).indices.tolist()


@pytest.mark.parametrize("kind", UNMERGEABLE)
def test_an_adapter_that_cannot_be_merged_is_refused_by_its_kind(kind: str, tied: Tiny, tmp_path: Path):
    settings, reason = UNMERGEABLE[kind]
    save_adapter(tmp_path / "adapter", tied.folder, settings())

    with pytest.raises(UnsupportedModelError, match=reason):
        Reranker.load(tmp_path / "adapter")


@pytest.mark.parametrize("added", [2, -9])
@pytest.mark.parametrize("fields", [{}, {"modules_to_save": ["embed_tokens", "lm_head"]}], ids=["resized", "trained"])
def test_an_adapter_with_more_or_fewer_tokens_resizes_its_base(
    added: int, fields: dict[str, object], base: Tiny, tmp_path: Path
):
    size = len(base.tokenizer) + added

    def resize(model: Any) -> None:
        torch.manual_seed(5)
        model.resize_token_embeddings(size, mean_resizing=False)

    adapted = save_adapter(tmp_path / "adapter", base.folder, lora(**fields), prepare=resize)
    if added > 0:
        tokenizer = AutoTokenizer.from_pretrained(base.folder)
        tokenizer.add_tokens(["<relevant>", "<other>"], special_tokens=True)
        tokenizer.save_pretrained(tmp_path / "adapter")

    if added < 0:  # tokens of the base's tokenizer have no embeddings any more
        with pytest.raises(CheckpointError, match="the tokenizer does not fit the model"):
            Reranker.load(tmp_path / "adapter", recipe={"family": "qwen3-reranker"})
        return
    reranker = check_equal(tmp_path / "adapter", adapted, answers(base))
    assert reranker.classifier.get_input_embeddings().num_embeddings == size
    reranker.save(tmp_path / "exported")
    exported = Reranker.load(tmp_path / "exported").logits(QUERY, DOCUMENTS)
    assert exported == pytest.approx(reranker.logits(QUERY, DOCUMENTS), abs=1e-5)


@pytest.mark.parametrize("labels", [1, 2])
def test_an_adapter_with_a_head_of_its_own_needs_no_head_in_its_base(labels: int, base: Tiny, tmp_path: Path):
    settings = lora(task_type="SEQ_CLS", modules_to_save=["score"])
    kind = AutoModelForSequenceClassification
    pad = base.tokenizer.pad_token_id
    adapted = save_adapter(tmp_path / "adapter", base.folder, settings, kind=kind, num_labels=labels, pad_token_id=pad)

    reranker = Reranker.load(tmp_path / "adapter", recipe="qwen3-reranker")

    expected = [value if labels == 1 else -value for value in unmerged_logits(adapted, reranker, None)]
    assert reranker.logits(QUERY, DOCUMENTS) == pytest.approx(expected, abs=1e-4)
    assert reranker.recipe.read_out is None


def test_a_head_that_old_versions_of_peft_do_not_list_is_used(tied: Tiny, tmp_path: Path):
    pad = {"num_labels": 1, "pad_token_id": tied.tokenizer.pad_token_id}
    settings = lora(task_type="SEQ_CLS")
    adapted = save_adapter(tmp_path / "adapter", tied.folder, settings, kind=AutoModelForSequenceClassification, **pad)
    change(tmp_path / "adapter", modules_to_save=None)

    check_equal(tmp_path / "adapter", adapted, None)


def change(folder: Path, **fields: object) -> Path:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))
    return folder


def test_a_task_of_classification_without_a_head_is_refused(tied: Tiny, tmp_path: Path):
    save_adapter(tmp_path / "adapter", tied.folder, lora())
    change(tmp_path / "adapter", task_type="SEQ_CLS")

    with pytest.raises(CheckpointError, match=r"lacks 1 weight of its model, such as score\.weight"):
        Reranker.load(tmp_path / "adapter")


@pytest.mark.parametrize("task", ["SEQ_CLS", "CAUSAL_LM", None])
def test_a_base_with_a_head_keeps_it_or_takes_the_adapters(
    task: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    tokenizer = causal_checkpoint(tmp_path / "causal").tokenizer
    shape = {"num_key_value_heads": 1, "head_dim": 32}
    base = native_checkpoint(tmp_path / "base", Qwen3Config, tokenizer, num_labels=1, **shape)
    settings = lora(task_type=None, modules_to_save=["score"] if task == "SEQ_CLS" else None)
    adapted = save_adapter(tmp_path / "adapter", base, settings, kind=AutoModelForSequenceClassification)
    change(tmp_path / "adapter", task_type=task)
    reranker = Reranker.load(tmp_path / "adapter", recipe="qwen3-reranker")

    expected = unmerged_logits(adapted, reranker, None)

    assert reranker.logits(QUERY, DOCUMENTS) == pytest.approx(expected, abs=1e-4)
    assert ("adapter of a language model" in caplog.text) == (task == "CAUSAL_LM")


def test_an_encoders_adapter_is_merged_and_exported(tmp_path: Path):
    tokenizer = pair_tokenizer("[CLS]", "[SEP]", "[SEP]", has_types=True)
    base = native_checkpoint(tmp_path / "bert", BertConfig, tokenizer, num_labels=1)
    settings = lora(target_modules=["query", "value"], task_type="SEQ_CLS")
    adapted = save_adapter(tmp_path / "adapter", base, settings, kind=AutoModelForSequenceClassification)
    inputs = tokenizer([[*pair] for pair in PAIRS], padding=True, return_tensors="pt")
    with torch.inference_mode():
        expected = adapted(**inputs).logits[:, 0].tolist()

    reranker = Reranker.load(tmp_path / "adapter")
    reranker.save(tmp_path / "exported")

    assert reranker.logits(QUERY, DOCUMENTS) == pytest.approx(expected, abs=1e-4)
    assert Reranker.load(tmp_path / "exported").logits(QUERY, DOCUMENTS) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("with_own_head", [True, False], ids=["own head", "head of the base"])
def test_a_cross_encoders_adapter_is_merged(with_own_head: bool, tmp_path: Path):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    tokenizer = pair_tokenizer("[CLS]", "[SEP]", "[SEP]", has_types=True)
    base = native_checkpoint(tmp_path / "bert", BertConfig, tokenizer, num_labels=1)
    model = sentence_transformers.CrossEncoder(str(base), device="cpu")
    head = ["classifier"] if with_own_head else None
    model.add_adapter(lora(target_modules=["query"], task_type="SEQ_CLS", modules_to_save=head))
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data += 0.1
    model.save_pretrained(str(tmp_path / "adapter"))
    expected = model.predict(PAIRS, activation_fn=torch.nn.Identity()).tolist()

    reranker = Reranker.load(tmp_path / "adapter")

    assert reranker.logits(QUERY, DOCUMENTS) == pytest.approx(expected, abs=1e-4)


def test_weights_are_merged_in_float32_and_rounded_once(tied: Tiny, tmp_path: Path):
    model = AutoModelForCausalLM.from_pretrained(tied.folder, dtype=torch.bfloat16)
    model.save_pretrained(tmp_path / "base")
    tied.tokenizer.save_pretrained(tmp_path / "base")
    (tmp_path / "base" / "README.md").write_text(CARD["README.md"])
    save_adapter(tmp_path / "adapter", tmp_path / "base", lora(modules_to_save=["lm_head"]), dtype=torch.bfloat16)
    exact = Reranker.load(tmp_path / "adapter", dtype="float32")

    rounded = Reranker.load(tmp_path / "adapter", dtype="bfloat16")

    layers = dict(rounded.classifier.named_parameters())
    assert {name for name, each in layers.items() if each.dtype != torch.bfloat16} == {"score.weight"}
    for name, each in exact.classifier.named_parameters():
        assert torch.equal(layers[name], each if name == "score.weight" else each.bfloat16())
