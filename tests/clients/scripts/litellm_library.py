"""LiteLLM's rerank with the providers that speak a form of this server."""

import litellm
from exchange import KEY, MODEL, URL, request, respond

query, documents = request()


def scores(provider, **options):
    call = {"model": f"{provider}/{MODEL}", "query": query, "documents": documents, "api_base": URL, "api_key": KEY}
    answer = litellm.rerank(**call, **{"top_n": len(documents), **options})
    return [[each["index"], each["relevance_score"]] for each in answer.results]


def raised(**changes):
    call = {"model": f"cohere/{MODEL}", "query": query, "documents": documents, "api_base": URL, "api_key": KEY}
    try:
        litellm.rerank(**{**call, **changes})
    except Exception as error:
        return [type(error).__name__, str(error)]
    return None


respond(
    cohere=scores("cohere"),
    jina_ai=scores("jina_ai"),
    hosted_vllm=scores("hosted_vllm"),
    huggingface=scores("huggingface"),
    v2_top=scores("huggingface", top_n=2),
    infinity=scores("infinity", return_documents=False),
    wrong_key=raised(api_key="wrong"),
    wrong_model=raised(model="cohere/absent"),
)
