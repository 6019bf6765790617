"""Haystack ranker that reranks with a decoder language model."""

from haystack_integrations.components.rankers.onelogit.ranker import OnelogitRanker

__all__ = ["OnelogitRanker"]
