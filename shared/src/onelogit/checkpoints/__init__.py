"""A model's id or folder -> its files, its recipe, and its weights and tokenizer.

device -> head_weights -> weights
hub, metadata, module_chain -> resolve -> load_encoder, fingerprint (both without weights), loader (with weights)
"""
