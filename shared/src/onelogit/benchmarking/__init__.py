"""Latency and throughput of a reranker on the machine that will run it, and how reliable the numbers are."""
