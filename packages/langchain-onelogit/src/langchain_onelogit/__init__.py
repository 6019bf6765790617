"""LangChain document compressor that reranks with a decoder language model."""

from langchain_onelogit.compressor import OnelogitRerank

__all__ = ["OnelogitRerank"]
