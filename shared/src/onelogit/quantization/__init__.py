"""Linear layers of a model on a CPU -> the same layers in 8 bits.

int8_linear -> processor, smoothing -> quantise
"""
