"""Rows of token ids -> logits: prefix sharing, batching, caching and scheduling.

prefix_tree, state_tree, device_transfer, allocator -> attention -> memory, kv_cache -> prefix_cache, state_cache ->
forward -> state_progress -> directions -> padding -> fused_ops, optimize, packed -> model_runner -> scheduler
"""
