"""Decoders that attend in both directions, with a pooled head: the logits of NeMo Automodel's code, and refusals."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GemmaConfig,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from onelogit import CheckpointError, ReadOut, Recipe, RecipeError, Reranker, UnsupportedModelError
from onelogit.checkpoints.recipe_choice import resolve_recipe
from onelogit.conversion.classifier import PooledClassifier
from onelogit.conversion.head import Float32Head
from onelogit.engine.model_runner import ModelRunner
from support.bidirectional import Rows, backbone_of, save_bidirectional, their_logits
from support.tiny import causal_checkpoint, gemma_tokenizer

QUERY = "What is the capital of China?"
DOCUMENTS = ["The capital of China is Beijing.", "서울", "Bananas are yellow. " * 20, "", "Paris"]
FAMILY = "llama-nemotron-rerank"
WINDOW = {"sliding_window": 40}
ARCHITECTURES: dict[str, tuple[type[PretrainedConfig], dict[str, Any]]] = {
    "llama": (LlamaConfig, {}),
    "llama, of a native model type": (LlamaConfig, {"model_type": "llama", "auto_map": None}),
    "qwen2": (Qwen2Config, {"model_type": "qwen2_bidirec"}),
    "qwen3": (Qwen3Config, {"model_type": "qwen3_bidirectional"}),
    "qwen3, a native class": (
        Qwen3Config,
        {"model_type": "qwen3", "architectures": ["Qwen3ForSequenceClassification"], "is_causal": False},
    ),
    "mistral, in a window": (MistralConfig, {"model_type": "mistral_bidirec", **WINDOW}),
    "gemma": (GemmaConfig, {"model_type": "gemma_bidirec"}),
}


def rows_of(reranker: Reranker) -> Rows:
    """The prompts of the model card, each tokenised as a whole."""
    tokenizer = reranker._scorer.tokenizer
    return [tokenizer(f"question:{QUERY} \n \n passage:{text}")["input_ids"] for text in DOCUMENTS]


def first(logits: list[list[float]], side: str | None = None) -> Any:
    """The first label's logits. Padding at the left shifts positions, which rotary embeddings round differently."""
    return pytest.approx([each[0] for each in logits], abs=5e-5 if side == "left" else 1e-5, rel=1e-5)


@pytest.mark.parametrize(("pooling", "temperature"), [("avg", 1.0), ("cls", 0.5), ("last", 3)])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_logits_are_those_of_the_original_alone_and_in_batches(
    name: str, pooling: str, temperature: float, tmp_path: Path
):
    config_class, fields = ARCHITECTURES[name]
    folder = save_bidirectional(
        tmp_path / "model",
        config_class,
        tokenizer=gemma_tokenizer() if config_class is GemmaConfig else None,
        **{"pooling": pooling, "temperature": temperature, **fields},
    )

    reranker = Reranker.load(folder, recipe=FAMILY)

    logits, rows = reranker.logits(QUERY, DOCUMENTS), rows_of(reranker)
    backbone = backbone_of(folder, config_class, **(WINDOW if config_class is MistralConfig else {}))
    for side in (None, "left", "right"):
        assert logits == first(their_logits(folder, backbone, rows, pooling, temperature, side), side)
    assert [reranker.logits(QUERY, [text])[0] for text in DOCUMENTS] == pytest.approx(logits, abs=1e-5)
    assert [[*row.ids] for row in reranker._scorer.rows([(QUERY, text) for text in DOCUMENTS], None)] == rows
    assert len({round(logit, 3) for logit in logits}) == len(DOCUMENTS)
    causal = backbone_of(folder, config_class, is_causal=True)
    assert logits != pytest.approx(
        [each[0] for each in their_logits(folder, causal, rows, pooling, temperature)], abs=0.01
    )


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("pooling", ["avg", "cls"])
def test_the_classifier_pools_tokens_that_are_padded_at_either_side(pooling: str, side: str, tmp_path: Path):
    folder = save_bidirectional(tmp_path / "model", pooling=pooling)
    reranker = Reranker.load(folder)
    rows = rows_of(reranker)[:2]
    length = max(map(len, rows))
    pads = [[0] * (length - len(row)) for row in rows]
    ids = [[*pad, *row] if side == "left" else [*row, *pad] for row, pad in zip(rows, pads, strict=True)]
    ones = [[1] * len(row) for row in rows]
    mask = [[*pad, *one] if side == "left" else [*one, *pad] for one, pad in zip(ones, pads, strict=True)]

    with torch.inference_mode():
        logits = reranker.classifier(input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask)).logits[:, 0]

    assert logits.tolist() == first(their_logits(folder, backbone_of(folder), rows, pooling), side)


def test_pooling_and_temperature_have_the_defaults_of_the_original(tmp_path: Path):
    folder = save_bidirectional(tmp_path / "model", pooling=None, temperature=None)
    reranker = Reranker.load(folder)

    expected = first(their_logits(folder, backbone_of(folder), rows_of(reranker), "avg"))
    assert reranker.logits(QUERY, DOCUMENTS) == expected


def test_a_class_for_both_directions_may_attend_in_one(tmp_path: Path):
    folder = save_bidirectional(tmp_path / "model", is_causal=True)
    reranker = Reranker.load(folder)

    backbone = backbone_of(folder, is_causal=True)
    assert reranker.logits(QUERY, DOCUMENTS) == first(their_logits(folder, backbone, rows_of(reranker), "avg"))


@pytest.mark.parametrize("pooling", ["avg", "last"])
def test_two_labels_and_a_bias_give_one_logit(pooling: str, tmp_path: Path):
    folder = save_bidirectional(
        tmp_path / "model",
        labels=2,
        bias=True,
        pooling=pooling,
        temperature=2.0,
        id2label={"0": "relevant", "1": "irrelevant"},
        label2id={"relevant": 0, "irrelevant": 1},
    )
    reranker = Reranker.load(folder)

    logits = their_logits(folder, backbone_of(folder), rows_of(reranker), pooling, 2.0)
    expected = [relevant - irrelevant for relevant, irrelevant in logits]
    assert reranker.logits(QUERY, DOCUMENTS) == pytest.approx(expected, abs=1e-5, rel=1e-5)


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16])
def test_weights_in_half_precision(stored: torch.dtype, tmp_path: Path):
    folder = save_bidirectional(tmp_path / "model", dtype=stored)
    exact = Reranker.load(folder, dtype="float32")

    reranker = Reranker.load(folder, dtype="bfloat16")

    logits = exact.logits(QUERY, DOCUMENTS)
    assert logits == first(their_logits(folder, backbone_of(folder), rows_of(exact), "avg"))
    assert {each.dtype for each in reranker.classifier.layers.parameters()} == {torch.float32}
    assert reranker.logits(QUERY, DOCUMENTS) == pytest.approx(logits, abs=0.3)


@pytest.mark.parametrize(
    ("architecture", "pooling", "is_pooled"),
    [
        ("LlamaForCausalLM", "mean", True),
        ("LlamaBidirectionalForCausalLM", "avg", True),
        ("LlamaForCausalLM", None, False),
        ("LlamaBidirectionalForCausalLM", None, False),
    ],
)
def test_answer_tokens_are_read_from_the_pooled_state(
    architecture: str, pooling: str | None, is_pooled: bool, template: str, tmp_path: Path
):
    folder = causal_checkpoint(tmp_path / "model", LlamaConfig, is_tied=False).folder
    change(folder, is_causal=False)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    change(folder, architectures=[architecture], pooling=pooling, is_causal=False, temperature=None)
    recipe = Recipe(family="mine", chat_template=template, read_out=ReadOut(true="yes", false="no"), source="this test")

    reranker = Reranker.load(folder, recipe=recipe)

    yes, no = (reranker._scorer.tokenizer.encode(word)[0] for word in ("yes", "no"))
    expected = []
    for row in reranker._scorer.rows([(QUERY, text) for text in DOCUMENTS], None):
        with torch.inference_mode():
            logits = model(torch.tensor([row.ids])).logits[0]
        state = logits.mean(dim=0) if is_pooled else logits[-1]
        expected.append(float(state[yes] - state[no]))
    assert reranker.logits(QUERY, DOCUMENTS) == pytest.approx(expected, abs=1e-5, rel=1e-5)


def test_no_prefix_is_shared(tmp_path: Path):
    for pooling, kind in (("avg", PooledClassifier), ("last", None)):
        reranker = Reranker.load(save_bidirectional(tmp_path / pooling, pooling=pooling), document_cache_bytes=2**20)

        assert not ModelRunner(reranker.classifier).shares_prefixes
        assert kind is None or isinstance(reranker.classifier, kind)
    assert isinstance(reranker.classifier.score, Float32Head)


def change(folder: Path, **fields: object) -> None:
    config = {**json.loads((folder / "config.json").read_text()), **fields}
    (folder / "config.json").write_text(
        json.dumps({name: value for name, value in config.items() if value is not None})
    )


@pytest.mark.parametrize("pooling", ["max", "weighted_avg", "AVG", "", 3, ["avg"]])
@pytest.mark.parametrize(
    "architecture", ["LlamaBidirectionalForSequenceClassification", "LlamaForSequenceClassification"]
)
def test_an_unknown_pooling_is_refused(architecture: str, pooling: object, tmp_path: Path):
    folder = save_bidirectional(tmp_path / "model", pooling=pooling, architectures=[architecture], is_causal=False)
    (folder / "model.safetensors").unlink()  # no weights are read

    with pytest.raises(UnsupportedModelError) as error:
        Reranker.load(folder, recipe=FAMILY)

    assert f"'{folder}': pooling={pooling!r} in config.json is unknown; onelogit pools by avg, mean, cls" in str(
        error.value
    )


@pytest.mark.parametrize("temperature", [0, 0.0, -1.0, "1.0", True, math.nan, math.inf, [1.0]])
def test_a_temperature_that_is_no_number_above_zero_is_refused(temperature: object, tmp_path: Path):
    folder = save_bidirectional(tmp_path / "model", temperature=temperature)
    (folder / "model.safetensors").unlink()

    with pytest.raises(CheckpointError) as error:
        Reranker.load(folder)

    assert f"temperature={temperature!r} in config.json: logits are divided by it" in str(error.value)


@pytest.mark.parametrize(
    ("architecture", "model_type", "complaint"),
    [
        ("LlamaBidirectionalModel", "llama_bidirec", "an embedding model"),
        ("Ministral3BidirectionalModel", "ministral3_bidirec", "an embedding model"),
        ("LlamaNemotronVLForSequenceClassification", "llama_nemotron_vl", "multimodal.* or serve it with vLLM"),
        ("Mistral3VLBidirectionalForSequenceClassification", "mistral3_bidirec", "multimodal"),
    ],
)
def test_what_is_no_text_reranker_is_refused(architecture: str, model_type: str, complaint: str, tmp_path: Path):
    folder = save_bidirectional(tmp_path / "model", architectures=[architecture], model_type=model_type)

    with pytest.raises(UnsupportedModelError, match=complaint):
        Reranker.load(folder, recipe=FAMILY)


def test_a_backbone_that_transformers_lacks_is_refused(tmp_path: Path):
    architecture = "FooBidirectionalForSequenceClassification"
    folder = save_bidirectional(tmp_path / "model", architectures=[architecture], model_type="foo_bidirec")

    with pytest.raises(CheckpointError, match="its own Python code .*transformers has no foo"):
        Reranker.load(folder, recipe=FAMILY)


CONFIG = '{"architectures": ["LlamaBidirectionalForSequenceClassification"], "model_type": "llama_bidirec"}'


@pytest.mark.parametrize(
    ("model", "because", "licence"),
    [
        ("nvidia/llama-nemotron-rerank-1b-v2", "its id", "nvidia-open-model-license, llama3.2"),
        ("me/my-cross-encoder", "its class LlamaBidirectionalForSequenceClassification", None),
    ],
)
def test_the_family_is_known_by_the_id_or_the_class(model: str, because: str, licence: str | None):
    found = resolve_recipe(model, {"config.json": CONFIG})

    assert f"by {because}, of the family {FAMILY}" in found.because
    assert (found.recipe.family, found.recipe.licence, found.recipe.activation) == (FAMILY, licence, "identity")
    assert found.recipe.max_tokens == 8192


def test_a_multimodal_model_of_a_similar_name_is_refused():
    with pytest.raises(RecipeError, match="multimodal"):
        resolve_recipe("nvidia/llama-nemotron-rerank-vl-1b-v2", {"config.json": "{}"})


# As nemo_automodel 0.7.0 saves the prompt of its training data, for Sentence Transformers.
NEMO_TEMPLATE = (
    "{%- if messages | length != 2 or messages[0]['role'] != 'query' or messages[1]['role'] != 'document' -%}"
    "{{- raise_exception('Reranking requires a query followed by a document') -}}{%- endif -%}"
    '{{- "<s>" + "Frage: {query}\\n\\nAbsatz: {passage}"'
    ".format(query=messages[0]['content'], passage=messages[1]['content']) + \"\" -}}"
)


def test_the_prompt_that_the_files_declare_is_used(tmp_path: Path):
    folder = save_bidirectional(tmp_path / "model")
    forward = {"method": "forward", "method_output_name": "logits"}
    files: dict[str, Any] = {
        "modules.json": [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"}
        ],
        "config_sentence_transformers.json": {
            "model_type": "CrossEncoder",
            "activation_fn": "torch.nn.modules.linear.Identity",
            "prompts": {},
            "default_prompt_name": None,
        },
        "sentence_bert_config.json": {
            "transformer_task": "sequence-classification",
            "modality_config": {"text": forward, "message": {**forward, "format": "flat"}},
            "module_output_name": "scores",
            "unpad_inputs": False,
            "processing_kwargs": {"chat_template": {"chat_template": "reranking"}},
        },
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "reranking.jinja").write_text(NEMO_TEMPLATE)

    reranker = Reranker.load(folder)

    rows = [reranker._scorer.tokenizer(f"Frage: {QUERY}\n\nAbsatz: {text}")["input_ids"] for text in DOCUMENTS]
    assert reranker.prompt("{query}", "{0}").text == "<s>Frage: {query}\n\nAbsatz: {0}"
    assert reranker.logits(QUERY, DOCUMENTS) == first(their_logits(folder, backbone_of(folder), rows, "avg"))
