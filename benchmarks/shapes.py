"""The shapes of the models that are benchmarked, and their configurations."""

from dataclasses import dataclass

from transformers import Qwen3Config


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The numbers that determine the cost of a model.

    Attributes:
        family: of the recipe that the checkpoint declares.
        source: of the numbers.
    """

    family: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    key_value_heads: int
    head_dim: int = 128
    vocabulary: int = 151669
    source: str


SHAPES = {
    "qwen3-0.6b": Shape(
        family="qwen3-reranker",
        layers=28,
        hidden=1024,
        intermediate=3072,
        heads=16,
        key_value_heads=8,
        source="https://huggingface.co/Qwen/Qwen3-Reranker-0.6B (595,776,512 parameters, tied)",
    ),
    "qwen3-4b": Shape(
        family="qwen3-reranker",
        layers=36,
        hidden=2560,
        intermediate=9728,
        heads=32,
        key_value_heads=8,
        source="https://huggingface.co/Qwen/Qwen3-Reranker-4B (4,021,784,576 parameters, tied)",
    ),
    "ctxl-1b": Shape(
        family="ctxl-rerank-v2",
        layers=14,
        hidden=2048,
        intermediate=6144,
        heads=16,
        key_value_heads=8,
        source="https://huggingface.co/ContextualAI/ctxl-rerank-v2-instruct-multilingual-1b: 14 layers, 8 key-value "
        "heads of 128; the widths are Qwen3-1.7B's, which give the 1.0 billion parameters of its name in 14 layers",
    ),
    "tiny": Shape(
        family="qwen3-reranker",
        layers=2,
        hidden=64,
        intermediate=128,
        heads=4,
        key_value_heads=2,
        head_dim=32,
        vocabulary=8192,
        source="not a real model: for checking that the scripts run",
    ),
}


def config_of(shape: Shape, layers: int, *, is_tied: bool) -> Qwen3Config:
    """The shape as a configuration of transformers."""
    return Qwen3Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        head_dim=shape.head_dim,
        max_position_embeddings=40960,
        rope_theta=1_000_000.0,
        tie_word_embeddings=is_tied,
    )


def shape_of(config: Qwen3Config, family: str) -> Shape:
    """The shape of a configuration."""
    return Shape(
        family=family,
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        intermediate=config.intermediate_size,
        heads=config.num_attention_heads,
        key_value_heads=config.num_key_value_heads,
        head_dim=config.head_dim,
        vocabulary=config.vocab_size,
        source="the model's own configuration",
    )
