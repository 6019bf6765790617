"""What a reranker does, in numbers: does it still compute what the original computes."""
