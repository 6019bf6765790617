"""Linear layers of a model on a CPU -> the same layers in 8 bits.

processor, int8_linear -> quantise
"""
