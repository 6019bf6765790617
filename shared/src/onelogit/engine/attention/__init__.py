"""Attention over a batch in which rows share prefixes, with a backend for each kind of device.

backend (the interface) -> sdpa, products, flash_varlen -> context (the hooks into transformers)
visibility: the fields of configurations that change which tokens attend to which, and whether prefixes can be shared
"""
