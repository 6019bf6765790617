"""A model's id or folder -> its files, its recipe, and its weights and tokenizer."""
