"""Reranking with a local model.

scorer (pairs -> logits) -> reranker (Reranker)
"""
