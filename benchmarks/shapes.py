"""The shapes of the models that are benchmarked, as configurations of transformers."""

from typing import Any, NamedTuple

from transformers import Qwen3Config


class Shape(NamedTuple):
    """The numbers that determine the cost of a model, with tied embeddings; their source; the family of its recipe."""

    family: str
    config: Qwen3Config
    source: str


def _config(layers: int, hidden: int, intermediate: int, heads: int, key_value_heads: int) -> Qwen3Config:
    return Qwen3Config(
        vocab_size=151669,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_value_heads,
        head_dim=128,
        max_position_embeddings=40960,
        rope_theta=1_000_000.0,
        tie_word_embeddings=True,
    )


def changed(config: Qwen3Config, **changes: Any) -> Qwen3Config:
    """A configuration with other values."""
    return Qwen3Config.from_dict({**config.to_dict(), "layer_types": None, **changes})  # one per layer, by default


SHAPES = {
    "qwen3-0.6b": Shape(
        "qwen3-reranker",
        _config(layers=28, hidden=1024, intermediate=3072, heads=16, key_value_heads=8),
        "https://huggingface.co/Qwen/Qwen3-Reranker-0.6B (595,776,512 parameters, tied)",
    ),
    "qwen3-4b": Shape(
        "qwen3-reranker",
        _config(layers=36, hidden=2560, intermediate=9728, heads=32, key_value_heads=8),
        "https://huggingface.co/Qwen/Qwen3-Reranker-4B (4,021,784,576 parameters, tied)",
    ),
    "ctxl-1b": Shape(
        "ctxl-rerank-v2",
        _config(layers=14, hidden=2048, intermediate=6144, heads=16, key_value_heads=8),
        "https://huggingface.co/ContextualAI/ctxl-rerank-v2-instruct-multilingual-1b: 14 layers, 8 key-value heads of "
        "128; the widths are Qwen3-1.7B's, which give the 1.0 billion parameters of its name in 14 layers",
    ),
    "tiny": Shape(
        "qwen3-reranker",
        changed(
            _config(layers=2, hidden=64, intermediate=128, heads=4, key_value_heads=2), head_dim=32, vocab_size=8192
        ),
        "not a real model: for checking that the scripts run",
    ),
}
