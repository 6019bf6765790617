"""Classifiers of real architectures with random weights, rows for them, and a count of the tokens they compute."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
    Qwen3_5TextConfig,
)

from onelogit.conversion.classifier import sequence_classifier
from onelogit.conversion.head import Float32Head
from onelogit.engine.attention.context import _active
from onelogit.prompts.token_rows import TokenRow

FIELDS = {
    "vocab_size": 400,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": None,
    "initializer_range": 0.1,
}


def classifier_of(config_class: type[PretrainedConfig], **fields: object) -> PreTrainedModel:
    torch.manual_seed(3)
    backbone = AutoModel.from_config(config_class(**{**FIELDS, **fields})).eval()
    return sequence_classifier(backbone, Float32Head(torch.randn(1, 64) / 8), 0)


def recurrent_classifier() -> PreTrainedModel:
    """Qwen3.5, with one layer of three that attends."""
    sizes = {f"linear_num_{kind}_heads": 2 for kind in ("key", "value")}
    sizes |= {f"linear_{kind}_head_dim": 16 for kind in ("key", "value")}
    layer_types = ["linear_attention", "full_attention", "linear_attention"]
    return classifier_of(Qwen3_5TextConfig, layer_types=layer_types, **sizes)


def encoder_of(config_class: type[PretrainedConfig], **fields: object) -> PreTrainedModel:
    """An encoder with its own head."""
    torch.manual_seed(3)
    shape = {key: value for key, value in FIELDS.items() if "head" not in key} | {"num_attention_heads": 4}
    return AutoModelForSequenceClassification.from_config(config_class(num_labels=1, **{**shape, **fields})).eval()


def random_rows(count: int, seed: int = 1) -> list[TokenRow]:
    """Rows that share prefixes of any length."""
    chance = random.Random(seed)
    rows = [[chance.randrange(3, 400) for _ in range(chance.randint(1, 40))]]
    for _ in range(count - 1):
        parent = chance.choice(rows)
        own = [chance.randrange(3, 400) for _ in range(chance.randint(1, 40))]
        rows.append([*parent[: chance.randint(0, len(parent))], *own][:90])
    return [TokenRow(tuple(row)) for row in rows]


@contextmanager
def tokens_seen(classifier: PreTrainedModel, module: str = "model.embed_tokens") -> Iterator[list[int]]:
    """How many tokens each forward pass sends through a module, not counting padding."""
    seen: list[int] = []

    def note(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        context, count = _active.get(), output.shape[:-1].numel()
        seen.append(len(context.batch.ids) if context is not None and count == context.padded_length else count)

    hook = classifier.get_submodule(module).register_forward_hook(note)
    yield seen
    hook.remove()
