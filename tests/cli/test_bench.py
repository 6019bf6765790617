"""`onelogit bench`: options that are refused, and whole runs. No test here reads a clock."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from onelogit import DEMO_MODEL, Reranker
from onelogit.cli.main import main
from onelogit.options import DEMO_NOTE
from support.commands import failure
from support.servers import Body, FakeServer, Response, serving
from support.terminal import in_terminal
from support.tiny import Tiny


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--candidates", "0"), "--candidates must be whole numbers from 1 up"),
        (("--candidates=-1,5",), "not '-1,5'"),
        (("--candidates", "1.5"), "--candidates"),
        (("--candidates", ""), "--candidates"),
        (("--candidates", "²"), "--candidates"),
        (("--lengths", "many"), "--lengths must be whole numbers"),
        (("--seconds", "0"), "--seconds must be a number above 0"),
        (("--seconds", "nan"), "--seconds"),
        (("--repeats", "0"), "--repeats must be a whole number from 1 up"),
        (("--plot", "/nowhere/a.png"), "in an existing folder"),
        (("--plot", "a.txt"), "must end in .png, .svg, .pdf"),
        (("--template", "server"), "'template' is not an option of a local model: use RemoteReranker or give a url"),
        (("--url", "http://127.0.0.1:9", "--dtype", "float32"), "'dtype' is not an option of a server"),
        (("--texts", "/nowhere"), "/nowhere cannot be read"),
        (("--texts", os.devnull), "/dev/null has no documents"),
    ],
)
def test_wrong_options_are_refused_before_the_model_is_looked_up(
    arguments: tuple[str, ...], complaint: str, capsys: pytest.CaptureFixture[str]
):
    assert complaint in failure(capsys, "bench", "no-such/model", *arguments)


def test_a_peer_that_is_not_installed_or_cannot_run_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    compared = ("--compare", "sentence-transformers")
    assert "both models on this machine" in failure(capsys, "bench", "http://127.0.0.1:9", *compared)
    monkeypatch.setattr("onelogit.errors.find_spec", lambda name: None)
    assert "pip install 'sentence-transformers>=5.4'" in failure(capsys, "bench", DEMO_MODEL, *compared)


def test_a_missing_model_is_a_one_line_error(capsys: pytest.CaptureFixture[str]):
    assert "there is no folder '/nowhere'" in failure(capsys, "bench", "/nowhere")


def test_both_targets_are_measured_on_the_same_weights_and_agree(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    texts, plot = tmp_path / "texts.txt", tmp_path / "bench.png"
    texts.write_text("\n".join(f"document number {number} says so" for number in range(9)))
    arguments = ["--candidates", "3", "--repeats", "2", "--dtype", "float32", "--texts", texts, "--seconds", "99"]
    arguments += ["--compare", "sentence-transformers", "--json", "--plot", plot]

    assert main(["bench", DEMO_MODEL, *map(str, arguments)]) == 0

    output = capsys.readouterr()
    printed = json.loads(output.out)
    (case,) = printed["cases"]
    assert output.err == ""
    assert [(each["name"], each["calls"]) for each in case["contestants"]] == [
        ("onelogit", 2),
        ("Sentence Transformers", 2),
    ]
    assert case["largest_difference"] < 1e-4
    assert case["prompt_tokens"] > 50
    assert printed["documents_as_given"] == printed["documents_made_up"] + 9 == 9
    assert (printed["facts"]["dtype"], printed["facts"]["device"]) == ("float32", "cpu")
    assert {name: 0 < seconds < 99 for name, seconds in printed["facts"]["load_s"].items()} == {
        "onelogit": True,
        "Sentence Transformers": True,
    }
    assert all(0 < each["loaded"] <= each["peak"] for each in printed["facts"]["memory"].values())
    assert printed["facts"]["licence"] == "cc-by-sa-4.0"
    assert printed["notes"][0] == DEMO_NOTE
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_a_server_is_measured_by_its_url(capsys: pytest.CaptureFixture[str], tiny_qwen: Tiny):
    with Reranker.load(tiny_qwen.folder) as reranker, serving(FakeServer(reranker=reranker)) as server:
        arguments = ["--candidates", "2", "--lengths", "9", "--repeats", "2", "--json"]
        code = main(["bench", str(tiny_qwen.folder), "--url", server.url, *arguments])

    printed = json.loads(capsys.readouterr().out)
    assert code == 0
    assert (printed["model"], printed["server"]) == (str(tiny_qwen.folder), server.url)
    assert printed["facts"]["device"] is None
    assert printed["facts"]["memory"] == printed["facts"]["load_s"] == {}
    assert printed["cases"][0]["contestants"][0]["tokens_per_s"] > 0
    assert len(server.requests.bodies) >= 2


def test_ctrl_c_ends_everything_and_restores_the_terminal(tiny_qwen: Tiny):
    with Reranker.load(tiny_qwen.folder) as reranker:
        answer, delays_s = FakeServer(reranker=reranker), iter([0.0, *[60.0] * 9])

        def slow(path: str, body: Body | None) -> Response:
            """The second call with seven documents never ends: the first one warms up."""
            delay_s = next(delays_s) if body is not None and len(body["input"]) == 7 else 0.0
            return replace(answer(path, body), delay_s=delay_s)

        with serving(slow) as server:
            arguments = ["bench", tiny_qwen.folder, "--url", server.url, "--candidates", "7", "--seconds", "600"]
            ran = in_terminal(["-m", "onelogit", *arguments], interrupt_at="7 documents, call 1", timeout_s=50)

    assert ran.code == 130
    assert "Traceback" not in ran.screen
    assert "loading" in ran.screen
    assert ran.screen.rindex("\x1b[?25h") > ran.screen.rindex("\x1b[?25l")  # the cursor is back
