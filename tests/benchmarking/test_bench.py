"""`onelogit bench`: what is made of times, texts that never come twice, and whole runs. No test looks at a clock."""

import io
import json
import os
import re
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from onelogit import DEMO_MODEL, OnelogitError, Reranker
from onelogit.benchmarking.benchmark import check_lengths
from onelogit.benchmarking.latency import Times, is_noisy, percentile, summarize
from onelogit.benchmarking.report import lines_below, plot_result, tables_of
from onelogit.benchmarking.result import Result, notes_of
from onelogit.benchmarking.runner import BUSY, WAKING, Budget, Case, Counted, Runner, load_before
from onelogit.benchmarking.targets import Facts, Memory, Timed
from onelogit.benchmarking.text_supply import Supply
from onelogit.benchmarking.worker_process import Child, _outcome
from onelogit.cli.bench import numbers_of
from onelogit.cli.main import main
from onelogit.errors import InputError
from onelogit.io.text_files import Texts
from onelogit.options import DEMO_NOTE
from support.doomed import Doomed
from support.servers import Body, FakeServer, Response, serving
from support.terminal import in_terminal
from support.tiny import Tiny, byte_level_tokenizer

SHORT = ("a", "서울", "one two three four five six", "北京是中国的首都", "x" * 30)
TEXTS = Texts(list(SHORT), ["what?", "why is that so at all?"])
FACTS = Facts("cpu", "a processor", "float32", 64, "cc-by-nc-4.0", 2, {"python": "3"})


class Clockwork:
    """A contestant that says it took so many seconds a document, and remembers what it was asked."""

    def __init__(self, name: str, *seconds_a_document: float, logit: float = 0.0) -> None:
        self.name = name
        self.asked: list[tuple[str, tuple[str, ...]]] = []
        self.heard: list[tuple[str, tuple[str, ...]]] = []  # all of it: with what only wakes it
        self._seconds = seconds_a_document
        self._logit = logit

    def time(self, query: str, documents: Sequence[str]) -> Timed:
        self.heard.append((query, tuple(documents)))
        if query == WAKING:
            return Timed(1e9, [0.0] * len(documents))
        self.asked.append((query, tuple(documents)))
        seconds = self._seconds[len(self.asked) % len(self._seconds)]
        return Timed(seconds * len(documents), [self._logit] * len(documents))


def ten_tokens(query: str, documents: Sequence[str]) -> Counted:
    return Counted(10 * len(documents), 0)


def result(**given: object) -> Result:
    made = Runner(
        targets=[Clockwork("onelogit", 1.0), Clockwork("Sentence Transformers", 3.0, logit=0.25)],
        supply=Supply(TEXTS, None),
        count=ten_tokens,
        limits=Budget(3600, 4),
    ).measure([Case(2), Case(5)])
    plain = Result(
        model="[bold]mine[/]",
        server=None,
        facts=FACTS,
        memory={"onelogit": Memory(5 * 10**8, 10**9)},
        texts="texts",
        documents_as_given=5,
        documents_made_up=30,
        is_warm=False,
        seconds=3600,
        load_before=0.0,
        cases=tuple(made),
    )
    return replace(plain, **given)  # type: ignore[arg-type]


# What is made of times


@given(seconds=st.lists(st.floats(0.001, 1000), min_size=100, max_size=300))
def test_a_percentile_has_as_many_calls_below_it(seconds: list[float]):
    for percent in (50, 95, 99):
        value = percentile(seconds, percent)

        assert value is not None
        assert sum(each <= value * 1.000001 for each in seconds) >= len(seconds) * percent / 100 - 1
        assert sum(each >= value * 0.999999 for each in seconds) >= len(seconds) * (100 - percent) / 100 - 1


def test_percentiles_of_known_times():
    seconds = [float(each) for each in range(101)]

    assert [percentile(seconds, percent) for percent in (50, 95, 99)] == [50.0, 95.0, 99.0]


@pytest.mark.parametrize(("percent", "fewest"), [(50, 2), (95, 20), (99, 100)])
def test_a_percentile_needs_calls_beyond_it(percent: int, fewest: int):
    assert percentile([1.0] * (fewest - 1), percent) is None
    assert percentile([1.0] * fewest, percent) == 1.0


def test_a_ratio_is_how_many_times_as_fast_the_first_is_the_median_call_by_call():
    first, other = Times("onelogit", (1.0, 2.0, 4.0)), Times("other", (3.0, 4.0, 20.0))

    figures = summarize(other, first, 10, [100, 100, 100])

    assert figures.times_as_fast == (3.0, 2.0, 5.0)
    assert figures.p50_s == 4.0
    assert figures.pairs_per_s == 2.5
    assert figures.tokens_per_s == pytest.approx(25.0)
    assert summarize(first, first, 10, [100] * 3).times_as_fast is None


def test_tokens_that_nobody_knows_are_not_guessed():
    times = Times("a server", (1.0, 2.0))

    assert summarize(times, times, 10, [None, 100]).tokens_per_s is None


def test_longer_texts_are_no_noise():
    times = Times("onelogit", (1.0, 2.0, 4.0))

    assert summarize(times, times, 1, [100, 200, 400]).is_noisy is False
    assert summarize(times, times, 1, [100, 100, 100]).is_noisy is True


def test_a_peer_is_noisy_where_the_ratio_is():
    first, steady, alike = Times("a", (1.0, 2.0, 4.0)), Times("b", (1.0, 1.0, 1.0)), Times("c", (2.0, 4.0, 8.0))

    assert summarize(steady, first, 1, [100] * 3).is_noisy is True
    assert summarize(alike, first, 1, [100] * 3).is_noisy is False


def test_one_slow_call_in_many_is_no_noise_but_half_of_them_are():
    assert is_noisy([1.0] * 20 + [9.0]) is False
    assert is_noisy([1.0, 2.0] * 10) is True
    assert is_noisy([1.0, 1.0, 9.0]) is True
    assert is_noisy([1.0]) is None


# Texts


@given(texts=st.lists(st.text(min_size=1).filter(str.strip), min_size=1, max_size=5), count=st.integers(1, 60))
def test_no_text_comes_twice_however_few_there_are(texts: list[str], count: int):
    supply = Supply(Texts(texts, texts[:1]), None)

    documents = supply.documents(count)
    queries = [supply.query() for _ in range(count)]

    distinct = list(dict.fromkeys(texts))
    assert documents[: len(distinct)] == distinct[:count]
    assert len(set(documents)) == len(set(queries)) == count
    assert all(text.strip() for text in (*documents, *queries))
    assert supply.as_given == min(count, len(distinct))
    assert supply.as_given + supply.made_up == count


@pytest.mark.parametrize("tokens", [16, 100])
def test_documents_have_the_length_asked_for(tokens: int):
    tokenizer = byte_level_tokenizer().backend_tokenizer

    documents = Supply(TEXTS, tokenizer).documents(40, tokens)

    lengths = [len(tokenizer.encode(text, add_special_tokens=False).ids) for text in documents]
    assert len(set(documents)) == 40
    assert statistics.median(lengths) == pytest.approx(tokens, abs=1)
    assert min(lengths) >= tokens - 2
    assert max(lengths) <= tokens + 2


def test_of_one_token_there_are_not_forty_so_they_get_a_number():
    documents = Supply(TEXTS, byte_level_tokenizer().backend_tokenizer).documents(40, 1)

    assert len(set(documents)) == 40


# Runs


def test_all_are_asked_the_same_and_nothing_twice():
    ours, theirs = Clockwork("a", 1.0), Clockwork("b", 2.0)

    Runner(targets=[ours, theirs], supply=Supply(TEXTS, None), count=ten_tokens, limits=Budget(3600, 3)).measure(
        [Case(1), Case(4)]
    )

    documents = [document for _, asked in ours.asked for document in asked]
    assert ours.asked == theirs.asked
    assert len(ours.asked) == 2 * (1 + 3)  # each case is warmed up once
    assert len(set(documents)) == len(documents) == 1 + 3 * 1 + 4 + 3 * 4
    assert len({query for query, _ in ours.asked}) == 8


def test_warm_calls_have_the_same_documents_and_another_query():
    ours = Clockwork("a", 1.0)

    Runner(targets=[ours], supply=Supply(TEXTS, None), count=ten_tokens, limits=Budget(3600, 3), is_warm=True).measure(
        [Case(4)]
    )

    assert len({documents for _, documents in ours.asked}) == 1
    assert len({query for query, _ in ours.asked}) == 4


def test_who_stood_idle_is_woken_before_each_timed_call_and_that_call_is_not_timed():
    ours, theirs = Clockwork("a", 1.0), Clockwork("b", 2.0)

    (case,) = Runner(
        targets=[ours, theirs], supply=Supply(TEXTS, None), count=ten_tokens, limits=Budget(3600, 3)
    ).measure([Case(4)])

    for target in (ours, theirs):
        assert [query == WAKING for query, _ in target.heard] == [False, *[True, False] * 3]
        waking = [documents for query, documents in target.heard if query == WAKING]
        assert len(set(waking)) == 3
        assert all(len(documents) == 1 for documents in waking)
    assert [each.calls for each in case.targets] == [3, 3]
    assert max(each.greatest_s for each in case.targets) == 8.0


def test_one_alone_never_stands_idle():
    alone = Clockwork("a", 1.0)

    Runner(targets=[alone], supply=Supply(TEXTS, None), count=ten_tokens, limits=Budget(3600, 3)).measure([Case(4)])

    assert alone.heard == alone.asked


def test_another_one_is_first_each_time():
    order: list[str] = []

    class Noting(Clockwork):
        def time(self, query: str, documents: Sequence[str]) -> Timed:
            if query != WAKING:
                order.append(self.name)
            return super().time(query, documents)

    Runner(
        targets=[Noting("a", 1.0), Noting("b", 1.0)],
        supply=Supply(TEXTS, None),
        count=ten_tokens,
        limits=Budget(3600, 4),
    ).measure([Case(1)])

    assert order == ["a", "b", *"abbaabba"]


def test_what_does_not_fit_into_the_budget_is_left_out_and_said():
    slow = Clockwork("a", 1.0)

    small, large = Runner(targets=[slow], supply=Supply(TEXTS, None), count=ten_tokens, limits=Budget(30, 2)).measure(
        [Case(1), Case(1000)]
    )

    assert small.targets[0].calls == 2
    assert large.targets == ()
    assert large.left_out is not None
    assert "would take about 1000 s" in large.left_out
    assert len(slow.asked) == 3


def test_a_case_is_measured_once_where_there_is_no_time_for_more():
    (case,) = Runner(
        targets=[Clockwork("a", 1.0)], supply=Supply(TEXTS, None), count=ten_tokens, limits=Budget(1e-9, 9)
    ).measure([Case(3)])

    assert case.targets[0].calls == 1
    assert case.targets[0].p50_s is None


def test_contestants_that_disagree_are_told_by_how_much():
    assert [case.largest_difference for case in result().cases] == [0.25, 0.25]


# What is said


def test_tables_fit_terminals_and_say_what_they_are():

    for width in (20, 40, 64, 80, 200):
        console = Console(width=width, record=True, file=io.StringIO())
        for _, table in tables_of(result(), width):
            console.print(table)
        text = console.export_text()
        assert max(map(len, text.splitlines())) <= width
    assert re.search(r"2 +3\.00 +3\.00 +3\.00", text)
    assert [title for title, _ in tables_of(result(), 80)] == [
        "onelogit",
        "Sentence Transformers",
        "onelogit is so many times as fast as Sentence Transformers",
    ]


def test_the_licence_and_the_difference_stand_below_the_table():
    below = "\n".join(lines_below(result()))

    assert "cc-by-nc-4.0" in below
    assert "licensed cc-by-nc-4.0: not for commercial use" in notes_of(result())[0]
    assert "commercial" not in " ".join(notes_of(result(facts=FACTS._replace(licence="mit"))))
    assert "Largest difference of a logit between the two: 2.5e-01" in below
    assert "1.00 GB at most while scoring, 0.50 GB once loaded" in below


def test_noise_and_missing_percentiles_are_said():
    quiet, loaded = " ".join(notes_of(result())), " ".join(notes_of(result(load_before=3.0)))

    assert "too noisy" not in quiet
    assert "20 for p95, 100 for p99" in quiet
    assert "none came twice" in quiet
    assert "3.0 programs a core ran here before" in loaded
    assert "ran here before" not in " ".join(notes_of(result(load_before=BUSY)))
    cases = [
        replace(case, targets=tuple(replace(each, is_noisy=True) for each in case.targets)) for case in result().cases
    ]
    assert "2, 5 candidates differ so much" in " ".join(notes_of(result(cases=tuple(cases))))


def test_what_ran_before_counts_by_the_core(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "getloadavg", lambda: (8.0, 0.0, 0.0))
    monkeypatch.setattr(os, "cpu_count", lambda: 64)

    assert load_before() == 0.125


def test_figures_of_the_demo_model_are_said_to_mean_nothing():
    assert notes_of(result(model=DEMO_MODEL))[0] == DEMO_NOTE
    assert result(model=DEMO_MODEL).to_json()["notes"][0] == DEMO_NOTE
    assert DEMO_NOTE not in notes_of(result())


def test_json_says_all_that_the_table_does():
    told = json.loads(json.dumps(result().to_json()))

    assert told["facts"]["memory"]["onelogit"] == {"loaded": 5 * 10**8, "peak": 10**9}
    assert told["cases"][1]["contestants"][1]["times_as_fast"] == {"median": 3.0, "least": 3.0, "greatest": 3.0}
    assert told["notes"] == notes_of(result())


def test_dollars_in_a_name_are_no_mathematics(tmp_path: Path):
    plot_result(result(model=r"mine$\nothing_known$"), tmp_path / "a.svg")

    assert r"mine$\nothing_known$: float32 on cpu" in (tmp_path / "a.svg").read_text("utf-8")


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_a_plot_is_drawn_of_whatever_was_measured(ending: str, tmp_path: Path):
    cases = result().cases
    by_length = tuple(replace(case, candidates=2, document_tokens=8 * case.candidates) for case in cases)
    left_out = (*cases, replace(cases[0], candidates=1000, targets=(), left_out="no time"))

    for number, shown in enumerate((cases, by_length, left_out, cases[:1])):
        path = tmp_path / f"{number}.{ending}"
        plot_result(result(cases=shown), path)
        assert path.stat().st_size > 5000


# The command


def failure(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["bench", *map(str, arguments)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    return printed.err


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
        (("--plot", "/nowhere/a.png"), "in a folder that is there"),
        (("--plot", "a.txt"), "must end in .png, .svg, .pdf"),
        (("--template", "server"), "'template' is no option of a local model's; give a url, too"),
        (("--url", "http://127.0.0.1:9", "--dtype", "float32"), "'dtype' is no option of a server's"),
        (("--texts", "/nowhere"), "/nowhere cannot be read"),
        (("--texts", os.devnull), "/dev/null holds no documents"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_a_model_is_looked_for(
    arguments: tuple[str, ...], complaint: str, capsys: pytest.CaptureFixture[str]
):
    assert complaint in failure(capsys, "no-such/model", *arguments)


def test_a_peer_that_is_not_installed_or_cannot_be_asked_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    compared = ("--compare", "sentence-transformers")
    assert "both in this machine" in failure(capsys, "http://127.0.0.1:9", *compared)
    monkeypatch.setattr("onelogit.errors.find_spec", lambda name: None)
    assert "pip install 'sentence-transformers>=5.4'" in failure(capsys, DEMO_MODEL, *compared)


def test_numbers_are_ascending_and_each_once():
    assert numbers_of("100, 1,10,1", "--candidates") == [1, 10, 100]


def test_a_model_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str]):
    assert "there is no folder '/nowhere'" in failure(capsys, "/nowhere")


def test_both_are_measured_on_the_same_weights_and_agree(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    texts, plot = tmp_path / "texts.txt", tmp_path / "bench.png"
    texts.write_text("\n".join(f"document number {number} says so" for number in range(9)))
    arguments = ["--candidates", "3", "--repeats", "2", "--dtype", "float32", "--texts", texts, "--seconds", "99"]
    arguments += ["--compare", "sentence-transformers", "--json", "--plot", plot]

    assert main(["bench", DEMO_MODEL, *map(str, arguments)]) == 0

    printed = capsys.readouterr()
    told = json.loads(printed.out)
    (case,) = told["cases"]
    assert printed.err == ""
    assert [(each["name"], each["calls"]) for each in case["contestants"]] == [
        ("onelogit", 2),
        ("Sentence Transformers", 2),
    ]
    assert case["largest_difference"] < 1e-4
    assert case["prompt_tokens"] > 50
    assert told["documents_as_given"] == told["documents_made_up"] + 9 == 9
    assert (told["facts"]["dtype"], told["facts"]["device"]) == ("float32", "cpu")
    assert all(0 < each["loaded"] <= each["peak"] for each in told["facts"]["memory"].values())
    assert told["facts"]["licence"] == "cc-by-sa-4.0"
    assert told["notes"][0] == DEMO_NOTE
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_a_server_is_measured_by_its_url(capsys: pytest.CaptureFixture[str], tiny_qwen: Tiny):
    with Reranker.load(tiny_qwen.folder) as reranker, serving(FakeServer(reranker=reranker)) as server:
        arguments = ["--candidates", "2", "--lengths", "9", "--repeats", "2", "--json"]
        code = main(["bench", str(tiny_qwen.folder), "--url", server.url, *arguments])

    told = json.loads(capsys.readouterr().out)
    assert code == 0
    assert (told["model"], told["server"]) == (str(tiny_qwen.folder), server.url)
    assert told["facts"]["device"] is None
    assert told["facts"]["memory"] == {}
    assert told["cases"][0]["contestants"][0]["tokens_per_s"] > 0
    assert len(server.requests.bodies) >= 2


def test_a_length_that_leaves_no_room_or_that_nobody_can_count_is_refused():
    with pytest.raises(InputError, match="documents of 64 tokens leave no room for a query"):
        check_lengths([Case(1, 8), Case(1, 64)], 64, has_tokenizer=True)
    with pytest.raises(InputError, match="name what the server serves"):
        check_lengths([Case(1, 8)], None, has_tokenizer=False)
    check_lengths([Case(1)], None, has_tokenizer=False)


def test_a_process_that_dies_or_fails_is_an_error_of_ours():
    child = Child("a child", Doomed)

    with pytest.raises(OnelogitError, match="RuntimeError: it broke"):
        child.ask("fail")
    with pytest.raises(OnelogitError, match=r"the process of a child ended with code -9; was it killed for its memory"):
        child.ask("time", "query", [])
    with pytest.raises(OnelogitError, match="ended"):
        child.ask("time", "query", [])
    child.close()


def test_our_errors_stay_ours_over_there_and_those_of_others_become_one_line():
    def refuse() -> None:
        raise InputError("it must be a string")

    assert type(_outcome(refuse)[1]) is InputError
    assert str(_outcome(Doomed().fail)[1]) == "RuntimeError: it broke"
    assert _outcome(lambda: 5) == (5, None)


def test_ctrl_c_in_mid_run_ends_everything_and_leaves_the_terminal_as_it_was(tiny_qwen: Tiny):
    with Reranker.load(tiny_qwen.folder) as reranker:
        served, sevens = FakeServer(reranker=reranker), iter([0.0, *[60.0] * 9])

        def slow(path: str, body: Body | None) -> Response:
            """The second call with seven documents never ends: the first one warms up."""
            delay_s = next(sevens) if body is not None and len(body["input"]) == 7 else 0.0
            return replace(served(path, body), delay_s=delay_s)

        with serving(slow) as server:
            arguments = ["bench", tiny_qwen.folder, "--url", server.url, "--candidates", "7", "--seconds", "600"]
            ran = in_terminal(["-m", "onelogit", *arguments], interrupt_at="7 documents, call 1", timeout_s=50)

    assert ran.code == 130
    assert "Traceback" not in ran.screen
    assert "loading" in ran.screen
    assert ran.screen.rindex("\x1b[?25h") > ran.screen.rindex("\x1b[?25l")  # the cursor is back
