"""RunFile: the logits of one contestant, a line for each query as it is scored; first of all, whose they are."""

import json
import os
from array import array
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

from onelogit.errors import InputError
from onelogit.evaluation.data.dataset import JudgedQuery
from onelogit.evaluation.systems import Identity

_FORMAT = 1
_BEGINNING = b'{"onelogit_run"'
_WHAT = {
    "data": "other data (texts, labels or candidates)",
    "model": "another model, or the same with other options",
    "server": "another server",
    "template": "another template",
    "instruction": "another instruction",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What is known of a contestant's model once it is open, for people.

    Attributes:
        family: of the recipe; None, like the rest, where a server keeps it to itself.
        licence: as the model's card names it.
        instruction: what the model is told where nothing else is said.
        source: where the recipe can be checked.
        max_tokens: the longest prompt.
        device: where it computed.
    """

    family: str | None = None
    licence: str | None = None
    instruction: str | None = None
    source: str | None = None
    max_tokens: int | None = None
    device: str | None = None


@dataclass(frozen=True, slots=True)
class Scored:
    """What came of one query.

    Attributes:
        logits: one for each candidate, in their order; None where the query could not be scored.
        cut_count: how many documents were cut to fit.
        fault: why it could not be scored.
    """

    logits: Sequence[float] | None
    cut_count: int = 0
    fault: str | None = None


class RunFile:
    """The file of one contestant's run. A context manager, which closes it.

    Args:
        path: in a folder that is there.
        identity: of the contestant.
        queries: all that are to be scored, by id.

    Attributes:
        scored: what is written in it, by the query's id.
        card: what was written of the model; None where it was not opened yet.
    """

    def __init__(self, path: Path, identity: Identity, queries: Mapping[str, JudgedQuery]) -> None:
        self._path = path
        self._identity = identity
        self._queries = queries
        self.scored: dict[str, Scored] = {}
        self.card: Card | None = None
        self._stream: Any = self._reopened() if path.exists() else None

    @property
    def missing(self) -> list[JudgedQuery]:
        """Queries that are still to be scored."""
        return [query for query in self._queries.values() if query.id not in self.scored]

    def begin(self, card: Card) -> None:
        """Take in whose run it is. A file there is only with the first query: a server may never answer."""
        self.card = card if self.card is None else self.card

    def add(self, query: JudgedQuery, scored: Scored) -> None:
        """Write what came of one query. It is there from now on, also where the process is killed."""
        if self._stream is None:
            self._stream = self._open("wb")
            self._write({"onelogit_run": _FORMAT, **self._identity, "card": asdict(cast("Card", self.card))})
        fields: dict[str, Any] = {"query": query.id, "documents": query.found, "logits": scored.logits}
        more = {"cut": scored.cut_count, "fault": scored.fault}
        self._write({**fields, **{name: value for name, value in more.items() if value}})
        self.scored[query.id] = _compact(scored)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._stream is not None:
            with suppress(OSError):  # of what could not be written, which was said already
                self._stream.close()

    def _open(self, mode: str) -> Any:
        try:
            return self._path.open(mode)
        except OSError as error:
            raise InputError(f"{self._path} cannot be written: {error.strerror}") from error

    def _write(self, fields: Mapping[str, Any]) -> None:
        try:
            self._stream.write(_encoded(fields))
            self._stream.flush()
        except OSError as error:
            raise InputError(f"{self._path} cannot be written: {error.strerror}; --resume goes on from here") from error

    def _reopened(self) -> Any:
        """The file, open behind its last whole line; None where not even the first one is whole."""
        stream = self._open("r+b")
        try:
            end = self._read(stream)
        except BaseException:
            stream.close()
            raise
        if end == 0:
            stream.close()
            check_ours(self._path)
            return None
        stream.truncate(end)
        stream.seek(0, os.SEEK_END)
        return stream

    def _read(self, stream: Any) -> int:
        """Take in the whole lines; where the last of them ends."""
        end = 0
        for number, line in enumerate(stream, start=1):
            if not line.endswith(b"\n"):  # torn: the process was killed while it was written
                break
            try:
                self._read_line(json.loads(line), is_first=number == 1)
            except InputError:
                raise
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise InputError(
                    f"{self._path}, line {number}, was not written by onelogit evaluate ({error}); remove the file, or "
                    "pass --overwrite to score anew"
                ) from error
            end += len(line)
        return end

    def _read_line(self, fields: Any, *, is_first: bool) -> None:
        if is_first:
            self._check_whose(fields)
            self.card = Card(**fields["card"])
            return
        query = self._queries[fields["query"]]
        logits = fields["logits"]
        if tuple(fields["documents"]) != query.found or (logits is not None and len(logits) != len(query.found)):
            raise KeyError("other candidates")
        self.scored[query.id] = _compact(Scored(logits, fields.get("cut", 0), fields.get("fault")))

    def _check_whose(self, fields: Any) -> None:
        if fields["onelogit_run"] != _FORMAT:
            raise KeyError(f"format {fields['onelogit_run']}")
        for name, what in _WHAT.items():
            if fields[name] != self._identity[name]:
                raise InputError(
                    f"{self._path} holds the run of {what}: {fields[name]!r}, not {self._identity[name]!r}; name "
                    "another --output, or pass --overwrite to score anew"
                )


def check_ours(path: Path) -> None:
    """Refuse a file that is no run, not even the beginning of one.

    Raises:
        InputError: naming the file.
    """
    with path.open("rb") as stream:
        content = stream.read(len(_BEGINNING))
    if not _BEGINNING.startswith(content):
        raise InputError(f"{path} was not written by onelogit evaluate; remove it, or name another --output")


def _encoded(fields: Mapping[str, Any]) -> bytes:
    # A file's name may hold bytes that are no UTF-8, which Python writes as lone surrogates; json reads them back.
    return json.dumps(fields, ensure_ascii=False, allow_nan=False).encode("utf-8", "surrogatepass") + b"\n"


def _compact(scored: Scored) -> Scored:
    """The same, in eight bytes a logit."""
    return scored if scored.logits is None else Scored(array("d", scored.logits), scored.cut_count)
