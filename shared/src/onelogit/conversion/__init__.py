"""A language model's head -> a head with one logit, on a classifier of transformers.

head (tensor algebra) -> own_head (labels, checks) -> classifier
"""
