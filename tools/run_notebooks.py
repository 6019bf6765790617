"""The notebooks of examples/ -> the same with the outputs of a fresh run.

    python tools/run_notebooks.py [NAME ...]

A test runs them, and compares their outputs with those that are written here.
"""

import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from nbclient import NotebookClient
from traitlets.config import Config

EXAMPLES = Path(__file__).parents[1] / "examples"
_TIMEOUT_S = 300  # of one cell; the first imports torch and a framework
_QUIET = {  # what depends on the machine, or on the packages beside a notebook, is not for readers
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HAYSTACK_TELEMETRY_ENABLED": "False",
    "PYTHONWARNINGS": "ignore:IProgress not found",  # tqdm's, where no ipywidgets are installed
}


def run(file: Path) -> nbformat.NotebookNode:
    """A notebook with the outputs of a run in a kernel of its own, which works in the notebook's folder."""
    notebook = nbformat.read(file, as_version=4)
    resources = {"metadata": {"path": str(file.parent)}}
    with TemporaryDirectory() as folder:
        config = Config()
        if os.name == "posix":  # sockets that only this user can open, instead of ports
            config.KernelManager.update({"transport": "ipc", "ip": f"{folder}/kernel"})
        client = NotebookClient(
            notebook,
            timeout=_TIMEOUT_S,
            kernel_name="python3",
            resources=resources,
            coalesce_streams=True,
            config=config,
        )
        client.execute(env={**os.environ, **_QUIET})
    for cell in notebook.cells:
        cell.metadata = {}  # the times of the run
    notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return notebook


def main(names: list[str]) -> None:
    for file in [EXAMPLES / f"{name}.ipynb" for name in names] or sorted(EXAMPLES.glob("*.ipynb")):
        nbformat.write(run(file), file)
        print(file)


if __name__ == "__main__":
    main(sys.argv[1:])
