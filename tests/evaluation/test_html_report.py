"""The HTML page of `onelogit evaluate`: its content, and that texts of the data are never interpreted as HTML."""

import base64
import hashlib
import html
import json
import re
import shlex
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from onelogit import DEMO_MODEL
from onelogit.cli.main import main
from onelogit.evaluation.bootstrap import ConfidenceInterval, MeanEstimate
from onelogit.evaluation.report.html_report import PlotScale, change_bars
from onelogit.evaluation.report.tables import _coloured
from onelogit.evaluation.systems import redact_credentials
from onelogit.options import DEMO_NOTE
from support.evaluation_data import list_row, write_beir, write_lines
from support.hostile import CONTROLS, HOSTILE, SCRIPT, write_hostile_page

ALLOWED = {
    *("html", "head", "meta", "title", "style", "body", "main", "header", "footer", "section", "h1", "h2", "h3", "h4"),
    *("h5", "p", "span", "small", "ul", "ol", "li", "div", "table", "thead", "tbody", "tr", "th", "td", "figure"),
    *("figcaption", "svg", "line", "circle", "rect", "text", "details", "summary", "dl", "dt", "dd", "pre", "bdi"),
}


class Parsed(HTMLParser):
    """A page as a browser's parser sees it: tags, attributes, text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.content: list[str] = []
        self.metas: list[dict[str, str | None]] = []
        self.feed(page)
        self.text = " ".join(" ".join(self.content).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag == "meta":
            self.metas.append(dict(attrs))

    def handle_data(self, data: str) -> None:
        self.content.append(data)


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_hostile_page(tmp_path_factory.mktemp("hostile")).read_text("utf-8")


def page_of(tmp_path: Path, *arguments: object) -> Parsed:
    page = tmp_path / "page.html"
    folder = ["--output", tmp_path / "runs", "--report", page, "--overwrite"]
    assert main([str(part) for part in ("evaluate", *arguments, *folder)]) == 0
    return Parsed(page.read_text("utf-8"))


def test_hostile_texts_stay_text(hostile_page: str):
    parsed = Parsed(hostile_page)

    assert set(parsed.tags) <= ALLOWED
    names = {name for name, _ in parsed.attributes}
    assert not names & {"src", "href", "style", "srcdoc", "action"}
    assert not [name for name in names if name.startswith("on")]
    for text in HOSTILE:
        assert text[:200] in parsed.text
    assert "<b onclick=alert(1)>&amp;'\"" in parsed.text
    assert "<img src=x onerror=alert(1)>.jsonl" in parsed.text
    assert f"{SCRIPT} 0" in parsed.text
    assert "a\u202eb\ufffdc\ufffdd" in parsed.text
    assert CONTROLS not in parsed.text


def test_the_content_security_policy_allows_only_the_pages_own_style(hostile_page: str):
    (style,) = re.findall(r"<style>(.*?)</style>", hostile_page, re.DOTALL)[:1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    (policy,) = [meta["content"] for meta in Parsed(hostile_page).metas if "http-equiv" in meta]

    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert "url(" not in style
    assert "@import" not in style


def test_the_page_shows_results_data_and_the_command_to_repeat_them(tmp_path: Path):
    folder = write_beir(tmp_path / "data", fields={"q1": {"language": "en"}})

    text = page_of(tmp_path, DEMO_MODEL, "--data", folder, "--slice", "language").text

    assert re.search(
        r"Ranking quality on data 3 queries \d( to \d)? candidates per query, from BM25 bfloat16 on cpu "
        r"scored in \d+\.\d s \d{4}-\d\d-\d\d \d\d:\d\d ",
        text,
    )
    assert DEMO_NOTE.partition(".")[0] in text
    assert "3 queries say little about other queries" in text
    assert "in random order (the mean of 5), and" in text
    assert "licence cc-by-sa-4.0" in text
    assert "Given a web search query, retrieve relevant passages that answer the query (default)" in text
    assert f"onelogit evaluate {DEMO_MODEL} --data {folder} --slice language" in text
    assert re.search(r"data, digest [0-9a-f]{16}", text)
    assert re.search(r"python 3\S+, onelogit 0\S+, ir-measures \S+, pytrec-eval-terrier \S+, bm25s \S+", text)
    assert "not a probability" in text


@pytest.mark.parametrize("given", [[], ["--overwrite"], ["--resume"]])
def test_the_command_on_the_page_works_in_the_same_folder_and_elsewhere(
    given: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    data = write_lines(tmp_path / "x.jsonl", [list_row()])
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", DEMO_MODEL, "--data", str(data), "--report", "page.html", *given]) == 0
    page = Path("page.html").read_text("utf-8")
    (command,) = re.findall(r"<pre>onelogit (.*?)</pre>", page)

    for place in (tmp_path, tmp_path / "elsewhere"):
        place.mkdir(exist_ok=True)
        monkeypatch.chdir(place)
        assert main(shlex.split(html.unescape(command))) == 0
        assert _without_times(Path("page.html").read_text("utf-8")) == _without_times(page)


def _without_times(page: str) -> str:
    return re.sub(r" --overwrite|\d+\.\d s\b|\d{4}-\d\d-\d\d \d\d:\d\d", "", page)


def test_relevant_documents_below_the_shown_ones_can_be_opened(tmp_path: Path):
    documents = ["What is the capital of China?", *(f"Rome is old, {n}." for n in range(9)), "Bananas are yellow."]
    row = list_row(query="What is the capital of China?", documents=documents, labels=[0, 1, *[0] * 8, 2])
    data = write_lines(tmp_path / "x.jsonl", [row])

    parsed = page_of(tmp_path, DEMO_MODEL, "--data", data)
    cut = page_of(tmp_path, DEMO_MODEL, "--data", data, "--candidates", 7)

    first_stage = parsed.text.partition("Before: the first stage")[2].partition("After: reranked")[0]
    assert first_stage
    assert "1 relevant document further below, from rank 11 11 Bananas are yellow. relevant (2)" in first_stage
    assert "not among the candidates" not in parsed.text.partition("Query by query")[2]
    assert "1 relevant document not among the candidates – Bananas are yellow." in cut.text


def test_random_order_is_a_baseline_in_plots_and_cards_and_the_axis_is_no_row(tmp_path: Path):
    data = write_lines(tmp_path / "x.jsonl", [list_row(n) for n in range(3)])

    parsed = page_of(tmp_path, DEMO_MODEL, "--data", data)

    entries = json.loads((tmp_path / "runs" / "figures.json").read_text("utf-8"))["entries"]
    first, random = (entry["means"]["nDCG@10"]["mean"] for entry in entries[:2])
    assert f"first stage {first:.3f} · random order {random:.3f}" in parsed.text
    classes = [value for name, value in parsed.attributes if name == "class"]
    assert classes.count("reference of-random") == classes.count("reference") == 3  # one for each row
    assert "nDCG@10, mean over the queries" in parsed.text
    labels = re.findall(r'<span class="label"[^>]*>(.*?)</span>', (tmp_path / "page.html").read_text("utf-8"))
    assert labels == ["first stage", "random order", "demo", ""]


def test_differences_between_systems_and_small_slices_are_on_the_page(tmp_path: Path):
    rows = [list_row(n, language="ab"[n % 2]) for n in range(6)]
    options = ["--instruction", "default", "--instruction", "Bananas.", "--slice", "language"]

    text = page_of(tmp_path, DEMO_MODEL, "--data", write_lines(tmp_path / "x.jsonl", rows), *options).text

    (difference,) = json.loads((tmp_path / "runs" / "figures.json").read_text("utf-8"))["system_differences"]
    mean, (low, high) = (difference["differences"]["nDCG@10"][name] for name in ("mean", "interval_95"))
    shown = f"default instruction less “Bananas.” {mean:+.3f} ({low:+.3f} to {high:+.3f})"
    assert shown.replace("-", "−") in text
    assert "a 3 queries: the intervals are wide" in text
    assert "2 slices were looked at" in text


def test_pairwise_comparisons_are_shown_with_intervals(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    rows = [list_row(n, changed_labels=[1, 0, 0]) for n in range(6)]
    options = ["--instruction", "default", "--instruction", "Bananas.", "--pairwise"]

    text = page_of(tmp_path, DEMO_MODEL, "--data", write_lines(tmp_path / "x.jsonl", rows), *options).text

    (pairing,) = json.loads((tmp_path / "runs" / "figures.json").read_text("utf-8"))["pairings"]
    printed = " ".join(capsys.readouterr().out.split())
    for name, form in (("flipped", ".1%"), ("kendall_tau", ".3f"), ("p_mrr", "+.3f")):
        mean, (low, high) = (format(pairing[name]["mean"], form), pairing[name]["interval_95"])
        within = f"({low:{form}} to {high:{form}})"
        assert f"{mean} {within}".replace("-", "−") in text
        assert mean in printed
        assert within in printed


def test_documents_are_shown_before_and_after_with_their_ranks(tmp_path: Path):
    documents = [
        "Bananas are yellow.",
        "Rome is old.",
        "What is the capital of China? Beijing is the capital of China.",
    ]
    gained = list_row(query="What is the capital of China?", documents=documents, labels=[0, 0, 1])
    lost = list_row(query="What is the capital of China?", documents=documents, labels=[1, 0, 0])
    gain = page_of(tmp_path, DEMO_MODEL, "--data", write_lines(tmp_path / "gain.jsonl", [gained])).text
    loss = page_of(tmp_path, DEMO_MODEL, "--data", write_lines(tmp_path / "loss.jsonl", [lost])).text

    assert (
        "No query is ranked worse than by the first stage. Largest gains What is the capital of China? 0.500 → 1.000"
        in gain
    )
    assert "Before: the first stage 1 Bananas are yellow. rank after:" in gain
    assert re.search(
        r"3 What is the capital of China\? Beijing is the capital of China. relevant · rank after: 1", gain
    )
    assert (
        "After: reranked 1 What is the capital of China? Beijing is the capital of China. relevant · rank before: 3"
        in gain
    )
    assert re.search(r"Largest losses What is the capital of China\? 1.000 → 0\.", loss)
    assert "1 better , 0 the same, 0 worse" in gain
    assert "0 better , 0 the same, 1 worse" in loss


def test_a_non_commercial_licence_is_shown(tmp_path: Path):
    model = tmp_path / "model"
    shutil.copytree(DEMO_MODEL, model)
    card = model / "README.md"
    card.write_text(card.read_text("utf-8").replace("license: cc-by-sa-4.0", "license: cc-by-nc-4.0"), "utf-8")

    text = page_of(tmp_path, model, "--data", write_lines(tmp_path / "x.jsonl", [list_row()])).text

    assert "model is licensed cc-by-nc-4.0: not for commercial use." in text
    assert text.count("not for commercial use") == 3


def test_a_password_in_a_url_is_not_shown():
    shown = redact_credentials("onelogit evaluate http://me:pass@host:8000 x@y")

    assert shown == "onelogit evaluate http://…@host:8000 x@y"


def test_change_bars_go_from_the_largest_gain_to_the_largest_loss():
    drawn = change_bars([0.0, -0.5, 1.0])

    assert [bar.kind for bar in drawn] == ["gain", "same", "loss"]
    assert drawn[0].y == 4
    assert drawn[0].height == 46
    assert (drawn[2].y, drawn[2].height) == (50, 23)
    assert len(change_bars([n / 1000 for n in range(1000)])) == 160
    assert change_bars([]) == []


@pytest.mark.parametrize(
    ("mean", "verdict", "colour"),
    [
        (MeanEstimate(0.2, ConfidenceInterval(0.1, 0.3)), "gain", "green"),
        (MeanEstimate(-0.2, ConfidenceInterval(-0.3, -0.1)), "loss", "red"),
        (MeanEstimate(0.2, ConfidenceInterval(-0.1, 0.3)), "same", ""),
        (MeanEstimate(0.2, ConfidenceInterval(0.0, 0.3)), "same", ""),
        (MeanEstimate(0.2, None), "same", ""),
    ],
)
def test_only_a_difference_whose_interval_excludes_zero_has_a_colour(mean: MeanEstimate, verdict: str, colour: str):
    assert mean.verdict == verdict
    assert _coloured(mean).style == colour


def test_a_plot_scale_has_margins_and_round_ticks():
    scale = PlotScale(0.4, 0.6)

    assert scale.at(0.4) == "2.00%"
    assert scale.at(0.5) == "50.00%"
    assert scale.at(0.6) == "98.00%"
    assert scale.ticks == pytest.approx([0.4, 0.45, 0.5, 0.55, 0.6])
    assert PlotScale(0.0, 1.0).ticks == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
