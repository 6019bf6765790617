"""The notebooks run, and their outputs are those that are written in them."""

import re
import runpy
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
NUMBER = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")


def outputs(notebook: nbformat.NotebookNode) -> list[str]:
    """The texts that a reader sees below the cells."""
    shown = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            assert output.get("name") != "stderr", output
            shown += (
                [output.text] if output.output_type == "stream" else [output.data[kind] for kind in sorted(output.data)]
            )
    return shown


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_runs_and_shows_what_is_written_in_it(file: Path):
    written = outputs(nbformat.read(file, as_version=4))

    ran = outputs(runpy.run_path(str(ROOT / "tools" / "run_notebooks.py"))["run"](file))

    advice = f"run python tools/run_notebooks.py {file.stem}"
    assert [NUMBER.sub("0.0", text) for text in ran] == [NUMBER.sub("0.0", text) for text in written], advice
    numbers = [[float(each) for text in texts for each in NUMBER.findall(text)] for texts in (ran, written)]
    assert numbers[0] == pytest.approx(numbers[1], abs=0.1), advice  # half precision differs between processors


def test_each_framework_has_a_notebook_with_outputs_and_no_trace_of_the_machine():
    assert [file.stem for file in NOTEBOOKS] == ["haystack", "langchain", "llama_index"]
    for file in NOTEBOOKS:
        notebook = nbformat.read(file, as_version=4)
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert [cell.execution_count for cell in code] == [*range(1, len(code) + 1)]
        assert any("<table " in text for text in outputs(notebook))
        assert not re.search(r"/(home|root|Users|tmp|work)/", file.read_text(encoding="utf-8"))
