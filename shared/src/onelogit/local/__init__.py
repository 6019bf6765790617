"""Reranking with a model in this process."""
