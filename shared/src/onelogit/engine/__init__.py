"""Rows of token ids -> logits: prefix sharing, batching, caching and scheduling.

prefix_tree, state_tree, device_transfer, allocator -> attention -> kv_cache -> prefix_cache, state_cache -> forward ->
tree_progress -> directions -> padding -> fused_ops, optimize, packed, memory -> model_runner -> scheduler
"""
