"""A checkpoint -> vLLM's CPU build as a server of its classifier, and that server as a target."""

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen
from uuid import uuid4

from peer_server import PeerServer, free_port
from targets import Loaded
from transformers import AutoTokenizer
from workload import prompt_rows

from checkpoints import RandomCheckpoint
from onelogit import OnelogitError

# Every core computes; by default vLLM reserves one.
SETTINGS = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "2",
    "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
    "VLLM_NO_USAGE_STATS": "1",
}
# As of all targets in `cold`, no call may use what an earlier one computed.
ARGUMENTS = ("--runner", "pooling", "--max-model-len", "4096", "--no-enable-prefix-caching")


def start_vllm(python: Path, checkpoint: RandomCheckpoint, *further: str) -> tuple[str, PeerServer]:
    """A server of the checkpoint's classifier, in its dtype, and its url.

    Args:
        python: of an environment from `install_vllm.py`.
        checkpoint: its converted folder is served.
        further: arguments of `vllm serve`.

    Raises:
        OnelogitError: as `PeerServer`.
    """
    folder, port = checkpoint.converted.absolute(), free_port()
    url = f"http://127.0.0.1:{port}"
    command = [str(python.with_name("vllm")), "serve", str(folder), *ARGUMENTS, "--dtype", checkpoint.dtype]
    command += ["--host", "127.0.0.1", "--port", str(port), *further]
    return url, PeerServer("vLLM", command, SETTINGS, f"{url}/health", folder.with_name(f"{folder.name}-vllm.log"))


def load_vllm(checkpoint: RandomCheckpoint, url: str) -> Loaded:
    """A server as a target: it gets the same token ids as all targets."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder)
    served = _request(f"{url}/v1/models", None)["data"][0]
    salt = uuid4().hex  # otherwise the server could answer from the cache of an earlier run

    def score(query: str, documents: Sequence[str]) -> list[float]:
        rows = prompt_rows(tokenizer, checkpoint.recipe, query, documents)
        body = {"model": served["id"], "input": rows, "use_activation": False, "cache_salt": salt}
        response = _request(f"{url}/classify", body)
        return [each["probs"][0] for each in sorted(response["data"], key=lambda each: each["index"])]

    return Loaded(score, None, {"version": _request(f"{url}/version", None)["version"], "url": url})


def _request(url: str, body: object) -> Any:
    data = None if body is None else json.dumps(body).encode()
    try:
        with urlopen(Request(url, data=data, headers={"Content-Type": "application/json"}), timeout=600) as response:
            return json.load(response)
    except URLError as error:
        details = ""
        with suppress(AttributeError):
            details = error.read(500).decode()
        raise OnelogitError(f"the request to {url} failed: {error} {details}") from error
