"""A model, texts and cases -> a Result: everyone loaded in a process of its own, and measured in turn."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, cast

from tokenizers import Tokenizer

from onelogit.benchmarking.result import Result
from onelogit.benchmarking.runner import Budget, Case, Count, Counted, Runner, load_before
from onelogit.benchmarking.targets import Facts, Peer, Target, Timed
from onelogit.benchmarking.text_supply import Supply
from onelogit.benchmarking.worker_process import Child
from onelogit.checkpoints.hub import find_folder
from onelogit.checkpoints.load_encoder import read_prompt_writer
from onelogit.checkpoints.tokenizer_file import read_tokenizer
from onelogit.errors import InputError
from onelogit.io.progress import progress_bar, waiting
from onelogit.io.text_files import Texts
from onelogit.options import OpenOptions, is_url

OURS = "onelogit"
PEER = "Sentence Transformers"
_REFRESHES_PER_S = 2  # drawing takes time from what is measured


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkSpec:
    """What is to be measured.

    Attributes:
        model: hub id or path, or the URL of a server alone, with options as `open_reranker` takes them.
        options: see `model`.
        cases: in this order.
        texts: one document and one query at least.
        texts_name: for people.
        limits: of the run.
        is_warm: the same documents in each call of a case.
        is_compared: Sentence Transformers runs beside it, on a copy of the model in a temporary folder.
    """

    model: str
    options: OpenOptions
    cases: Sequence[Case]
    texts: Texts
    texts_name: str
    limits: Budget
    is_warm: bool = False
    is_compared: bool = False


class _Reader(NamedTuple):
    """Knows the model's tokens without its weights; nothing of a server whose model is not named."""

    count_tokens: Count
    tokenizer: Tokenizer | None


def measure(asked: BenchmarkSpec) -> Result:
    """Load, measure, end.

    Raises:
        InputError: a length that does not fit the model, or that nobody can count.
        OnelogitError: as `open_reranker`, or a process that died.
    """
    load = load_before()
    with ExitStack() as stack:
        children = _open(asked, stack)
        facts: Facts = children[0].ask("facts")
        reader = _reader(asked, facts)
        check_lengths(asked.cases, facts.max_tokens, has_tokenizer=reader.tokenizer is not None)
        supply = Supply(asked.texts, reader.tokenizer)
        with progress_bar("measuring", asked.limits.seconds, refreshes_per_s=_REFRESHES_PER_S) as advance:
            cases = Runner(
                targets=[_Asking(child) for child in children],
                supply=supply,
                count=reader.count_tokens,
                limits=asked.limits,
                is_warm=asked.is_warm,
                report=advance,
            ).measure(asked.cases)
        memory = {child.name: child.ask("memory") for child in children}
    return Result(
        model=asked.model,
        server=asked.model if is_url(asked.model) else asked.options.get("url"),
        facts=facts,
        memory={name: each for name, each in memory.items() if each is not None},
        texts=asked.texts_name,
        documents_as_given=supply.as_given,
        documents_made_up=supply.made_up,
        is_warm=asked.is_warm,
        seconds=asked.limits.seconds,
        load_before=load,
        cases=tuple(cases),
    )


class _Asking:
    """A contestant in its process."""

    def __init__(self, child: Child) -> None:
        self.name = child.name
        self._child = child

    def time(self, query: str, documents: Sequence[str]) -> Timed:
        timed: Timed = self._child.ask("time", query, documents)
        return timed


def _open(asked: BenchmarkSpec, stack: ExitStack) -> list[Child]:
    """Everyone, loaded and warm; their processes end with the stack."""
    copy = None
    if asked.is_compared:
        copy = str(Path(stack.enter_context(TemporaryDirectory(prefix="onelogit-bench-"))) / "model")
    with waiting(f"loading {asked.model}"):
        ours = Child(OURS, Target, asked.model, asked.options, copy)
        stack.callback(ours.close)
    if copy is None:
        return [ours]
    facts: Facts = ours.ask("facts")
    with waiting(f"loading it in {PEER}"):
        peer = Child(PEER, Peer, copy, facts.device, facts.dtype)
        stack.callback(peer.close)
    return [ours, peer]


def _reader(asked: BenchmarkSpec, facts: Facts) -> _Reader:
    options = asked.options
    model = asked.model
    if is_url(model):
        return _Reader(lambda _query, _documents: None, None)
    if facts.max_tokens is not None:
        options = cast("OpenOptions", {**options, "max_tokens": facts.max_tokens})
    writer = read_prompt_writer(model, options)

    def count(query: str, documents: Sequence[str]) -> Counted:
        rows = writer.encoder.rows([(query, document) for document in documents], writer.instruction)
        return Counted(sum(len(row.ids) for row in rows), sum(row.is_truncated for row in rows))

    folder = find_folder(model, with_weights=False, revision=options.get("revision"))
    return _Reader(count, read_tokenizer(folder, writer.texts).backend_tokenizer)


def check_lengths(cases: Sequence[Case], max_tokens: int | None, *, has_tokenizer: bool) -> None:
    """Refuse documents that could not be made, or would be cut.

    Raises:
        InputError: naming the length.
    """
    lengths = [case.document_tokens for case in cases if case.document_tokens is not None]
    if lengths and not has_tokenizer:
        raise InputError("a length is in tokens, which only the model knows: name what the server serves, beside --url")
    if lengths and max_tokens is not None and max(lengths) >= max_tokens:
        raise InputError(
            f"documents of {max(lengths):,} tokens leave no room for a query: the longest prompt has {max_tokens:,}"
        )
