"""LangChain document compressor and retriever that rerank with a decoder language model."""

from langchain_onelogit.compressor import OnelogitRerank, RerankInput
from langchain_onelogit.retriever import RerankRetriever

__all__ = ["OnelogitRerank", "RerankInput", "RerankRetriever"]
