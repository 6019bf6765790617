"""The folder OUT: whose results it holds, which slices are scored, and when it is finished.

`_run.json` says whose; `_scored-*/` holds a part for each slice that is scored, until all are, and are ranked. Readers
of Parquet folders pass over both, for their names begin with "_".
"""

import json
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from onelogit.bulk.part_files import WRITE_ADVICE, is_whole
from onelogit.errors import InputError, OnelogitError
from onelogit.io.atomic_write import atomic_file
from onelogit.io.outputs import locked


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
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


_NOBODY = RunRecord(model="", input="", slice_rows=0)  # whose a folder is while it is cleared


class RunFolder:
    """The folder of a run.

    Args:
        path: of the folder; made when it is claimed.
        run: as it begins.

    Attributes:
        path: the same.
        scored: where its parts are. Named after the run, so that a worker of an earlier one that is not dead yet
            writes into nobody's.
    """

    def __init__(self, path: Path, run: RunRecord) -> None:
        self.path = path
        self._run = run
        self.scored = path / f"_scored-{zlib.crc32(repr(run).encode()):08x}"
        self._drafts = path / "_drafts"
        self._note = path / "_run.json"

    @contextmanager
    def claimed(self, *, is_overwriting: bool) -> Iterator[RunRecord]:
        """The folder for this run alone: what was written down of it, which says whether it is finished.

        Raises:
            InputError: the folder holds something else, or another process is at it.
        """
        with locked(self.path):
            found = self._found()
            if found is None or found == _NOBODY or is_overwriting:
                self._clear()
            elif replace(found, pairs=None, errors=None) != self._run:
                raise InputError(
                    f"{self.path} holds results of {_difference(found, self._run)}; pass --overwrite to replace them, "
                    "or name another folder"
                )
            self.scored.mkdir(exist_ok=True)
            yield self._found() or self._run

    def write(self, run: RunRecord) -> None:
        """Write down what the run is."""
        with atomic_file(self._note, OnelogitError, advice=WRITE_ADVICE) as temporary:
            temporary.write_text(json.dumps(asdict(run)), encoding="utf-8")

    def scored_slices(self) -> set[int]:
        """The numbers of the slices that are scored, and whose parts are whole."""
        return {int(part.stem.partition("-")[2]) for part in self.scored.glob("slice-*.parquet") if is_whole(part)}

    def part_of_results(self, number: int) -> Path:
        """Where results are written."""
        return self.path / f"part-{number:05}.parquet"

    def results(self) -> list[Path]:
        """All results."""
        return sorted(self.path.glob("part-*.parquet"))

    def make_drafts(self) -> Path:
        """A folder for what is needed while ranking; empty."""
        shutil.rmtree(self._drafts, ignore_errors=True)
        self._drafts.mkdir()
        return self._drafts

    def clean(self) -> None:
        """Remove all but the results and what the run is."""
        for folder in (*self.path.glob("_scored-*"), self._drafts):
            shutil.rmtree(folder, ignore_errors=True)
        for draft in (*self.path.glob(".part-*"), *self.path.glob("._run.json.*")):
            draft.unlink(missing_ok=True)

    def _found(self) -> RunRecord | None:
        try:
            return RunRecord(**json.loads(self._note.read_text(encoding="utf-8")))
        except FileNotFoundError:
            if self.path.is_dir() and any(not file.name.startswith(".") for file in self.path.iterdir()):
                raise InputError(
                    f"{self.path} is not empty, and what it holds was not written by onelogit bulk; name another folder"
                ) from None
            return None
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"{self._note} cannot be read ({error}); remove {self.path}, or name another") from error

    def _clear(self) -> None:
        self.write(_NOBODY)
        self.clean()
        for part in self.results():
            part.unlink()
        self.write(self._run)


def part_of_shard(scored: Path, number: int) -> Path:
    """Where the pairs of a slice are written once they are scored."""
    return scored / f"slice-{number:08}.parquet"


def _difference(found: RunRecord, run: RunRecord) -> str:
    if found.model != run.model:
        return f"another model: {found.model}, not {run.model}"
    if found.input != run.input:
        return "another input"
    return f"another run: --slice-rows was {found.slice_rows}, not {run.slice_rows}"
