"""Clients of Jina's form and of its likes: LangChain's JinaRerank, LlamaIndex's for Jina and SiliconFlow."""

from exchange import KEY, MODEL, URL, request, respond
from langchain_community.document_compressors import jina_rerank
from langchain_core.documents import Document
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.postprocessor.jinaai_rerank import JinaRerank
from llama_index.postprocessor.siliconflow_rerank import SiliconFlowRerank

query, documents = request()
count = len(documents)
jina_rerank.JINA_API_URL = f"{URL}/v1/rerank"  # it has no option for the address


def compressed(**options):
    compressor = jina_rerank.JinaRerank(**{"jina_api_key": KEY, "model": MODEL, "top_n": count, **options})
    given = [Document(page_content=text, metadata={"place": place}) for place, text in enumerate(documents)]
    found = compressor.compress_documents(given, query)
    return [[each.metadata["place"], each.metadata["relevance_score"]] for each in found]


def postprocessed(reranker):
    nodes = [NodeWithScore(node=TextNode(text=text, id_=str(place))) for place, text in enumerate(documents)]
    return [[int(each.node.node_id), each.score] for each in reranker.postprocess_nodes(nodes, query_str=query)]


def raised(call):
    try:
        call()
    except Exception as error:
        return [type(error).__name__, str(error)]
    return None


respond(
    langchain=compressed(),
    llama_index=postprocessed(JinaRerank(base_url=f"{URL}/v1", api_key=KEY, model=MODEL, top_n=count)),
    siliconflow=postprocessed(
        SiliconFlowRerank(base_url=f"{URL}/v1/rerank", api_key=KEY, model=MODEL, top_n=count, return_documents=True)
    ),
    wrong_key=raised(lambda: compressed(jina_api_key="wrong")),
    jina_wrong_model=raised(
        lambda: postprocessed(JinaRerank(base_url=f"{URL}/v1", api_key=KEY, model="absent", top_n=count))
    ),
)
