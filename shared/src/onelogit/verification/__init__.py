"""A conversion and its original -> whether both give the same prompts, token ids and logits.

pairs -> original, converted -> comparison -> parity -> report
"""
