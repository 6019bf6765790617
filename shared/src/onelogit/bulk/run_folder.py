"""The folder OUT: whose results it holds, which slices are scored, and when it is finished.

`_run.json` says whose; `_scored/` holds a part for each slice that is scored, until all are, and are ranked. Readers of
Parquet folders pass over both, for their names begin with "_".
"""

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from onelogit.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a run is, to be told apart from others; and once it is finished, what came of it.

    Attributes:
        model: its name and a digest.
        input: a digest of names, sizes and contents.
        slice_rows: the most rows of a slice.
        pairs: how many it wrote, once it is finished.
        errors: how many of them are errors.
    """

    model: str
    input: str
    slice_rows: int
    pairs: int | None = None
    errors: int | None = None


_NOBODY = Run(model="", input="", slice_rows=0)  # whose a folder is while it is cleared


class RunFolder:
    """The folder of one run.

    Args:
        path: of the folder; made when it is claimed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.scored = path / "_scored"
        self.drafts = path / "_drafts"
        self._note = path / "_run.json"

    def claim(self, run: Run, *, is_overwriting: bool) -> Run:
        """Begin a run, or go on with it; what was written down of it, which says whether it is finished.

        Raises:
            InputError: the folder holds something else.
        """
        found = self._found()
        if found is not None and (found.model, found.input, found.slice_rows) == (run.model, run.input, run.slice_rows):
            if not is_overwriting:
                return found
        elif found is not None and found != _NOBODY and not is_overwriting:
            raise InputError(
                f"{self.path} holds results of {_difference(found, run)}; pass --overwrite to replace them, or name "
                "another folder"
            )
        self._clear()
        self.write(run)
        return run

    def write(self, run: Run) -> None:
        """Write down what the run is."""
        draft = self._note.with_name(f".{self._note.name}.{os.getpid()}")
        draft.write_text(json.dumps(asdict(run)), encoding="utf-8")
        draft.replace(self._note)

    def part_of_slice(self, number: int) -> Path:
        """Where the pairs of a slice are written once they are scored."""
        return self.scored / f"slice-{number:08}.parquet"

    def scored_slices(self) -> set[int]:
        """The numbers of the slices that are scored."""
        return {int(part.stem.partition("-")[2]) for part in self.scored.glob("slice-*.parquet")}

    def part_of_results(self, number: int) -> Path:
        """Where results are written."""
        return self.path / f"part-{number:05}.parquet"

    def results(self) -> list[Path]:
        """All results."""
        return sorted(self.path.glob("part-*.parquet"))

    def make_drafts(self) -> Path:
        """A folder for what is needed while ranking; empty."""
        shutil.rmtree(self.drafts, ignore_errors=True)
        self.drafts.mkdir()
        return self.drafts

    def clean(self) -> None:
        """Remove all but the results and what the run is."""
        shutil.rmtree(self.scored, ignore_errors=True)
        shutil.rmtree(self.drafts, ignore_errors=True)
        for draft in self.path.glob(".part-*"):
            draft.unlink(missing_ok=True)

    def _found(self) -> Run | None:
        try:
            return Run(**json.loads(self._note.read_text(encoding="utf-8")))
        except FileNotFoundError:
            if self.path.is_dir() and any(not file.name.startswith(".") for file in self.path.iterdir()):
                raise InputError(
                    f"{self.path} is not empty, and what it holds was not written by onelogit bulk; name another folder"
                ) from None
            return None
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"{self._note} cannot be read ({error}); remove {self.path}, or name another") from error

    def _clear(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.write(_NOBODY)
        except OSError as error:
            raise InputError(f"{self.path} cannot be written: {error.strerror}") from error
        self.clean()
        for part in self.results():
            part.unlink()
        self.scored.mkdir()


def _difference(found: Run, run: Run) -> str:
    if found.model != run.model:
        return f"another model: {found.model}, not {run.model}"
    if found.input != run.input:
        return "another input"
    return f"another run: --slice-rows was {found.slice_rows}, not {run.slice_rows}"
