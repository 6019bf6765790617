"""A model or a server -> a target whose calls can be timed, in this process or in a worker process."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, cast

from onelogit.benchmarking.machine import MemoryUse, peak_memory, processor_name, reset_peak_memory
from onelogit.benchmarking.worker_process import WorkerProcess
from onelogit.errors import counted
from onelogit.io.outputs import versions
from onelogit.model_spec import ModelSpec
from onelogit.registry import open_spec

if TYPE_CHECKING:
    from torch import device as Device  # noqa: N812  a type

    from onelogit.local.reranker import Reranker

Score = Callable[[str, Sequence[str]], list[float]]
_LIBRARIES = ("onelogit", "torch", "transformers", "tokenizers", "sentence-transformers")
_WARM_UP_DOCUMENTS = (8, 1)


class TimedCall(NamedTuple):
    """The duration and the logits of one call."""

    seconds: float
    logits: list[float]


@dataclass(frozen=True, slots=True)
class TargetFacts:
    """Facts besides the model's name that the results depend on.

    Attributes:
        device: such as "cpu" or "cuda:0"; None for a server.
        device_name: of the GPU or the processor.
        dtype: of the backbone.
        max_tokens: maximum length of a prompt; None for a server.
        licence: of the model.
        threads: number of PyTorch's threads on a CPU.
        versions: of Python and of the libraries in use.
    """

    device: str | None
    device_name: str | None
    dtype: str | None
    max_tokens: int | None
    licence: str | None
    threads: int | None
    versions: dict[str, str]


class Target:
    """A scoring function whose calls can be timed. The constructor warms it up. The device is None for a server."""

    def __init__(self, score: Score, device: "Device | None", load_s: float | None = None) -> None:
        self._score = score
        self._device = device
        self._load_s = load_s
        for count in _WARM_UP_DOCUMENTS:
            score("warm up", [f"This only warms up, {count}, {number}." for number in range(count)])
        self._loaded = None if device is None else reset_peak_memory(device)

    def time(self, query: str, documents: Sequence[str]) -> TimedCall:
        """Time one call by the wall clock. Its logits are Python floats, so the device has finished."""
        start = time.perf_counter()
        logits = self._score(query, documents)
        return TimedCall(time.perf_counter() - start, logits)

    def load_seconds(self) -> float | None:
        """How long loading the model took, before the first call; None for a server, and if it was not measured."""
        return self._load_s

    def memory(self) -> MemoryUse | None:
        """The memory used so far; None for a server, or if the system does not report it."""
        peak = None if self._device is None else peak_memory(self._device)
        return None if peak is None else MemoryUse(self._loaded, peak)


class OnelogitTarget(Target):
    """A local model or a server, as onelogit runs it. A local model is exported to `export_to`, for another target."""

    def __init__(self, spec: ModelSpec, export_to: str | None = None) -> None:
        start = time.perf_counter()
        self._reranker = open_spec(spec)
        load_s = time.perf_counter() - start if spec.url is None else None
        if export_to is not None:
            cast("Reranker", self._reranker).save(export_to)
        self._classifier = getattr(self._reranker, "classifier", None)  # a remote reranker has none
        device = None if self._classifier is None else self._classifier.device
        super().__init__(self._reranker.logits, device, load_s)

    def facts(self) -> TargetFacts:
        """See `TargetFacts`."""
        device, threads = self._device, None
        if device is not None and device.type == "cpu":
            import torch  # noqa: PLC0415  slow, and not needed to benchmark a server

            threads = torch.get_num_threads()
        return TargetFacts(
            device=None if device is None else str(device),
            device_name=None if device is None else _device_name(device),
            dtype=None if self._classifier is None else str(self._classifier.dtype).removeprefix("torch."),
            max_tokens=getattr(self._reranker, "max_tokens", None),
            licence=self._reranker.licence,
            threads=threads,
            versions=versions(_LIBRARIES),
        )


class SentenceTransformersTarget(Target):
    """Sentence Transformers' `CrossEncoder` on a folder that onelogit exported, with its backbone in the given dtype.

    It has the same prompts and weights, and it is as fast as possible, because the head over the vocabulary is missing.
    """

    def __init__(self, folder: str, device: str, dtype: str) -> None:
        start = time.perf_counter()
        import torch  # noqa: PLC0415  as above
        from sentence_transformers import CrossEncoder  # noqa: PLC0415  optional

        model = CrossEncoder(folder, device=device)
        wanted, identity = getattr(torch, dtype), torch.nn.Identity()
        if next(model.parameters()).dtype != wanted:
            model.to(dtype=wanted)
        load_s = time.perf_counter() - start

        def score(query: str, documents: Sequence[str]) -> list[float]:
            pairs = [(query, document) for document in documents]
            return [float(each) for each in model.predict(pairs, show_progress_bar=False, activation_fn=identity)]

        super().__init__(score, torch.device(device), load_s)


class TargetProcess(WorkerProcess):
    """A `Target` in its own process. Takes the arguments of `WorkerProcess`."""

    def time(self, query: str, documents: Sequence[str]) -> TimedCall:
        """Like `Target.time`; communication between the processes is not included."""
        timed: TimedCall = self.call("time", query, documents)
        return timed


def _device_name(device: "Device") -> str:
    if device.type == "cuda":
        import torch  # noqa: PLC0415  as above

        return torch.cuda.get_device_name(device)
    return f"{processor_name()}, {counted(os.cpu_count() or 1, 'core')}"
