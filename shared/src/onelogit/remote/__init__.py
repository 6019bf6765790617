"""Reranking with a model on a server."""
