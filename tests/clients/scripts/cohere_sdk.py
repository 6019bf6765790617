"""The cohere SDK, versions 1 and 2 of its form, sync and async, and its exceptions."""

import asyncio

import cohere
from exchange import KEY, MODEL, URL, request, respond

query, documents = request()
v1, v2 = cohere.Client(KEY, base_url=URL), cohere.ClientV2(KEY, base_url=URL)


def scores(answer):
    return [[each.index, each.relevance_score] for each in answer.results]


def raised(client, **changes):
    try:
        client.rerank(**{"model": MODEL, "query": query, "documents": documents, **changes})
    except cohere.core.ApiError as error:
        return [type(error).__name__, error.status_code, error.body["message"]]
    return None


async def asynchronous(kind):
    async with kind(KEY, base_url=URL) as client:
        return scores(await client.rerank(model=MODEL, query=query, documents=documents))


objects = [{"text": text} for text in documents]
first = v1.rerank(model=MODEL, query=query, documents=documents, return_documents=True)
respond(
    v1=scores(first),
    v1_objects=scores(v1.rerank(model=MODEL, query=query, documents=objects)),
    v1_named_field=scores(v1.rerank(model=MODEL, query=query, documents=objects, rank_fields=["text"])),
    v1_async=asyncio.run(asynchronous(cohere.AsyncClient)),
    v2_async=asyncio.run(asynchronous(cohere.AsyncClientV2)),
    logits=[[each.index, each.logit] for each in first.results],
    v2=scores(v2.rerank(model=MODEL, query=query, documents=documents)),
    v2_top=scores(v2.rerank(model=MODEL, query=query, documents=documents, top_n=2)),
    texts=[[each.index, each.document.text] for each in first.results],
    wrong_key=raised(cohere.ClientV2("wrong", base_url=URL)),
    wrong_model=raised(v2, model="absent"),
    no_documents=raised(v1, documents=[]),
    other_field=raised(v1, documents=objects, rank_fields=["title"]),
    too_many=raised(v2, documents=documents * 500),
)
