"""A reranker -> an HTTP server in the forms of Cohere, Jina, vLLM and Text Embeddings Inference.

    from onelogit import Reranker
    from onelogit.serving import app

    application = app(Reranker.load("Qwen/Qwen3-Reranker-0.6B"))  # for uvicorn, or to mount in an application

Needs the extra `serve`. Loads no torch.
"""

from onelogit.errors import check_packages

check_packages("starlette", "uvicorn", "prometheus_client", "pydantic")

from onelogit.serving.application import app  # noqa: E402
from onelogit.serving.limits import ServingLimits  # noqa: E402

__all__ = ["ServingLimits", "app"]
