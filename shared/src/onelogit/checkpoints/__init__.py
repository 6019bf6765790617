"""A model's id or folder -> its files, its recipe, and its weights and tokenizer.

odd_paths -> hub;  metadata -> module_chain -> declaration -> known_family, text_backbone, bidirectional
hub, declaration -> adapter;  known_family, text_backbone -> refusals -> recipe_choice
adapter, recipe_choice -> resolve -> load_encoder -> fingerprint, model_state (all without weights)
tensor_names, text_backbone, bidirectional -> native_classes;  device, labels, vocabulary
native_classes, head_weights -> weights -> lora -> load_adapted -> loader (with weights)
"""
