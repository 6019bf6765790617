"""LlamaIndex's Cohere and TEI postprocessors."""

from exchange import KEY, MODEL, URL, request, respond
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.postprocessor.cohere_rerank import CohereRerank
from llama_index.postprocessor.tei_rerank import TextEmbeddingInference

query, documents = request()


def scores(reranker):
    nodes = [NodeWithScore(node=TextNode(text=text, id_=str(place))) for place, text in enumerate(documents)]
    return [[int(each.node.node_id), each.score] for each in reranker.postprocess_nodes(nodes, query_str=query)]


respond(
    cohere=scores(CohereRerank(api_key=KEY, base_url=URL, model=MODEL, top_n=len(documents))),
    tei=scores(TextEmbeddingInference(base_url=URL, auth_token=f"Bearer {KEY}", top_n=len(documents))),
)
