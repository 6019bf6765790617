"""LangChain document compressor and retriever that rerank with a decoder language model."""

from langchain_onelogit.compressor import OnelogitRerank, RerankInput, RerankRunnable
from langchain_onelogit.retriever import RerankRetriever

__all__ = ["OnelogitRerank", "RerankInput", "RerankRetriever", "RerankRunnable"]
