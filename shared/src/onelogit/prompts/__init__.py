"""Texts -> the token ids of prompts."""
