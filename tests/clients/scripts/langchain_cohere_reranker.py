"""langchain-cohere's CohereRerank."""

from exchange import KEY, MODEL, URL, request, respond
from langchain_cohere import CohereRerank
from langchain_core.documents import Document

query, documents = request()
compressor = CohereRerank(cohere_api_key=KEY, base_url=URL, model=MODEL, top_n=len(documents))
given = [Document(page_content=text, metadata={"place": place}) for place, text in enumerate(documents)]
ranked = compressor.compress_documents(given, query)
respond(compressed=[[each.metadata["place"], each.metadata["relevance_score"]] for each in ranked])
