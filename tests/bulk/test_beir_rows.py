"""A folder in BEIR format as the input of a bulk run: which documents are ranked for which query."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from onelogit import InputError, Reranker
from onelogit.bulk import beir_rows
from onelogit.bulk.job import RunSummary, run
from onelogit.bulk.shards import ShardReader, plan_shards
from support.bulk_rows import bulk_command, ranking, results
from support.evaluation_data import CORPUS, LABELS, QUERIES, write_beir, write_lines, write_run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_beir(tmp_path / "data")


def pairs(folder: Path) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for row in results(folder):
        assert row["error"] is None
        found.setdefault(row["query_id"], set()).add(row["document_id"])
    return found


def test_the_judged_documents_are_ranked_with_their_titles(
    folder: Path, model: str, reranker: Reranker, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    rows = [{"_id": id, "title": f"T {id}", "text": text, "url": "u"} for id, text in CORPUS.items()]
    write_lines(folder / "corpus.jsonl", rows)

    assert run(folder, tmp_path / "out", model) == RunSummary(pairs=5, errors=0)

    expected = []
    for query_id, labels in LABELS.items():
        ids = [*labels]
        ranked = reranker.rank(QUERIES[query_id], [f"T {id} {CORPUS[id]}" for id in ids])
        expected += [
            (query_id, ids[each.index], rank, pytest.approx(each.logit, abs=1e-5))
            for rank, each in enumerate(ranked, 1)
        ]
    assert sorted(ranking(results(tmp_path / "out")), key=lambda row: (row[0], row[2])) == expected
    assert len(caplog.messages) == 2
    assert '"url" (6)' in caplog.messages[0]
    assert "the documents judged in test.tsv for each of 3 queries, 5 pairs" in caplog.messages[1]


def test_a_run_names_the_documents_to_rank(folder: Path, model: str, tmp_path: Path):
    found = {"q1": ["d3", "d1", "d6"], "q3": ["d6"]}
    file = write_run(tmp_path / "bm25.trec", found)

    assert bulk_command(folder, tmp_path / "out", "--model", model, "--run", file, "--slice-rows", 1) == 0

    assert pairs(tmp_path / "out") == {query: set(ids) for query, ids in found.items()}


def test_without_judgements_all_documents_are_ranked_for_each_query(
    folder: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (folder / "qrels" / "test.tsv").unlink()
    for name in ("corpus.jsonl", "queries.jsonl"):
        (folder / f"{name}.gz").write_bytes(gzip.compress((folder / name).read_bytes()))
        (folder / name).unlink()

    run(folder, tmp_path / "out", model)

    assert pairs(tmp_path / "out") == {id: set(CORPUS) for id in QUERIES}
    monkeypatch.setattr(beir_rows, "_MAX_PAIRS", 17)
    with pytest.raises(InputError, match="3 queries with all 6 documents are 18 pairs, more than 17; pass --run FILE"):
        run(folder, tmp_path / "other", model)


@pytest.mark.parametrize("name", ["test.jsonl", "test.csv", "test"])
def test_judgements_in_another_form_are_not_ignored(name: str, folder: Path, model: str, tmp_path: Path):
    (folder / "qrels" / "test.tsv").rename(folder / "qrels" / name)

    with pytest.raises(InputError, match=f"has no file with judgements, which end in .tsv, only '{name}'"):
        run(folder, tmp_path / "out", model)


def test_queries_without_judgements_are_counted(
    folder: Path, model: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    (folder / "qrels" / "test.tsv").write_text("q2\td1\t0\n", encoding="utf-8")

    run(folder, tmp_path / "out", model)

    assert "the documents judged in test.tsv for each of 1 of 3 queries, 1 pairs" in caplog.text


def test_a_split_chooses_the_judgements(folder: Path, model: str, tmp_path: Path):
    (folder / "qrels" / "dev.tsv").write_text("query-id\tcorpus-id\tscore\nq2\td1\t0\n", encoding="utf-8")

    assert bulk_command(folder, tmp_path / "out", "--model", model, "--split", "dev") == 0

    assert pairs(tmp_path / "out") == {"q2": {"d1"}}


def test_shards_contain_every_row_once_and_the_digest_depends_on_the_documents_to_rank(folder: Path, tmp_path: Path):
    for slice_rows, count in ((1, 3), (2, 2), (9, 1)):
        plan = plan_shards(folder, slice_rows)
        reader = ShardReader()
        rows = [row for shard in plan.shards for row in reader.rows(shard)]
        assert len(plan.shards) == count
        assert [row["query_id"] for row in rows] == [*LABELS]  # type: ignore[index]

    file = write_run(tmp_path / "run", {"q1": ["d1"]})
    digests = {plan_shards(folder, 9).digest, plan_shards(folder, 9, beir_rows.Candidates(file)).digest}
    write_lines(folder / "corpus.jsonl", [{"_id": id, "text": "other"} for id in CORPUS])
    assert len(digests | {plan_shards(folder, 9).digest}) == 3


def remove(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def append(name: str, line: object) -> Callable[[Path], object]:
    def damage(folder: Path) -> None:
        with (folder / name).open("a", encoding="utf-8") as stream:
            stream.write(line if isinstance(line, str) else json.dumps(line) + "\n")

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove("queries.jsonl"), "has no queries.jsonl; a folder in BEIR format has"),
        (append("corpus.jsonl", {"_id": "d1", "text": "a"}), "line 7: the id 'd1' occurs twice; correct it"),
        (append("corpus.jsonl", {"_id": "d7", "text": None}), 'line 7: "text" must be a string, not NoneType; correct'),
        (append("queries.jsonl", {"_id": "q9", "text": " "}), 'line 4: "text" is empty'),
        (append("qrels/test.tsv", "q1\tnowhere\t1\n"), "the document 'nowhere' is not in the corpus; correct it"),
    ],
)
def test_a_damaged_folder_is_one_error(damage: Callable[[Path], object], message: str, folder: Path, tmp_path: Path):
    damage(folder)

    with pytest.raises(InputError) as error:
        run(folder, tmp_path / "out", "unused")
    assert message in str(error.value)
    assert "--skip-bad" not in str(error.value)


def test_a_run_or_a_split_needs_a_folder_in_beir_format(
    source: Path, folder: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    for arguments, message in (
        ((source, tmp_path / "out", "--split", "test"), "--run and --split need a folder in BEIR format"),
        ((folder, tmp_path / "out", "--split", "test", "--run", "x"), "pass only one"),
        ((folder, tmp_path / "out", "--run", tmp_path / "none"), "none cannot be read"),
    ):
        assert bulk_command(*arguments, "--model", model) == 2
        assert message in capsys.readouterr().err


def test_a_folder_of_folders_in_beir_format_is_refused(folder: Path, tmp_path: Path):
    with pytest.raises(InputError, match=f"contains a folder in BEIR format, {folder}; name this folder"):
        plan_shards(tmp_path, 9)
