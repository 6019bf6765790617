"""`onelogit serve` as users start and stop it: a process, its messages, and its exit code."""

import os
import re
import signal
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import httpx2
import pytest

from onelogit import RemoteReranker, Reranker
from onelogit.cli.main import main
from onelogit.serving.server import allow_many_connections
from support.commands import failure
from support.prepared import Process
from support.served import wait_until
from support.tiny import Tiny

BODY = {"query": "SECRET query", "documents": ["SECRET one", "two"]}


class RunningCommand(NamedTuple):
    process: Process
    url: str
    messages: Path

    def stop(self, number: int) -> int:
        os.kill(self.process.pid, number)
        return self.process.wait(30)


@contextmanager
def command(folder: Path, *arguments: object, keys: str | None = None) -> Iterator[RunningCommand]:
    """`onelogit serve` at a free port, until the block ends."""
    messages = folder / "messages.txt"
    environment = {**os.environ, **({} if keys is None else {"ONELOGIT_API_KEY": keys})}
    with messages.open("wb") as file, Path(os.devnull).open("rb") as nothing:
        started = ["-m", "onelogit", "serve", *arguments, "--port", 0]
        with Process(started, stdin=nothing, stdout=file, stderr=file, environment=environment) as process:
            wait_until(lambda: "serving " in messages.read_text(encoding="utf-8") or process.poll() is not None)
            found = re.search(r"http://\S+:\d+", messages.read_text(encoding="utf-8"))
            assert found, messages.read_text(encoding="utf-8")
            yield RunningCommand(process, found[0], messages)


def waiting(url: str) -> float:
    text = httpx2.get(f"{url}/metrics", trust_env=False).text
    return float(text.partition("\nonelogit_waiting_requests ")[2].split()[0])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_accepted_requests_finish(number: int, tiny_qwen: Tiny, tmp_path: Path):
    words = " ".join(f"{n}" for n in range(300))
    large = {"query": "which?", "documents": [f"{n} {words}" for n in range(30)]}
    with command(tmp_path, tiny_qwen.folder) as running, ThreadPoolExecutor(1) as threads:
        answer = threads.submit(httpx2.post, f"{running.url}/rerank", json=large, trust_env=False, timeout=60)
        wait_until(lambda: waiting(running.url) == 1)
        code = running.stop(number)
        said = running.messages.read_text(encoding="utf-8")

    assert answer.result().status_code == 200
    assert len(answer.result().json()["results"]) == 30
    assert code == 0
    assert said.splitlines()[-1].startswith("onelogit: serving ")
    with pytest.raises(httpx2.TransportError):
        httpx2.get(f"{running.url}/health", trust_env=False)


def test_a_second_ctrl_c_ends_the_server_at_once_without_tracebacks(tiny_qwen: Tiny, tmp_path: Path):
    words = " ".join(f"{n}" for n in range(300))
    large = {"query": "which?", "documents": [f"{n} {words}" for n in range(100)]}
    with command(tmp_path, tiny_qwen.folder) as running, ThreadPoolExecutor(5) as threads:
        answers = [
            threads.submit(httpx2.post, f"{running.url}/rerank", json=large, trust_env=False, timeout=60)
            for _ in range(5)
        ]
        wait_until(lambda: waiting(running.url) == 5)
        os.kill(running.process.pid, signal.SIGINT)
        with suppress(httpx2.TransportError):
            wait_until(lambda: httpx2.get(f"{running.url}/health", trust_env=False) is None)
        code = running.stop(signal.SIGINT)
        said = running.messages.read_text(encoding="utf-8")
        for answer in answers:
            answer.exception()

    assert code == 0
    assert "Traceback" not in said


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_before_the_server_runs_ends_the_command(
    number: int, expected: int, tiny_qwen: Tiny, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def warm_up(_: Reranker) -> None:
        signal.raise_signal(number)

    monkeypatch.setattr(Reranker, "warm_up", warm_up)
    before = signal.getsignal(signal.SIGTERM)
    # A job in the background ignores SIGINT, and so would its tests.
    interrupt = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        code = main(["serve", str(tiny_qwen.folder), "--port", "0"])
    finally:
        signal.signal(signal.SIGINT, interrupt)

    assert code == expected
    assert "Traceback" not in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of open files")
def test_a_server_may_have_as_many_connections_as_the_system_lets():
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        allow_many_connections()
        raised = resource.getrlimit(resource.RLIMIT_NOFILE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert raised == (65536 if hard == resource.RLIM_INFINITY else min(65536, hard), hard)


def test_an_idle_connection_does_not_delay_the_end(tiny_qwen: Tiny, tmp_path: Path):
    with command(tmp_path, tiny_qwen.folder) as running, httpx2.Client(base_url=running.url, trust_env=False) as client:
        assert client.post("/rerank", json=BODY).status_code == 200
        assert client.post("/rerank", content=b"{SECRET").status_code == 400
        assert client.get("/rerank?query=SECRET").status_code == 405
        upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
        asking = {**upgrade, "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
        assert client.post("/rerank", json=BODY, headers=asking).status_code == 200
        code = running.stop(signal.SIGTERM)
        said = running.messages.read_text(encoding="utf-8")

    assert code == 0
    assert "SECRET" not in said


def test_the_options_of_the_model_and_the_server_are_used(tiny_qwen: Tiny, tmp_path: Path):
    options = ["--served-model-name", "mine", "--max-tokens", 400, "--activation", "identity", "--max-documents", 2]
    with command(tmp_path, tiny_qwen.folder, *options, keys="the-KEY") as running:
        headers = {"Authorization": "Bearer the-KEY"}
        with httpx2.Client(base_url=running.url, headers=headers, trust_env=False) as client:
            (listed,) = client.get("/v1/models").json()["data"]
            (result, _) = client.post("/rerank", json=BODY).json()["results"]
            many = client.post("/rerank", json={"query": "a", "documents": ["b"] * 3})
        without = httpx2.post(f"{running.url}/rerank", json=BODY, trust_env=False)
        with (
            Reranker.load(tiny_qwen.folder, max_tokens=400) as local,
            RemoteReranker(running.url, str(tiny_qwen.folder), api_key="the-KEY", max_tokens=400) as remote,
        ):
            local_logits, remote_logits = (each.logits("which?", ["a " * 500, "b"]) for each in (local, remote))
        said = running.messages.read_text(encoding="utf-8")

    assert (listed["id"], listed["max_model_len"]) == ("mine", 400)
    assert result["relevance_score"] == result["logit"]
    assert many.status_code == 413
    assert without.status_code == 401
    assert remote_logits == pytest.approx(local_logits, abs=1e-5)
    assert "the-KEY" not in said


def test_a_port_in_use_is_told_before_the_model_is_loaded(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        message = failure(capsys, "serve", tmp_path / "no-model", "--port", port)

    assert message == (f"onelogit: port {port} of 127.0.0.1 is in use; stop the other server, or give another --port\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--host", "0.0.0.0"], "other machines can reach a server at 0.0.0.0, so it needs an API key"),
        (["--host", "no-such-host.invalid", "--no-api-key"], "--host 'no-such-host.invalid' is not found"),
        (["--host", "203.0.113.7", "--no-api-key"], "cannot serve at port 8000 of 203.0.113.7"),
        (["--port", "99999"], "--port must be from 0 to 65535, not 99999"),
        (["--max-waiting", "0"], "max_waiting must be a whole number above 0, not 0"),
        (["--timeout-s", "-1"], "timeout_s must be a number of seconds above 0, not -1.0"),
        (["--max-body-mb", "0"], "max_body_bytes must be a whole number above 0, not 0"),
        (["--no-api-key", "--api-key-file", "keys"], "--no-api-key and --api-key-file contradict each other"),
        (["--api-key-file", "absent"], "the API keys in absent cannot be read: No such file or directory"),
        (["--served-model-name", " "], "a served name is empty"),
    ],
)
def test_a_wrong_option_is_told_in_one_sentence(
    arguments: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
    tiny_qwen: Tiny,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.delenv("ONELOGIT_API_KEY", raising=False)

    assert failure(capsys, "serve", tiny_qwen.folder, *arguments).startswith(f"onelogit: {said}")


@pytest.mark.parametrize("package", ["starlette", "uvicorn", "prometheus_client", "pydantic"])
def test_a_missing_package_is_named_with_how_to_install_it(
    package: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("onelogit.errors.find_spec", lambda name: None if name == package else object())

    assert failure(capsys, "serve", "m").startswith(f"onelogit: this needs {package} (the extra 'serve'): pip install ")


def test_a_server_cannot_be_served(capsys: pytest.CaptureFixture[str]):
    assert "is a server already" in failure(capsys, "serve", "http://127.0.0.1:1")


def test_a_missing_model_is_told_in_one_sentence(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    assert "no-model" in failure(capsys, "serve", tmp_path / "no-model", "--port", "0")
