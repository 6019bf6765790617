"""The distributions whose versions stand beside figures."""

MEASURED = (
    *("onelogit", "torch", "triton", "transformers", "sentence-transformers", "tokenizers"),
    *("kernels", "flash-attn", "FlagEmbedding"),
)
