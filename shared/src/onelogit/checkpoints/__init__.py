"""A model's id or folder -> its files, its recipe and its loaded parts."""
