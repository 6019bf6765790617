"""tei-client, which reads /info before it ranks."""

import asyncio

from exchange import KEY, URL, request, respond
from tei_client import HttpClient

query, documents = request()
client = HttpClient(URL, headers={"Authorization": f"Bearer {KEY}"})
asked = {"query": query, "texts": documents}


def scores(answer):
    return [[each.index, each.score] for each in answer.ranks]


info, with_texts = client.info(), client.rerank(**asked, return_text=True)
assert client.health()
assert not HttpClient(URL, headers={"Authorization": "Bearer wrong"}).health()
assert (info.server_model_type.value, info.server_model_id) == ("reranker", "demo")
respond(
    refusing=scores(client.rerank(**asked, truncate=False)),
    truncating=scores(client.rerank(**asked, truncate=True)),
    asynchronous=scores(asyncio.run(client.async_rerank(**asked))),
    logits=scores(client.rerank(**asked, raw_scores=True)),
    texts=[[each.index, each.text] for each in with_texts.ranks],
)
