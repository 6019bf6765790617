"""`onelogit serve`: a model -> an HTTP server in the forms of Cohere, Jina, vLLM and Text Embeddings Inference."""

import argparse
from pathlib import Path

from onelogit.cli.model_options import add_model_options, fetch, model_spec
from onelogit.cli.output import mention_demo, mention_quantization, say
from onelogit.errors import InputError, check_packages
from onelogit.io.progress import waiting
from onelogit.options import API_KEY_VARIABLE

SUMMARY = "serve a model over HTTP, in the forms of Cohere, Jina, vLLM and TEI"
EXAMPLES = (
    "onelogit serve Qwen/Qwen3-Reranker-0.6B",
    "onelogit serve Qwen/Qwen3-Reranker-0.6B --host 0.0.0.0 --port 8000 --api-key-file keys.txt",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("model", help="hub id or folder")
    group = parser.add_argument_group("server")
    add = group.add_argument
    add("--host", default="127.0.0.1", help="address to listen at (default: 127.0.0.1, this machine only)")
    add("--port", type=int, default=8000, metavar="N", help="port to listen at (default: 8000; 0 for any free one)")
    help_text = "another name of the model in requests and answers; may be repeated (default: its id)"
    add("--served-model-name", action="append", default=[], metavar="NAME", help=help_text)
    help_text = f"file with the API keys, one on each line (default: the environment variable {API_KEY_VARIABLE})"
    add("--api-key-file", type=Path, metavar="FILE", help=help_text)
    add("--no-api-key", action="store_true", help="serve without a key, even if other machines can reach the server")
    help_text = "web page that may send requests, such as https://example.org (CORS); may be repeated (default: none)"
    add("--allow-origin", action="append", default=[], metavar="ORIGIN", help=help_text)
    help_text = "maximum requests that wait or are computed; others are answered with 429 (default: 256)"
    add("--max-waiting", type=int, default=256, metavar="N", help=help_text)
    help_text = "maximum documents per request; a request with more is answered with 413 (default: 1000)"
    add("--max-documents", type=int, default=1000, metavar="N", help=help_text)
    add("--max-body-mb", type=int, default=16, metavar="N", help="maximum size of a request, in MiB (default: 16)")
    add("--timeout-s", type=float, default=300.0, metavar="SECONDS", help="maximum time of a request (default: 300)")
    add_model_options(parser)


def run(options: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C, which let the accepted requests finish."""
    check_packages("starlette", "uvicorn", "prometheus_client", "pydantic")
    from onelogit.serving import ServingLimits, app  # noqa: PLC0415  an optional package
    from onelogit.serving.keys import ApiKeys, check_exposure, read_keys  # noqa: PLC0415
    from onelogit.serving.server import bound_socket, ended_by_sigterm, run_until_stopped  # noqa: PLC0415

    limits = ServingLimits(
        max_waiting=options.max_waiting,
        max_documents=options.max_documents,
        max_body_bytes=options.max_body_mb * 2**20,
        timeout_s=options.timeout_s,
    )
    if options.no_api_key and options.api_key_file is not None:
        raise InputError("--no-api-key and --api-key-file contradict each other; leave one out")
    keys = [] if options.no_api_key else read_keys(options.api_key_file)
    ApiKeys(keys)
    check_exposure(options.host, keys, allows_no_key=options.no_api_key)
    spec = model_spec(options, options.model)
    if spec.url is not None:
        raise InputError(f"{spec.url} is a server already; name the model that is to be served")
    with ended_by_sigterm(), bound_socket(options.host, options.port) as bound:
        found = fetch(spec)
        from onelogit.local.reranker import Reranker  # noqa: PLC0415  loads torch

        with waiting(f"loading {spec.name}"):
            reranker = Reranker.load(found)
            reranker.warm_up()
        mention_quantization(reranker)
        with reranker:
            application = app(
                reranker,
                served_names=options.served_model_name,
                api_keys=keys,
                allowed_origins=options.allow_origin,
                limits=limits,
            )
            host, port = bound.getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            mention_demo(options.model)
            say(f"serving {spec.name} at http://{shown}:{port} (requests: /docs; Ctrl-C stops)")
            run_until_stopped(application, bound, limits)
    return 0
