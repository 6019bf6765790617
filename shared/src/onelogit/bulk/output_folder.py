"""The output folder of a run: which run it belongs to, which shards are scored, and whether the run is complete.

`_run.json` identifies the run. `_scored-*/` contains a part file for each scored shard until all of them are ranked.
Readers of Parquet folders ignore both, because their names begin with "_".
"""

import json
import re
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from onelogit.bulk.part_files import WRITE_ADVICE, is_scored
from onelogit.errors import InputError, OnelogitError
from onelogit.io.atomic_write import atomic_file
from onelogit.io.nested_json import parsed_json
from onelogit.io.outputs import locked


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """The identity of a run and, after it is complete, its numbers of pairs and errors.

    Attributes:
        model: name and digest of the model.
        input: digest of the names and contents of the input files.
        slice_rows: the maximum number of rows in a shard.
        pairs: number of pairs written; None until the run is complete.
        errors: how many of them are errors.
    """

    model: str
    input: str
    slice_rows: int
    pairs: int | None = None
    errors: int | None = None


_PART_NAME = re.compile(r"slice-(\d{8,})\.parquet", re.ASCII)
_CLEARING = RunRecord(model="", input="", slice_rows=0)  # recorded while results of another run are removed


class RunFolder:
    """The output folder of a run.

    Args:
        path: created when the folder is claimed.
        run: the record of the run before it is complete.

    Attributes:
        path: as given.
        scored: the folder of the part files. Its name depends on the run, so that a worker of an earlier run, which may
            still be alive, does not write into it.
    """

    def __init__(self, path: Path, run: RunRecord) -> None:
        self.path = path
        self._run = run
        self.scored = path / f"_scored-{zlib.crc32(repr(run).encode()):08x}"
        self._record_file = path / "_run.json"

    @contextmanager
    def claimed(self, *, is_overwriting: bool) -> Iterator[RunRecord]:
        """Lock the folder for this run while the block runs, and get the run's record.

        Raises:
            InputError: the folder has other content, or another process is writing to it.
        """
        with locked(self.path):
            found = self._read_record()
            if found is None or found == _CLEARING or is_overwriting:
                self._clear()
                found = self._run
            elif replace(found, pairs=None, errors=None) != self._run:
                raise InputError(
                    f"{self.path} contains results of {_difference(found, self._run)}; pass --overwrite to replace "
                    "them, or name another folder"
                )
            self.scored.mkdir(exist_ok=True)
            yield found

    def write_record(self, run: RunRecord) -> None:
        """Replace the run's record."""
        with atomic_file(self._record_file, OnelogitError, advice=WRITE_ADVICE) as temporary:
            temporary.write_text(json.dumps(asdict(run)), encoding="utf-8", newline="\n")

    def scored_shards(self) -> set[int]:
        """The numbers of the shards with a complete part file."""
        # Other programs may leave copies beside a part file, such as "slice-00000001 (1).parquet".
        found = ((_PART_NAME.fullmatch(part.name), part) for part in self.scored.glob("slice-*.parquet"))
        return {int(name[1]) for name, part in found if name is not None and is_scored(part)}

    def result_path(self, number: int) -> Path:
        """The path of a result file."""
        return self.path / f"part-{number:05}.parquet"

    def results(self) -> list[Path]:
        """The paths of all result files."""
        return sorted(self.path.glob("part-*.parquet"))

    def drafts(self) -> "TemporaryDirectory[str]":
        """A folder for temporary files of the ranking, removed after a `with` block."""
        return TemporaryDirectory(prefix="_drafts-", dir=self.path)

    def clean(self) -> None:
        """Remove everything except the results and the run's record."""
        for folder in (*self.path.glob("_scored-*"), *self.path.glob("_drafts*")):
            shutil.rmtree(folder, ignore_errors=True)
        for draft in (*self.path.glob(".part-*"), *self.path.glob("._run.json.*")):
            draft.unlink(missing_ok=True)

    def _read_record(self) -> RunRecord | None:
        try:
            return RunRecord(**parsed_json(self._record_file.read_text(encoding="utf-8")))
        except FileNotFoundError:
            if any(not file.name.startswith(".") for file in self.path.iterdir()):
                raise InputError(
                    f"{self.path} is not empty, and its content was not written by onelogit bulk; name another folder"
                ) from None
            return None
        except (OSError, ValueError, TypeError) as error:
            raise InputError(
                f"{self._record_file} cannot be read ({error}); remove {self.path}, or name another folder"
            ) from error

    def _clear(self) -> None:
        self.write_record(_CLEARING)
        self.clean()
        for part in self.results():
            part.unlink()
        self.write_record(self._run)


def shard_path(scored_folder: Path, number: int) -> Path:
    """The path of the part file with the scored pairs of a shard."""
    return scored_folder / f"slice-{number:08}.parquet"


def _difference(found: RunRecord, run: RunRecord) -> str:
    if found.model != run.model:
        return f"another model: {found.model}, not {run.model}"
    if found.input != run.input:
        return "another input"
    return f"another run: --slice-rows was {found.slice_rows}, not {run.slice_rows}"
