"""Infinity's own client, and LangChain's InfinityRerank, which uses it."""

import asyncio

from exchange import KEY, MODEL, URL, request, respond
from infinity_client import AuthenticatedClient, Client
from infinity_client.api.default import rerank
from infinity_client.errors import UnexpectedStatus
from infinity_client.models import RerankInput
from langchain_community.document_compressors.infinity_rerank import InfinityRerank
from langchain_core.documents import Document

query, documents = request()
client = AuthenticatedClient(base_url=URL, token=KEY, raise_on_unexpected_status=True)


def asked(**changes):
    return RerankInput(**{"query": query, "documents": documents, "model": MODEL, **changes})


def scores(answer):
    assert answer.usage.prompt_tokens > 0
    assert answer.created > 0
    return [[each.index, each.relevance_score] for each in answer.results]


def compressed():
    bearer = {"Authorization": f"Bearer {KEY}"}  # it takes a Client only, which has no token
    compressor = InfinityRerank(client=Client(base_url=URL, headers=bearer), model=MODEL, top_n=len(documents))
    given = [Document(page_content=text, metadata={"place": place}) for place, text in enumerate(documents)]
    found = compressor.compress_documents(given, query)
    return [[each.metadata["place"], each.metadata["relevance_score"]] for each in found]


def raised(used, **changes):
    try:
        rerank.sync(client=used, body=asked(**changes))
    except UnexpectedStatus as error:
        return [type(error).__name__, str(error)]
    return None


with_documents = rerank.sync(client=client, body=asked(return_documents=True))
respond(
    infinity=scores(rerank.sync(client=client, body=asked())),
    infinity_async=scores(asyncio.run(rerank.asyncio(client=client, body=asked()))),
    infinity_documents=scores(with_documents),
    v2_top=scores(rerank.sync(client=client, body=asked(top_n=2))),
    logits=scores(rerank.sync(client=client, body=asked(raw_scores=True))),
    langchain=compressed(),
    texts=[[each.index, each.document["text"]] for each in with_documents.results],
    wrong_key=raised(AuthenticatedClient(base_url=URL, token="wrong", raise_on_unexpected_status=True)),
    wrong_model=raised(client, model="absent"),
)
