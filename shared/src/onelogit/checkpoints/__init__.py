"""A model's id or folder -> its files, its recipe, and its weights and tokenizer.

device, tensor_names -> head_weights -> weights;  labels, vocabulary, native_classes (of the loader)
odd_paths -> hub;  metadata, module_chain -> declaration, known_family;  declaration -> bidirectional -> native_classes
declaration -> adapter;  declaration, known_family -> refusals -> recipe_choice
hub, recipe_choice -> resolve -> load_encoder, fingerprint (both without weights), loader (with weights)
"""
