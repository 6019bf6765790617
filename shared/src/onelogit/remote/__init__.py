"""Reranking with a model on a server.

environment -> event_loop; endpoint, protocols, event_loop, http_errors -> client -> request_builder -> scorer ->
reranker (RemoteReranker)
"""
