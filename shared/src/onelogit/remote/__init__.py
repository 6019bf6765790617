"""Reranking with a model on a server.

endpoint, protocols, event_loop, http_errors -> client -> request_builder -> scorer -> reranker (RemoteReranker)
"""
