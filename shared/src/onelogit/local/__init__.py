"""Reranking with a local model."""
