"""Texts -> the token ids of prompts.

token_rows -> layout (parts, spans) -> template -> tokenizer, boundaries, chunking -> encoder
"""
