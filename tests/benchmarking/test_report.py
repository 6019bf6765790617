"""Tables, notes, JSON and plots of a benchmark's results."""

import io
import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from onelogit import DEMO_MODEL
from onelogit.benchmarking.machine import load_per_core
from onelogit.benchmarking.report import _round_ticks, lines_below, plot_result, tables_of
from onelogit.benchmarking.result import BUSY_LOAD, notes_of
from onelogit.benchmarking.runner import Case
from onelogit.cli.bench import _print
from onelogit.options import DEMO_NOTE
from support.benchmark_targets import FACTS, FakeTarget, result, runner


def test_tables_fit_terminals_and_have_titles():
    for width in (20, 40, 64, 80, 200):
        console = Console(width=width, record=True, file=io.StringIO())
        for table in tables_of(result()):
            console.print(table)
        text = console.export_text()
        assert max(map(len, text.splitlines())) <= width
    assert re.search(r"2 +3\.00 +3\.00 +3\.00", text)
    assert [table.title for table in tables_of(result())] == [
        "onelogit",
        "Sentence Transformers",
        "How many times as fast onelogit is as Sentence Transformers",
    ]


def test_the_licence_and_the_largest_difference_are_printed_below_the_tables():
    below = "\n".join(lines_below(result()))

    assert "cc-by-nc-4.0" in below
    assert "licensed cc-by-nc-4.0: not for commercial use" in notes_of(result())[0]
    assert "commercial" not in " ".join(notes_of(result(facts=replace(FACTS, licence="mit"))))
    assert "Largest difference between the logits of the two: 2.5e-01" in below
    assert "at most 1.00 GB while scoring, 0.50 GB after loading" in below


def test_notes_report_noise_and_missing_percentiles():
    quiet, loaded = " ".join(notes_of(result())), " ".join(notes_of(result(load_before=3.0)))

    assert "vary too much" not in quiet
    assert "20 for p95, 100 for p99" in quiet
    assert "none was used twice" in quiet
    assert "3.0 programs per core were running before" in loaded
    assert "running before" not in " ".join(notes_of(result(load_before=BUSY_LOAD)))
    cases = [
        replace(case, targets=tuple(replace(each, is_noisy=True) for each in case.targets)) for case in result().cases
    ]
    assert "2, 5 candidates vary too much" in " ".join(notes_of(result(cases=tuple(cases))))
    one = replace(cases[0], candidates=1)
    assert "calls with 1 candidate vary too much" in " ".join(notes_of(result(cases=(one,))))


def test_the_load_is_per_core(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "getloadavg", lambda: (8.0, 0.0, 0.0))
    monkeypatch.setattr(os, "cpu_count", lambda: 64)

    assert load_per_core() == 0.125


def test_the_demo_models_results_have_a_note_that_they_mean_nothing():
    assert notes_of(result(model=DEMO_MODEL))[0] == DEMO_NOTE
    assert result(model=DEMO_MODEL).to_json()["notes"][0] == DEMO_NOTE
    assert DEMO_NOTE not in notes_of(result())


def test_json_has_everything_that_is_printed():
    printed = json.loads(json.dumps(result().to_json()))

    assert printed["facts"]["memory"]["onelogit"] == {"loaded": 5 * 10**8, "peak": 10**9}
    assert printed["cases"][1]["contestants"][1]["times_as_fast"] == {"median": 3.0, "least": 3.0, "greatest": 3.0}
    assert printed["notes"] == notes_of(result())


def test_dollars_in_a_name_are_not_mathematics(tmp_path: Path):
    plot_result(result(model=r"mine$\nothing_known$"), tmp_path / "a.svg")

    assert r"mine$\nothing_known$: float32 on cpu" in (tmp_path / "a.svg").read_text("utf-8")


def test_load_times_are_printed_below_the_tables():
    below = lines_below(result())

    assert below[:2] == ["onelogit was loaded in 2.50 s", "Sentence Transformers was loaded in 750.0 ms"]
    assert result().to_json()["facts"]["load_s"] == {"onelogit": 2.5, "Sentence Transformers": 0.75}


def test_reasons_not_to_use_the_results_are_printed_first(capsys: pytest.CaptureFixture[str]):
    _print(result(load_before=3.0))

    printed = " ".join(capsys.readouterr().out.split())
    order = ("commercial", "so times are not reliable", "candidates", "was loaded in", "Versions", "A percentile needs")
    places = [printed.index(text) for text in order]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("bottom", "top"), [(1, 1000), (0.5, 30), (11, 18), (99, 101), (5, 5.01), (1e-3, 1e6), (0.8, 1.3), (2000, 6000)]
)
def test_any_range_has_at_least_three_ticks(bottom: float, top: float):
    ticks = _round_ticks(bottom, top)

    assert 3 <= len(ticks) <= 9
    assert ticks == sorted(set(ticks))
    assert all(0.99 * bottom <= tick <= 1.01 * top for tick in ticks)


@pytest.mark.parametrize("seconds", [(1.0,), (1.0, 1.2, 0.7), (1e-4, 2e-4), (1e4, 1.1e4)])
@pytest.mark.parametrize("candidates", [(1, 10, 100, 1000), (7,)])
def test_a_plot_has_ticks_and_a_legend_for_its_band(
    candidates: tuple[int, ...], seconds: tuple[float, ...], tmp_path: Path
):
    cases = runner(FakeTarget("onelogit", *seconds), repeats=6, seconds=1e9).measure([Case(n) for n in candidates])
    plot_result(result(cases=tuple(cases)), tmp_path / "a.svg")

    drawn = (tmp_path / "a.svg").read_text("utf-8")
    assert "<!-- from the fastest to the slowest call -->" in drawn
    for axis in ("matplotlib.axis_2", "matplotlib.axis_4"):  # the y axes of both plots
        content = drawn.partition(f'<g id="{axis}">')[2].partition('<g id="matplotlib.axis')[0]
        assert content.count('<g id="ytick_') >= 3


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_any_result_can_be_plotted(ending: str, tmp_path: Path):
    cases = result().cases
    by_length = tuple(replace(case, candidates=2, document_tokens=8 * case.candidates) for case in cases)
    left_out = (*cases, replace(cases[0], candidates=1000, targets=(), left_out="no time"))

    for number, shown in enumerate((cases, by_length, left_out, cases[:1])):
        path = tmp_path / f"{number}.{ending}"
        plot_result(result(cases=shown), path)
        assert path.stat().st_size > 5000
