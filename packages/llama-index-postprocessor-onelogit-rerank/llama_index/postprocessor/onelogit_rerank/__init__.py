"""LlamaIndex node postprocessor that reranks with a decoder language model."""

from llama_index.postprocessor.onelogit_rerank.base import OnelogitRerank

__all__ = ["OnelogitRerank"]
