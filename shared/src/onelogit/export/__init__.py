"""A loaded classifier -> a folder that other libraries and servers load without flags.

probe, model_card, metadata, pooled -> exporter -> multi_label
"""
