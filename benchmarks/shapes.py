"""The shapes of the models that are benchmarked, as configurations of transformers."""

from typing import Any, NamedTuple

from transformers import GemmaConfig, PretrainedConfig, Qwen2Config, Qwen3Config, XLMRobertaConfig


class Shape(NamedTuple):
    """The numbers that determine the cost of a model, with tied embeddings; their source; the family of its recipe."""

    family: str
    config: PretrainedConfig
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


def _qwen2(layers: int, hidden: int, intermediate: int, heads: int) -> Qwen2Config:
    return Qwen2Config(
        vocab_size=151936,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=2,
        head_dim=hidden // heads,
        max_position_embeddings=32768,
        rope_theta=1_000_000.0,
        tie_word_embeddings=True,
    )


def changed(config: PretrainedConfig, **changes: Any) -> Any:
    """A configuration with other values."""
    fields = config.to_dict()
    if "layer_types" in fields:
        fields["layer_types"] = None  # one per layer, by default
    return type(config).from_dict({**fields, **changes})


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
    "qwen3-8b": Shape(
        "qwen3-reranker",
        _config(layers=36, hidden=4096, intermediate=12288, heads=32, key_value_heads=8),
        "https://huggingface.co/Qwen/Qwen3-Reranker-8B (its embeddings are not tied, which costs no time)",
    ),
    "mxbai-base": Shape(
        "mxbai-rerank-v2",
        _qwen2(layers=24, hidden=896, intermediate=4864, heads=14),
        "https://huggingface.co/mixedbread-ai/mxbai-rerank-base-v2: Qwen2.5-0.5B",
    ),
    "mxbai-large": Shape(
        "mxbai-rerank-v2",
        _qwen2(layers=28, hidden=1536, intermediate=8960, heads=12),
        "https://huggingface.co/mixedbread-ai/mxbai-rerank-large-v2: Qwen2.5-1.5B",
    ),
    "bge-gemma": Shape(
        "bge-reranker-v2-gemma",
        GemmaConfig(
            vocab_size=256000,
            hidden_size=2048,
            intermediate_size=16384,
            num_hidden_layers=18,
            num_attention_heads=8,
            num_key_value_heads=1,
            head_dim=256,
        ),
        "https://huggingface.co/BAAI/bge-reranker-v2-gemma: Gemma 2b",
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

# Encoders have no recipe: the tokenizer joins query and document.
ENCODER_SHAPES = {
    "bge-m3": Shape(
        "",
        XLMRobertaConfig(
            vocab_size=250002,
            hidden_size=1024,
            intermediate_size=4096,
            num_hidden_layers=24,
            num_attention_heads=16,
            max_position_embeddings=8194,
            type_vocab_size=1,
            layer_norm_eps=1e-5,
            num_labels=1,
        ),
        "https://huggingface.co/BAAI/bge-reranker-v2-m3: XLM-RoBERTa large with 8,192 positions",
    ),
}
