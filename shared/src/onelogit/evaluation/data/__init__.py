"""Files with relevance judgements -> a dataset."""
