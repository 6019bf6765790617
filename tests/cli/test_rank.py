"""`onelogit rank`: documents from arguments, files and stdin, and output that is safe for any terminal."""

import io
import json
import os
import re
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from onelogit import DEMO_MODEL, Ranked, Reranker
from onelogit.cli.main import main
from onelogit.cli.output import bar_fractions, printable, ranking_table
from support.commands import failure
from support.servers import NOT_FOUND, FakeServer, Response, serving
from support.terminal import in_terminal
from support.tiny import Tiny

QUERY = "What is the capital of China?"
DOCUMENTS = ["Bananas are yellow.", "Beijing is the capital of China.", "서울은 대한민국의 수도이다."]
HOSTILE = [
    "[bold]bold[/bold] [/] [link=http://a]",
    "\x1b[31mred\x1b[0m\x1b]0;title\x07\x9b2J",
    "back\b\b\b\b bell\a null\0 carriage\rreturn",
    "\u202egnp.exe \u2066isolated \u200bzero \ufeff",
    "שלום עולם",
    "long " * 5_000,
    "",
    " \n\t ",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 wide 漢字 e\u0301",
]


@pytest.fixture(scope="module")
def demo() -> Reranker:
    return Reranker.load(DEMO_MODEL)


@pytest.fixture(scope="module")
def server_arguments(tiny_qwen: Tiny) -> Iterator[list[str]]:
    """Arguments for a server, so that the command needs no torch and starts quickly."""
    with Reranker.load(tiny_qwen.folder) as reranker, serving(FakeServer(reranker=reranker)) as server:
        yield ["--model", str(tiny_qwen.folder), "--url", server.url]


def drawn(documents: list[str], width: int, ranking: list[Ranked] | None = None) -> str:
    ranking = [Ranked(i, -float(i), 0.5) for i in range(len(documents))] if ranking is None else ranking
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system="truecolor")
    console.print(ranking_table("[red]query \x1b[1m", ranking, documents, console))
    return console.file.getvalue()  # type: ignore[attr-defined]


def ranked_lines(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[dict]:
    assert main(["rank", *map(str, arguments), "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_json_lines_equal_the_ranking_of_the_core(capsys: pytest.CaptureFixture[str], demo: Reranker):
    lines = ranked_lines(capsys, QUERY, *DOCUMENTS, "--instruction", "Say.")

    expected = demo.rank(QUERY, DOCUMENTS, instruction="Say.")
    assert [list(line) for line in lines] == [["rank", "index", "logit", "score", "text"]] * 3
    assert [line["rank"] for line in lines] == [1, 2, 3]
    assert [(line["index"], line["logit"], line["score"]) for line in lines] == expected
    assert [line["text"] for line in lines] == [DOCUMENTS[ranked.index] for ranked in expected]


def test_the_table_shows_the_best_first_and_says_that_scores_are_not_probabilities(
    capsys: pytest.CaptureFixture[str],
):
    assert main(["rank", QUERY, *DOCUMENTS, "--top-n", "2"]) == 0

    printed = capsys.readouterr()
    rows = [line for line in printed.out.splitlines() if re.match(r"\s+\d", line)]
    assert len(rows) == 2
    assert "Beijing" in rows[0]
    assert "cc-by-sa-4.0" in printed.out
    assert re.findall(r"\S+ \S+ probab\w+|relevant", " ".join(printed.out.split())) == ["are not probabilities"]
    assert "its rankings and results are meaningless" in printed.err


def test_documents_of_arguments_come_before_documents_of_files(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    (tmp_path / "a.txt").write_text("second\n\nthird\n")
    (tmp_path / "b.jsonl").write_text('{"title": "The", "text": "fourth"}\n')

    lines = ranked_lines(capsys, QUERY, "first", "--documents", tmp_path / "a.txt", "--documents", tmp_path / "b.jsonl")

    assert [line["text"] for line in sorted(lines, key=lambda line: line["index"])] == [
        "first",
        "second",
        "third",
        "The fourth",
    ]


def test_json_lines_keep_the_ids_and_titles_of_files(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    (tmp_path / "a.jsonl").write_text(
        '{"_id": 7, "title": "T", "text": "a"}\n{"docid": "x", "doc": {"title": "N", "contents": "b"}}\n"c"\n'
    )
    (tmp_path / "b.tsv").write_text("41\td\n")
    files = ["--documents", tmp_path / "a.jsonl", "--documents", tmp_path / "b.tsv"]

    ranked = sorted(ranked_lines(capsys, QUERY, "e", *files), key=lambda line: line["index"])

    assert [[line["text"], line.get("id"), line.get("title")] for line in ranked] == [
        ["e", None, None],
        ["T a", 7, "T"],
        ["N b", "x", "N"],
        ["c", None, None],
        ["d", "41", None],
    ]
    assert [*ranked[1]] == ["rank", "index", "logit", "score", "text", "id", "title"]
    assert "id" not in ranked[0]


def test_a_table_is_read_by_its_column_and_a_file_name_among_the_texts_is_pointed_out(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    Path("a.csv").write_text('Nr;Absatz\n1;"Peking; die\nHauptstadt"\n', encoding="utf-8")

    assert "its columns are 'Nr', 'Absatz'" in failure(capsys, "rank", QUERY, "--documents", "a.csv")
    lines = ranked_lines(capsys, QUERY, "--documents", "a.csv", "--text-column", "Absatz")
    assert [line["text"] for line in lines] == ["Peking; die\nHauptstadt"]
    assert main(["rank", QUERY, "a.csv", "b.csv"]) == 0
    noted = [line for line in capsys.readouterr().err.splitlines() if "ranked as a text" in line]
    assert noted == ["onelogit: 'a.csv' is ranked as a text; to rank the texts in that file, pass --documents a.csv"]


def test_documents_can_be_before_and_after_options(capsys: pytest.CaptureFixture[str], tiny_qwen: Tiny):
    for arguments in (
        ("a", "--top-n", "9", "b", "c"),
        ("--top-n", "9", "a", "b", "c"),
        ("a", "b", "c", "--top-n", "9"),
    ):
        lines = ranked_lines(capsys, QUERY, "--model", tiny_qwen.folder, *arguments)
        assert {line["index"]: line["text"] for line in lines} == {0: "a", 1: "b", 2: "c"}


def test_stdin_is_read_if_no_document_is_given(
    capsys: pytest.CaptureFixture[str], tiny_qwen: Tiny, monkeypatch: pytest.MonkeyPatch
):
    for content, texts in (("하나\ntwo\n".encode(), ["two", "하나"]), (b'{"text": "a"}\n', ["a"])):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding="ascii"))
        lines = ranked_lines(capsys, QUERY, "--model", tiny_qwen.folder)
        assert sorted(line["text"] for line in lines) == texts
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\x7fELF\x02\x01\xff\xfe\n\0")))
    assert "stdin, line 1: not UTF-8" in failure(capsys, "rank", QUERY)


@pytest.mark.parametrize("form", [["--json"], []])
def test_in_a_pipeline_stderr_is_empty_and_a_closed_pipe_is_not_an_error(form: list[str], server_arguments: list[str]):
    command = [sys.executable, "-m", "onelogit", "rank", QUERY, *server_arguments, *form]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)

    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with subprocess.Popen(command, env=buffered, **pipes) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stdin.write(b"one\ntwo\n")
        process.stdin.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_a_server_ranks_if_its_url_is_given(capsys: pytest.CaptureFixture[str], tiny_qwen: Tiny):
    with Reranker.load(tiny_qwen.folder) as reranker, serving(FakeServer(reranker=reranker)) as server:
        lines = ranked_lines(capsys, QUERY, *DOCUMENTS, "--model", tiny_qwen.folder, "--url", server.url)
        by_template = ranked_lines(
            capsys, QUERY, *DOCUMENTS, "--model", server.url, "--protocol", "rerank", "--template", "server"
        )
        expected = reranker.rank(QUERY, DOCUMENTS)

    assert [line["index"] for line in lines] == [ranked.index for ranked in expected]
    assert [line["logit"] for line in lines] == pytest.approx([ranked.logit for ranked in expected], abs=1e-5)
    assert [line["index"] for line in by_template] == [ranked.index for ranked in expected]


@pytest.mark.parametrize(
    ("options", "scores"), [((), [0.7304844, 0.5018]), (("--no-raw-logits",), [0.9971, 0.0072])], ids=["raw", "not raw"]
)
def test_the_path_and_the_activation_of_a_server_are_options(
    capsys: pytest.CaptureFixture[str], options: tuple[str, ...], scores: list[float]
):
    def respond(path: str, body: object) -> Response:
        results = [{"index": 0, "relevance_score": 0.9971}, {"index": 1, "relevance_score": 0.0072}]
        return Response(content={"results": results}) if path == "/rerank" else NOT_FOUND

    with serving(respond) as server:
        arguments = ["--model", "Qwen/Qwen3-Reranker-0.6B", "--url", server.url, "--path", "/rerank"]
        protocol = ["--protocol", "rerank", "--template", "server"]
        lines = ranked_lines(capsys, QUERY, "a", "b", *arguments, *protocol, *options)

    assert [line["score"] for line in lines] == pytest.approx(scores, abs=1e-5)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((" ", "a"), "the query is empty"),
        ((QUERY, "a", "--top-n", "0"), "--top-n must be a whole number from 1 up"),
        ((QUERY, "--documents", "/nowhere/file"), "/nowhere/file cannot be read"),
        ((QUERY, "--documents", os.devnull), "there are no documents in /dev/null"),
        ((QUERY, "--documents", "/"), "/ has no corpus.jsonl; name a file of texts, or a folder"),
        ((QUERY, "a", "--model", "/nowhere"), "there is no folder '/nowhere'"),
        ((QUERY, "a", "--model", "no-such/model"), "neither a local folder nor found on the hub"),
        ((QUERY, "a", "--model", "http://a", "--url", "http://b"), "two servers are named"),
        ((QUERY, "a", "--url", "http://127.0.0.1:9"), "pass the model's hub id or folder"),
        ((QUERY, "a", "--url", "127.0.0.1:9"), "--url must be an http or https url"),
        (
            (QUERY, "a", "--protocol", "rerank"),
            "'protocol' is not an option of a local model: use RemoteReranker or give a url",
        ),
        (
            (QUERY, "a", "--model", "m", "--url", "http://a", "--path", "rerank"),
            "path must be the path of the requests",
        ),
        ((QUERY, "a", "--no-raw-logits"), "'raw_logits' is not an option of a local model"),
        ((QUERY, "a", "--url", "http://a", "--chat-template", "x"), "--chat-template needs prompts that the client"),
        ((), "the following arguments are required: query; see onelogit rank --help"),
        ((QUERY, "a", "--device", "quantum"), "unknown device"),
        ((QUERY, "a", "--max-tokens", "0"), "max_tokens must be a whole number from 1 up, not 0"),
        (("a\udcff", "a"), "the query contains half a character"),
    ],
)
def test_a_wrong_argument_gives_a_one_line_error(
    arguments: tuple[str, ...], complaint: str, capsys: pytest.CaptureFixture[str]
):
    assert complaint in failure(capsys, "rank", *arguments)


@pytest.mark.parametrize("width", [20, 40, 47, 79, 80, 120, 200])
def test_documents_with_control_characters_do_not_affect_the_terminal(width: int):
    screen = drawn(HOSTILE, width)

    plain = re.sub(r"\x1b\[[0-9;]*m", "", screen)  # the table's own colours
    for character in plain.replace("\n", ""):
        assert unicodedata.category(character) not in ("Cc", "Cs")
        assert character not in "\u202e\u2066\u200b\ufeff"
    assert all(cell_len(line) <= width for line in plain.splitlines())
    assert sum(bool(re.match(r"\s+\d+\s", line)) for line in plain.splitlines()) == len(HOSTILE)
    if width >= 80:
        assert "[bold]bold[/bold] [/]" in plain
        assert "\\x1b[31mred" in plain
        assert "(empty)" in plain
        assert "\u2068שלום עולם\u2069" in plain


def test_bars_span_from_the_lowest_to_the_highest_logit():
    ranking = [Ranked(0, 8.0, 0.9), Ranked(1, 4.0, 0.9), Ranked(2, -8.0, 0.9)]

    bars = [line.count("█") for line in drawn(["a", "b", "c"], 120, ranking).splitlines() if "█" in line]

    assert bars == [20, 15, 1]
    assert bar_fractions([3.0, 3.0]) == [1.0, 1.0]
    assert bar_fractions([]) == []


def test_a_text_is_printed_as_one_line():
    assert printable(" a\n\tb ") == "a b"
    assert printable(" " * 10**5 + "a") == "a"
    assert printable("\x1b\u202e") == "\\x1b\\u202e"
    assert len(printable("a" * 10**7)) < 10**4


def test_json_contains_no_control_characters(capsys: pytest.CaptureFixture[str], tiny_qwen: Tiny):
    assert main(["rank", QUERY, *HOSTILE, "--model", str(tiny_qwen.folder), "--json"]) == 0

    printed = capsys.readouterr().out
    assert not any(unicodedata.category(character) in ("Cc", "Cf") for character in printed.replace("\n", ""))
    assert sorted(json.loads(line)["text"] for line in printed.splitlines()) == sorted(HOSTILE)


def test_a_terminal_gets_a_spinner_and_no_colour_if_no_color_is_set(server_arguments: list[str]):
    command = ["-m", "onelogit", "rank", QUERY, *DOCUMENTS, *server_arguments]

    ran = in_terminal(command, columns=40, environment={"NO_COLOR": "1"})

    assert ran.code == 0
    assert "loading" in ran.screen
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", ran.screen)
    assert "\x1b[36m█" not in ran.screen
    assert "\x1b[36m█" in drawn(DOCUMENTS, 80)
    assert all(cell_len(line) <= 40 for line in re.sub(r"\x1b\[[^A-Za-z]*[A-Za-z]", "\r", ran.screen).splitlines())


def test_without_documents_in_a_terminal_the_error_says_what_to_do():
    ran = in_terminal(["-m", "onelogit", "rank", QUERY])

    assert ran.code == 2
    assert "give them after the query, in --documents FILE, or on stdin" in " ".join(ran.screen.split())


def test_a_template_file_has_no_byte_order_mark_and_warns_of_a_dropped_newline(
    server_arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
):
    written = "{{ messages[-2].content }}: {{ messages[-1].content }}"
    plain, marked = tmp_path / "plain.jinja", tmp_path / "marked.jinja"
    plain.write_text(written, "utf-8")
    marked.write_text(f"\ufeff{written}\n", "utf-8")

    arguments = (QUERY, *DOCUMENTS, *server_arguments, "--instruction", "", "--chat-template")

    expected = ranked_lines(capsys, *arguments, plain)
    assert not caplog.messages

    assert ranked_lines(capsys, *arguments, marked) == expected
    assert [message.partition(" that")[0] for message in caplog.messages] == ["the chat template ends in a newline"]
