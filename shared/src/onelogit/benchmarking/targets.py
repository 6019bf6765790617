"""A model -> what can be timed: onelogit, a server, or Sentence Transformers on the same weights and prompts."""

import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

from onelogit.io.outputs import versions
from onelogit.options import OpenOptions
from onelogit.registry import open_reranker

if TYPE_CHECKING:
    from torch import device as Device  # noqa: N812  a type

    from onelogit.local.reranker import Reranker

_LIBRARIES = ("onelogit", "torch", "transformers", "tokenizers", "sentence-transformers")
_WARM_UP = (8, 1)  # documents


class Timed(NamedTuple):
    """One call: how long it took, and what it gave."""

    seconds: float
    logits: list[float]


class Facts(NamedTuple):
    """What the figures depend on besides the model.

    Attributes:
        device: such as "cpu" or "cuda:0"; None for a server, of which nothing is known.
        device_name: of a GPU or a processor.
        dtype: of the backbone.
        max_tokens: the longest prompt; None for a server.
        licence: the model's.
        threads: that compute, on a CPU.
        versions: of Python and of the libraries that took part.
    """

    device: str | None
    device_name: str | None
    dtype: str | None
    max_tokens: int | None
    licence: str | None
    threads: int | None
    versions: dict[str, str]


class Memory(NamedTuple):
    """In bytes: resident in the process, or on a CUDA device what PyTorch holds there.

    Attributes:
        loaded: once the model is loaded; None where the system does not tell.
        peak: the most while it scored; on systems other than Linux, while it was loaded, too.
    """

    loaded: int | None
    peak: int


class Target:
    """A reranker of this process, or a server, loaded and warm.

    Args:
        model_or_url: as `open_reranker` takes it.
        options: for it.
        export_to: a folder that a local model is written to, for another contestant; None for none.
    """

    def __init__(self, model_or_url: str, options: OpenOptions, export_to: str | None = None) -> None:
        self._reranker = open_reranker(model_or_url, **options)
        if export_to is not None:
            cast("Reranker", self._reranker).save(export_to)
        self._score = self._reranker.logits
        self._loaded = _warmed_up(self._score, self.device())

    def device(self) -> "Device | None":
        """Where it computes; None for a server."""
        classifier = getattr(self._reranker, "classifier", None)
        return None if classifier is None else classifier.device

    def facts(self) -> Facts:
        """See `Facts`."""
        device, dtype = self.device(), None
        if device is not None:
            dtype = str(getattr(self._reranker, "classifier").dtype).removeprefix("torch.")  # noqa: B009  as above
        return Facts(
            device=None if device is None else str(device),
            device_name=None if device is None else _device_name(device),
            dtype=dtype,
            max_tokens=getattr(self._reranker, "max_tokens", None),
            licence=self._reranker.licence,
            threads=_threads(device),
            versions=versions(_LIBRARIES),
        )

    def time(self, query: str, documents: Sequence[str]) -> Timed:
        """Score, by the clock."""
        return timed(self._score, query, documents)

    def memory(self) -> Memory | None:
        """So far; None for a server."""
        device = self.device()
        return None if device is None or sys.platform == "win32" else Memory(self._loaded, _peak_bytes(device))


class Peer:
    """Sentence Transformers' `CrossEncoder` on the folder that onelogit wrote.

    The same prompts and weights, at the peer's best: without a head over the whole vocabulary.

    Args:
        folder: an export.
        device: where to compute.
        dtype: of the backbone.
    """

    def __init__(self, folder: str, device: str, dtype: str) -> None:
        import torch  # noqa: PLC0415  not for who measures a server
        from sentence_transformers import CrossEncoder  # noqa: PLC0415  optional

        self._model = CrossEncoder(folder, device=device)
        self._identity = torch.nn.Identity()
        wanted = getattr(torch, dtype)
        if next(self._model.parameters()).dtype != wanted:
            self._model.to(dtype=wanted)
        self._device = torch.device(device)
        self._loaded = _warmed_up(self._score, self._device)

    def time(self, query: str, documents: Sequence[str]) -> Timed:
        """Score, by the clock."""
        return timed(self._score, query, documents)

    def memory(self) -> Memory | None:
        """So far; None where the system does not tell."""
        return None if sys.platform == "win32" else Memory(self._loaded, _peak_bytes(self._device))

    def _score(self, query: str, documents: Sequence[str]) -> list[float]:
        pairs = [(query, document) for document in documents]
        logits = self._model.predict(pairs, show_progress_bar=False, activation_fn=self._identity)
        return [float(logit) for logit in logits]


def timed(score: Callable[[str, Sequence[str]], list[float]], query: str, documents: Sequence[str]) -> Timed:
    """One call by the clock. Logits are numbers of the CPU: what computes them elsewhere has ended by then."""
    start = time.perf_counter()
    logits = score(query, documents)
    return Timed(time.perf_counter() - start, logits)


def _warmed_up(score: Callable[[str, Sequence[str]], list[float]], device: "Device | None") -> int | None:
    for count in _WARM_UP:
        score("warm up", [f"This only warms up, {count}, {number}." for number in range(count)])
    return None if device is None else _start_of_peak(device)


def _start_of_peak(device: "Device") -> int | None:
    """What is held now; from here on, the peak counts."""
    if device.type == "cuda":
        import torch  # noqa: PLC0415  as above

        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    resident = _resident("VmRSS")
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    except OSError:
        return None
    return resident


def _peak_bytes(device: "Device") -> int:
    if device.type == "cuda":
        import torch  # noqa: PLC0415  as above

        return torch.cuda.max_memory_allocated(device)
    peak = _resident("VmHWM")
    if peak is not None:
        return peak
    import resource  # noqa: PLC0415  Windows has none

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _resident(name: str) -> int | None:
    """A line of Linux's account of this process, in bytes: VmRSS is now, VmHWM the most."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name)), None)


def _threads(device: "Device | None") -> int | None:
    if device is None or device.type != "cpu":
        return None
    import torch  # noqa: PLC0415  as above

    return torch.get_num_threads()


def _device_name(device: "Device") -> str | None:
    if device.type == "cuda":
        import torch  # noqa: PLC0415  as above

        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or None
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return f"{next(names, platform.machine())}, {os.cpu_count()} cores"
