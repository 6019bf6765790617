"""Attention over a batch in which rows share prefixes, with a backend for each kind of device."""
