"""LiteLLM's proxy in front of the server: /v1/rerank and /v2/rerank of the proxy."""

import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
from exchange import KEY, MODEL, URL, request, respond

PROVIDERS = ("cohere", "jina_ai", "hosted_vllm", "huggingface", "infinity")
query, documents = request()


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def ranked(client, path, provider):
    body = {"model": provider, "query": query, "documents": documents}
    if provider == "infinity":  # it expects documents of answers in another form
        body["return_documents"] = False
    answer = client.post(path, json=body)
    return [[each["index"], each["relevance_score"]] for each in answer.raise_for_status().json()["results"]]


models = [
    {"model_name": each, "litellm_params": {"model": f"{each}/{MODEL}", "api_base": URL, "api_key": KEY}}
    for each in PROVIDERS
]
master = f"sk-{secrets.token_hex(32)}"
with tempfile.TemporaryDirectory() as folder:
    config = Path(folder, "config.yaml")
    config.write_text(json.dumps({"model_list": models, "general_settings": {"master_key": master}}), encoding="utf-8")
    port = free_port()
    command = [
        Path(sys.executable).with_name("litellm"),
        "--config",
        config,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    with Path(folder, "log").open("wb") as log:
        offline = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        proxy = subprocess.Popen(command, stdout=log, stderr=log, env=offline)
    try:
        with httpx.Client(
            base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {master}"}, timeout=30
        ) as client:
            for _ in range(160):
                try:
                    client.get("/health/liveliness")
                    break
                except httpx.TransportError:
                    time.sleep(0.5)
            respond(
                **{
                    f"{each} {path}": ranked(client, path, each)
                    for each in PROVIDERS
                    for path in ("/v1/rerank", "/v2/rerank")
                }
            )
    except httpx.HTTPError:
        sys.stderr.write(Path(folder, "log").read_text(encoding="utf-8")[-3000:])
        raise
    finally:
        proxy.terminate()
        proxy.wait(20)
