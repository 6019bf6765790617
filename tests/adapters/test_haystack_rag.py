"""The example pipeline from end to end: a store, BM25, the ranker, a prompt, and a language model's server."""

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from onelogit import DEMO_MODEL
from support.prepared import run

EXAMPLES = Path(__file__).parents[2] / "examples"


class Model(BaseHTTPRequestHandler):
    """A minimal server of OpenAI's protocol that replies with the prompt."""

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        message = {"role": "assistant", "content": request["messages"][-1]["content"]}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        answer = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
        body = json.dumps({**answer, "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Model) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()


def test_the_language_model_gets_the_best_passages_best_first(url: str):
    questions = [json.loads(line) for line in (EXAMPLES / "data" / "questions.jsonl").read_text().splitlines()]
    passages = [json.loads(line) for line in (EXAMPLES / "data" / "passages.jsonl").read_text().splitlines()]
    question = questions[0]
    text = {each["id"]: each["text"] for each in passages}

    ran = run(
        [EXAMPLES / "haystack_rag.py", question["question"], DEMO_MODEL],
        environment={**os.environ, "OPENAI_API_KEY": "none", "OPENAI_BASE_URL": url},
    )

    assert ran.returncode == 0, ran.stderr
    prompt, _, printed = ran.stdout.partition("Question: ")
    assert prompt.index("[1] ") < prompt.index("[2] ")
    assert f"[1] {text[question['answer']]}" in prompt
    assert question["question"] in printed
    assert printed.count("  ") >= 5
