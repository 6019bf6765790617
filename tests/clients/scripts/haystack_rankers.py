"""Haystack's Cohere, TEI and Jina rankers."""

from exchange import KEY, MODEL, URL, request, respond
from haystack import Document
from haystack.utils import Secret
from haystack_integrations.components.rankers.cohere import CohereRanker
from haystack_integrations.components.rankers.huggingface_api import HuggingFaceTEIRanker
from haystack_integrations.components.rankers.jina import JinaRanker

query, documents = request()
key, count = Secret.from_token(KEY), len(documents)


def scores(ranker):
    given = [Document(id=str(place), content=text) for place, text in enumerate(documents)]
    return [[int(each.id), each.score] for each in ranker.run(query=query, documents=given, top_k=count)["documents"]]


def raised(ranker):
    try:
        scores(ranker)
    except Exception as error:
        return [type(error).__name__, str(error)]
    return None


wrong = Secret.from_token("wrong")
respond(
    cohere=scores(CohereRanker(model=MODEL, api_key=key, api_base_url=URL)),
    tei=scores(HuggingFaceTEIRanker(url=URL, token=key)),
    logits=scores(HuggingFaceTEIRanker(url=URL, token=key, raw_scores=True)),
    jina=scores(JinaRanker(model=MODEL, api_key=key, base_url=f"{URL}/v1/rerank")),
    tei_wrong_key=raised(HuggingFaceTEIRanker(url=URL, token=wrong, max_retries=0)),
    jina_wrong_model=raised(JinaRanker(model="absent", api_key=key, base_url=f"{URL}/v1/rerank")),
)
