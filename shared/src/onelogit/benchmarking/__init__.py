"""How fast a reranker is where it will run: calls of many sizes, timed, and what the times allow to be said."""
