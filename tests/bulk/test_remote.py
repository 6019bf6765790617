"""Bulk runs scored by a server: the same results, a label that does not depend on its address, no secret in files."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from onelogit import InputError, ModelSpec, Reranker, ServerError
from onelogit.bulk.job import RunSummary, run
from onelogit.checkpoints.fingerprint import model_label, portable_spec
from onelogit.cli.main import main
from support.bulk_rows import expected_results, query_rows, ranking, results, write_jsonl
from support.servers import FakeServer, Response, serving
from support.tiny import Tiny

ROWS = query_rows(3, 4)
SECRET = "sk-a-secret-that-must-not-be-written"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "in.jsonl", [*ROWS, {**ROWS[0], "query_id": "bad", "query": ""}])


@pytest.fixture
def model(tiny_qwen: Tiny) -> str:
    return str(tiny_qwen.folder)


def test_a_server_gives_the_results_of_its_model(reranker: Reranker, model: str, source: Path, tmp_path: Path):
    with serving(FakeServer(reranker=reranker)) as server:
        outcome = run(source, tmp_path / "out", model, url=server.url, api_key=SECRET)

    assert outcome == RunSummary(pairs=16, errors=4)
    fine = [row for row in results(tmp_path / "out") if row["error"] is None]
    assert ranking(fine) == expected_results(reranker, ROWS)
    assert server.requests.headers[0]["Authorization"] == f"Bearer {SECRET}"
    assert all(SECRET.encode() not in file.read_bytes() for file in (tmp_path / "out").iterdir())


def test_the_command_can_use_a_server_that_writes_the_prompts(
    reranker: Reranker, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with serving(FakeServer(reranker=reranker)) as server:
        arguments = [str(source), str(tmp_path / "out"), "--url", server.url, "--protocol", "rerank"]
        code = main(["bulk", *arguments, "--template", "server", "--json"])

    assert code == 1
    assert json.loads(capsys.readouterr().out)["pairs"] == 16
    fine = [row for row in results(tmp_path / "out") if row["error"] is None]
    assert ranking(fine) == expected_results(reranker, ROWS)


def test_an_unreachable_server_ends_the_run_without_errors_in_its_rows(
    reranker: Reranker, model: str, source: Path, tmp_path: Path
):
    answers = FakeServer(reranker=reranker)
    is_up = True

    def respond(path: str, body: Any) -> Response:
        return answers(path, body) if is_up or body is None else Response(code=503)

    with serving(respond) as server:
        options: dict[str, Any] = {"url": server.url, "attempts": 1, "slice_rows": 1}
        is_up = False
        with pytest.raises(ServerError):
            run(source, tmp_path / "out", model, **options)
        is_up = True
        outcome = run(source, tmp_path / "out", model, **options)

    assert outcome == RunSummary(pairs=16, errors=4)


def label_of(model: str, /, **options: Any) -> str:
    return model_label(ModelSpec.of(model, options))


def portable(model: str, /, **options: Any) -> Mapping[str, Any]:
    return portable_spec(ModelSpec.of(model, options)).options


def test_a_label_does_not_depend_on_the_servers_address(model: str):
    label = label_of(model, url="http://one:8000")

    assert label == label_of(model, url="http://two:9000", api_key=SECRET, attempts=9)
    assert label == label_of("http://one:8000", model=model)
    assert label != label_of(model, url="http://one:8000", instruction="Say.")
    assert label != label_of(model, url="http://one:8000", raw_logits=False)
    assert label.startswith("Qwen3-Reranker-tiny@")


def test_a_bulk_run_waits_for_a_server_that_restarts_unless_told_otherwise():
    options = portable("m", url="http://one:8000")

    assert (options["timeout_s"], options["attempts"]) == (600.0, 12)
    assert portable("m", url="http://one:8000", attempts=1)["attempts"] == 1
    assert "attempts" not in portable("m")


def test_workers_get_the_api_key_of_this_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ONELOGIT_API_KEY", SECRET)

    assert portable("m", url="http://one:8000")["api_key"] == SECRET
    assert "api_key" not in portable("m")
    with pytest.raises(InputError, match="is not an option of a server"):
        portable("http://one:8000", device="cpu")
