"""Rows of token ids -> logits: prefix sharing, batching, caching and scheduling."""
