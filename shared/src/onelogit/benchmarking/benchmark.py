"""A model, texts and cases -> a Result. Each target has its own process, and their calls alternate."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from onelogit.benchmarking.machine import load_per_core
from onelogit.benchmarking.result import Result
from onelogit.benchmarking.runner import Budget, Case, PromptCount, Runner
from onelogit.benchmarking.targets import OnelogitTarget, SentenceTransformersTarget, TargetFacts, TargetProcess
from onelogit.benchmarking.text_supply import TextSupply
from onelogit.checkpoints.load_encoder import LoadedEncoder, load_encoder
from onelogit.errors import InputError
from onelogit.io.progress import progress_bar, waiting
from onelogit.io.text_files import TextCollection
from onelogit.model_spec import ModelSpec

ONELOGIT = "onelogit"
SENTENCE_TRANSFORMERS = "Sentence Transformers"
Peer = Literal["sentence-transformers", "int8"]
_REFRESHES_PER_S = 2  # drawing the bar slows down the measured calls


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkSpec:
    """The inputs and settings of a benchmark.

    Attributes:
        model: the model or server.
        cases: measured in this order.
        texts: at least one document and one query.
        texts_name: shown in reports.
        budget: of time and calls.
        is_warm: use the same documents in each call of a case.
        peer: also measure Sentence Transformers, on an export of the model in a temporary folder, or the same model
            with that quantisation; None for the model alone.
    """

    model: ModelSpec
    cases: Sequence[Case]
    texts: TextCollection
    texts_name: str
    budget: Budget
    is_warm: bool = False
    peer: Peer | None = None


def run_benchmark(spec: BenchmarkSpec) -> Result:
    """Load the targets, measure them, and end their processes.

    Raises:
        InputError: a document length is too large for the model, or its tokenizer is unknown.
        OnelogitError: as `open_reranker`, or a process ended.
    """
    load_before = load_per_core()
    with ExitStack() as stack:
        processes = _open_targets(spec, stack)
        facts: TargetFacts = processes[0].call("facts")
        encoder = _load_encoder(spec.model, facts)
        check_lengths(spec.cases, facts.max_tokens, has_tokenizer=encoder is not None)
        supply = TextSupply(spec.texts, None if encoder is None else encoder.tokenizer)
        with progress_bar("measuring", spec.budget.seconds, unit="s", refreshes_per_s=_REFRESHES_PER_S) as advance:
            cases = Runner(
                targets=processes,
                supply=supply,
                count_tokens=partial(_count_tokens, encoder),
                budget=spec.budget,
                is_warm=spec.is_warm,
                report=advance,
            ).measure(spec.cases)
        load_s = {process.name: process.call("load_seconds") for process in processes}
        memory = {process.name: process.call("memory") for process in processes}
    return Result(
        model=spec.model.name,
        server=spec.model.url,
        facts=facts,
        memory={name: used for name, used in memory.items() if used is not None},
        load_s={name: seconds for name, seconds in load_s.items() if seconds is not None},
        texts=spec.texts_name,
        documents_as_given=supply.as_given,
        documents_made_up=supply.made_up,
        is_warm=spec.is_warm,
        seconds=spec.budget.seconds,
        load_before=load_before,
        cases=tuple(cases),
    )


def _open_targets(spec: BenchmarkSpec, stack: ExitStack) -> list[TargetProcess]:
    """The targets, loaded and warm; closing the stack ends their processes."""
    export = None
    if spec.peer == "sentence-transformers":
        export = str(Path(stack.enter_context(TemporaryDirectory(prefix="onelogit-bench-"))) / "model")
    with waiting(f"loading {spec.model.name}"):
        ours = TargetProcess(ONELOGIT, OnelogitTarget, spec.model, export)
        stack.callback(ours.close)
    if spec.peer is None:
        return [ours]
    if export is None:
        with waiting(f"loading it with {spec.peer}"):
            quantised = spec.model.with_quantization(spec.peer)
            peer = TargetProcess(f"{ONELOGIT}, {spec.peer}", OnelogitTarget, quantised)
            stack.callback(peer.close)
        return [ours, peer]
    facts: TargetFacts = ours.call("facts")
    with waiting(f"loading it in {SENTENCE_TRANSFORMERS}"):
        peer = TargetProcess(SENTENCE_TRANSFORMERS, SentenceTransformersTarget, export, facts.device, facts.dtype)
        stack.callback(peer.close)
    return [ours, peer]


def _load_encoder(model: ModelSpec, facts: TargetFacts) -> LoadedEncoder | None:
    """The encoder, with the target's `max_tokens`; None for a server whose model is not named."""
    if model.model is None:
        return None
    limit = {} if facts.max_tokens is None else {"max_tokens": facts.max_tokens}
    return load_encoder(ModelSpec(model.model, model.url, {**model.options, **limit}))


def _count_tokens(loaded: LoadedEncoder | None, query: str, documents: Sequence[str]) -> PromptCount | None:
    if loaded is None:
        return None
    rows = loaded.encoder.rows([(query, document) for document in documents], loaded.encoder.instruction)
    return PromptCount(sum(len(row.ids) for row in rows), sum(row.is_truncated for row in rows))


def check_lengths(cases: Sequence[Case], max_tokens: int | None, *, has_tokenizer: bool) -> None:
    """Check the document lengths.

    Raises:
        InputError: a length leaves no room for a query, or cannot be measured without a tokenizer.
    """
    lengths = [case.document_tokens for case in cases if case.document_tokens is not None]
    if lengths and not has_tokenizer:
        raise InputError("--lengths needs the tokenizer of the server's model; name the model, and the server as --url")
    if lengths and max_tokens is not None and max(lengths) >= max_tokens:
        raise InputError(
            f"documents of {max(lengths):,} tokens leave no room for a query in a prompt of {max_tokens:,} tokens"
        )
