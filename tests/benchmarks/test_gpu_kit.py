"""What gpu_kit.py takes along for a machine with a GPU and no network."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from onelogit import DEMO_MODEL

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """A folder in BEIR format with more documents than the kit takes."""
    folder = tmp_path / "some-texts"
    folder.mkdir()
    rows = [json.dumps({"_id": str(number), "text": f"Document {number}."}) for number in range(2_500)]
    (folder / "corpus.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (folder / "queries.jsonl").write_text('{"_id": "1", "text": "Which document?"}\n', encoding="utf-8")
    (folder / "LICENSE.md").write_text("CC BY 4.0", encoding="utf-8")
    return folder


def make(out: Path, texts: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, FOLDER / "gpu_kit.py", "--tokenizer", DEMO_MODEL, "--data", texts, "--out", out]
    return subprocess.run([*command, "--packages", *more], capture_output=True, text=True, check=False, timeout=120)


def test_the_kit_has_the_tokenizer_the_first_texts_their_licence_and_one_script(texts: Path, tmp_path: Path):
    out = tmp_path / "kit"

    made = make(out, texts)

    assert made.returncode == 0, made.stderr
    assert {str(file.relative_to(out)) for file in out.rglob("*") if file.is_file()} >= {
        *("run.sh", "tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json"),
        *(f"texts/some-texts/{name}" for name in ("corpus.jsonl", "queries.jsonl", "LICENSE.md")),
    }
    assert len((out / "texts/some-texts/corpus.jsonl").read_text().splitlines()) == 2_000
    assert json.loads(made.stdout)["bytes"] == sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    assert subprocess.run(["bash", "-n", out / "run.sh"], check=False).returncode == 0
    assert "exists" in make(out, texts).stderr


@pytest.mark.usefixtures("scripts")
def test_the_script_runs_only_measurements_that_exist():
    import gpu_kit
    import gpu_measurements

    lines = [line for line in gpu_kit.RUN.splitlines() if " bench " in f" {line}" and "bench()" not in line]
    named = [name for line in lines for name in line.split()[-1].split(",")]

    assert len(lines) == 3
    assert set(named) | {"ceiling-after"} == set(gpu_measurements.MEASUREMENTS)


@pytest.mark.usefixtures("scripts")
def test_a_kit_that_is_too_large_names_its_largest_files(texts: Path, monkeypatch: pytest.MonkeyPatch):
    import gpu_kit

    monkeypatch.setattr(gpu_kit, "LIMIT_BYTES", 10)

    with pytest.raises(SystemExit, match=r"more than 0 MB; the largest files: corpus.jsonl"):
        gpu_kit.check_size(texts)
