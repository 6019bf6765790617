"""Encoders whose layers read padding: each row is computed alone, so that its logit is its own."""

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    CanineConfig,
    ConvBertConfig,
    DebertaV2Config,
    FNetConfig,
    LongformerConfig,
    NystromformerConfig,
    PretrainedConfig,
    PreTrainedModel,
)

from onelogit.conversion.classifier import PooledClassifier
from onelogit.engine.model_runner import ModelRunner
from onelogit.engine.padding import reads_padding
from onelogit.prompts.token_rows import TokenRow
from support.tiny import _SHAPE

READERS: dict[str, tuple[type[PretrainedConfig], dict[str, object]]] = {
    "convbert": (ConvBertConfig, {"embedding_size": 64}),
    "fnet": (FNetConfig, {}),
    "nystromformer": (NystromformerConfig, {}),
    "canine": (CanineConfig, {"bos_token_id": 1, "eos_token_id": 2}),
}
OTHERS: dict[str, tuple[type[PretrainedConfig], dict[str, object]]] = {
    "bert": (BertConfig, {}),
    "deberta with a convolution, which masks padding": (DebertaV2Config, {"conv_kernel_size": 3, "conv_act": "gelu"}),
    "longformer, which pads to its window": (LongformerConfig, {"attention_window": 32}),
}


def encoder(config_class: type[PretrainedConfig], fields: dict[str, object], std: float = 0.3) -> PreTrainedModel:
    torch.manual_seed(2)
    shape = {name: value for name, value in _SHAPE.items() if name not in ("num_key_value_heads", "head_dim")}
    config = config_class(
        **{**shape, "vocab_size": 400, "pad_token_id": 0, "num_labels": 1, "initializer_range": std, **fields}
    )
    return AutoModelForSequenceClassification.from_config(config).eval()


def rows() -> list[TokenRow]:
    return [TokenRow(tuple(range(3, 3 + length))) for length in (5, 90, 33, 34, 61, 12)]


@torch.inference_mode()
def alone(model: PreTrainedModel) -> list[float]:
    ids = [torch.tensor([row.ids]) for row in rows()]
    return [float(model(input_ids=each, attention_mask=torch.ones_like(each)).logits[0, 0]) for each in ids]


@pytest.mark.parametrize("std", [0.02, 0.3])
@pytest.mark.parametrize("name", READERS)
def test_rows_of_a_model_that_reads_padding_are_computed_one_by_one(name: str, std: float):
    model = encoder(*READERS[name], std=std)
    expected = alone(model)

    runner = ModelRunner(model, 10_000)

    assert not runner.packs_rows
    assert runner.logits(rows()) == pytest.approx(expected, abs=1e-5)


def test_layers_after_a_pooled_state_do_not_hide_that_the_backbone_reads_padding():
    model = encoder(*READERS["convbert"])

    assert reads_padding(PooledClassifier(model.convbert, "mean", torch.nn.Sequential(torch.nn.Linear(64, 1))).eval())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", OTHERS)
def test_other_models_compute_batches(name: str, dtype: torch.dtype):
    assert not reads_padding(encoder(*OTHERS[name]).to(dtype))
