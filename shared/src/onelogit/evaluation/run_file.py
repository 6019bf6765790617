"""RunFile: the logits of one system. The first line identifies the system; each scored query adds a line."""

import json
import math
import os
from array import array
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from onelogit.errors import InputError
from onelogit.evaluation.data.dataset import LabelledQuery
from onelogit.evaluation.systems import Identity
from onelogit.io.nested_json import parsed_json

_FORMAT = 1
_START = b'{"onelogit_run"'
_CONFLICTS = {
    "data": "other data (texts, labels or candidates)",
    "model": "another model, or the same model with other options",
    "server": "another server",
    "template": "another template",
    "instruction": "another instruction",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """Facts about a model for reports, known once it is loaded; None for facts that are unknown, as with a server.

    Attributes:
        family: the family of the recipe.
        licence: as stated in its model card.
        instruction: the model's default.
        source: where the recipe can be checked.
        max_tokens: maximum length of a prompt.
        device: the device that computed the logits.
        dtype: of the backbone.
    """

    family: str | None = None
    licence: str | None = None
    instruction: str | None = None
    source: str | None = None
    max_tokens: int | None = None
    device: str | None = None
    dtype: str | None = None


@dataclass(frozen=True, slots=True)
class ScoredQuery:
    """The logits of one query, or the error that it caused.

    Attributes:
        logits: one for each candidate, in their order; None if the query could not be scored.
        truncated_count: the number of documents that were truncated to fit.
        error: the reason why the query could not be scored, or None.
        seconds: how long scoring took; None if an older version wrote the file.
    """

    logits: "array[float] | None"
    truncated_count: int = 0
    error: str | None = None
    seconds: float | None = None


class RunFile:
    """The run file of one system.

    An existing file is read and continued. A new file is created with the first scored query, as a server may fail.

    Args:
        path: the file, in an existing folder.
        identity: the identity of the system.
        queries: all queries to be scored, by id.

    Attributes:
        scored: the scored queries in the file, by id.
        model_info: None until the model is loaded; must be set before the first query is added.

    Raises:
        InputError: the file belongs to another system, was not written by this class, or cannot be opened.
    """

    def __init__(self, path: Path, identity: Identity, queries: Mapping[str, LabelledQuery]) -> None:
        self._path = path
        self._identity = identity
        self._queries = queries
        self.scored: dict[str, ScoredQuery] = {}
        self.model_info: ModelInfo | None = None
        self._stream: Any = self._reopen() if path.exists() else None

    @property
    def unscored(self) -> list[LabelledQuery]:
        """The queries that are not in the file yet."""
        return [query for query in self._queries.values() if query.id not in self.scored]

    def add(self, query: LabelledQuery, scored: ScoredQuery) -> None:
        """Write the line of one query and flush it, so that it survives if the process is killed."""
        if self._stream is None:
            self._stream = self._open("wb")
            info = None if self.model_info is None else asdict(self.model_info)
            self._write({"onelogit_run": _FORMAT, **self._identity, "card": info})
        fields = {"query": query.id, "documents": query.candidates, "logits": scored.logits}
        optional = {"cut": scored.truncated_count, "fault": scored.error, "seconds": scored.seconds}
        self._write(fields | {name: value for name, value in optional.items() if value})
        self.scored[query.id] = scored

    def close(self) -> None:
        """Close the file."""
        if self._stream is not None:
            with suppress(OSError):  # a failed write has been reported already
                self._stream.close()

    def _open(self, mode: str) -> Any:
        try:
            return self._path.open(mode)
        except OSError as error:
            raise InputError(f"{self._path} cannot be written: {error.strerror}") from error

    def _write(self, fields: Mapping[str, Any]) -> None:
        # A file name may contain bytes that are not UTF-8, which Python represents as lone surrogates.
        line = json.dumps(fields, ensure_ascii=False, allow_nan=False, default=list) + "\n"
        try:
            self._stream.write(line.encode("utf-8", "surrogatepass"))
            self._stream.flush()
        except OSError as error:
            raise InputError(f"{self._path} cannot be written: {error.strerror}; pass --resume to continue") from error

    def _reopen(self) -> Any:
        """The file, positioned after its last complete line; None if not even its first line is complete."""
        with self._open("r+b") as stream:
            end = self._read(stream)
        if end == 0:
            check_is_run_file(self._path)
            return None
        os.truncate(self._path, end)
        return self._open("ab")

    def _read(self, stream: Any) -> int:
        """Read the complete lines; returns the offset of their end."""
        end = 0
        for number, line in enumerate(stream, start=1):
            if not line.endswith(b"\n"):  # the process was killed while it wrote this line
                break
            try:
                self._read_line(parsed_json(line), is_first=number == 1)
            except InputError:
                raise
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise InputError(
                    f"{self._path}, line {number}, was not written by onelogit evaluate ({error}); remove the file, or "
                    "pass --overwrite to score again"
                ) from error
            end += len(line)
        return end

    def _read_line(self, fields: Any, *, is_first: bool) -> None:
        if is_first:
            self._check_identity(fields)
            self.model_info = ModelInfo(**fields["card"])
            return
        query = self._queries[fields["query"]]
        logits = None if fields["logits"] is None else array("d", fields["logits"])
        candidates = query.candidates or ()
        if tuple(fields["documents"]) != candidates or (logits is not None and len(logits) != len(candidates)):
            raise KeyError("other candidates")
        if logits is not None and not all(map(math.isfinite, logits)):
            raise ValueError("a logit is NaN or infinite")
        cut, fault, seconds = fields.get("cut", 0), fields.get("fault"), fields.get("seconds")
        if type(cut) is not int or not isinstance(fault, str | None) or type(seconds) not in (int, float, type(None)):
            raise TypeError("a field of another type")
        self.scored[query.id] = ScoredQuery(logits, cut, fault, seconds)

    def _check_identity(self, fields: Any) -> None:
        if fields["onelogit_run"] != _FORMAT:
            raise KeyError(f"format {fields['onelogit_run']}")
        for name, conflict in _CONFLICTS.items():
            if fields[name] != self._identity[name]:
                raise InputError(
                    f"{self._path} contains the run of {conflict}: {fields[name]!r}, not {self._identity[name]!r}; "
                    "name another --output, or pass --overwrite to score again"
                )


def check_is_run_file(path: Path) -> None:
    """Check that a file, which may be incomplete, begins like a run file.

    Raises:
        InputError: it does not.
    """
    with path.open("rb") as stream:
        content = stream.read(len(_START))
    if not _START.startswith(content):
        raise InputError(f"{path} was not written by onelogit evaluate; remove it, or name another --output")
