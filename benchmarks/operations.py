"""Where the time of a call goes on a CPU, by kind of operation, in the PyTorch profiler's own times.

Writes a checkpoint of random weights in a real shape, scores the same query and documents until kernels are generated,
then profiles one call for each --data.

    python benchmarks/operations.py --shape qwen3-0.6b --layers 8 --tokenizer DIR --data DIR DIR
"""

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from command_line import names_in, write_json
from shapes import SHAPES
from texts import read_corpus
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function
from transformers import AutoTokenizer
from workload import prompt_rows

from checkpoints import write_checkpoint
from onelogit import Reranker
from onelogit.engine.attention.context import AttentionContext
from onelogit.engine.model_runner import ModelRunner
from onelogit.prompts.token_rows import TokenRow

ATTENTION, NORMS, MLP, LAYERS, EMBEDDINGS = (
    "attention, rest",
    "norms",
    "MLP, element-wise",
    "residual sums",
    "embeddings",
)
ROTARY, PRODUCTS, OTHER, IDLE = "rotary embedding, layout", "matrix products", "other operations", "Python"
ATTENTION_PRODUCTS = "attention, products or PyTorch's kernel"
KINDS = (PRODUCTS, ATTENTION_PRODUCTS, ATTENTION, NORMS, ROTARY, MLP, LAYERS, EMBEDDINGS, OTHER, IDLE)
_SCOPE = "kind: "
_LINEAR = ("aten::mm", "aten::addmm", "aten::linear", "aten::mkldnn_linear", "aten::_linear", "mkldnn::_linear")
_BATCHED = ("aten::bmm", "aten::baddbmm", "aten::_scaled_dot_product")


def kind_of_module(name: str, module: nn.Module) -> str | None:
    """The kind of what a module does besides its matrix products; None if a module around it decides."""
    last = name.rpartition(".")[2]
    kinds = {"self_attn": ROTARY, "mlp": MLP, "embed_tokens": EMBEDDINGS}
    if last.endswith("norm"):
        return NORMS
    return LAYERS if type(module).__name__.endswith("DecoderLayer") else kinds.get(last)


@contextmanager
def scopes(model: nn.Module) -> Iterator[None]:
    """Inside the block, the profiler sees in which kind of module, or in attention, an operation runs."""
    entered: list[Any] = []

    def enter(kind: str) -> Callable[..., None]:
        def hook(*_: object) -> None:
            entered.append(record_function(_SCOPE + kind))
            entered[-1].__enter__()

        return hook

    def leave(*_: object) -> None:
        entered.pop().__exit__(None, None, None)

    handles = []
    for name, module in model.named_modules():
        kind = kind_of_module(name, module)
        if kind is not None:
            handles += [module.register_forward_pre_hook(enter(kind)), module.register_forward_hook(leave)]
    attend = AttentionContext.attend

    def recorded(*args: Any, **options: Any) -> Any:
        with record_function(_SCOPE + ATTENTION):
            return attend(*args, **options)

    AttentionContext.attend = recorded  # type: ignore[method-assign]
    try:
        yield
    finally:
        AttentionContext.attend = attend  # type: ignore[method-assign]
        for handle in handles:
            handle.remove()


def kind_of(event: Any) -> str:
    """The kind of a profiler's event, by its name and by the modules around it."""
    names = [event.name]
    while event.cpu_parent is not None:
        event = event.cpu_parent
        names.append(event.name)
    scope = next((name.removeprefix(_SCOPE) for name in names if name.startswith(_SCOPE)), OTHER)
    if scope == ATTENTION:
        return ATTENTION_PRODUCTS if any(name.startswith(_BATCHED) for name in names) else ATTENTION
    return PRODUCTS if any(name.startswith(_LINEAR) for name in names) else scope


def seconds_by_kind(model: nn.Module, call: Callable[[], object]) -> dict[str, float]:
    """The seconds of one call by kind; together, its time by the wall clock."""
    with scopes(model), profile(activities=[ProfilerActivity.CPU]) as profiler:
        start = time.perf_counter()
        call()
        whole = time.perf_counter() - start
    seconds = Counter[str]()
    for event in profiler.events():
        if event.name.startswith(("aten::", "mkldnn::", "onednn::", "onelogit::")):
            seconds[kind_of(event)] += event.self_cpu_time_total / 1e6
    return {kind: seconds[kind] for kind in KINDS[:-1]} | {IDLE: whole - sum(seconds.values())}


def print_table(columns: dict[str, dict[str, float]]) -> None:
    """A Markdown table of seconds and shares."""
    print("| kind of operation | " + " | ".join(columns) + " |\n|---" + "|---" * len(columns) + "|")
    for kind in next(iter(columns.values())):
        cells = [f"{times[kind]:.3f} s, {times[kind] / sum(times.values()):.1%}" for times in columns.values()]
        print(f"| {kind} | " + " | ".join(cells) + " |")
    print("| together | " + " | ".join(f"{sum(times.values()):.2f} s" for times in columns.values()) + " |")


def add_workload(parser: argparse.ArgumentParser) -> None:
    """The arguments that say which prompts of which model are profiled."""
    parser.add_argument("--shape", choices=SHAPES, default="qwen3-0.6b")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--tokenizer", type=Path, help="folder with a real tokenizer")
    parser.add_argument("--data", type=Path, nargs="+", default=[None], help="folders in BEIR format")
    parser.add_argument("--documents", type=names_in, default=["48"], help="how many, for each --data; such as 48,32")
    parser.add_argument("--out", type=Path, help="JSON file for the results")


def workloads(options: argparse.Namespace) -> Iterator[tuple[str, str, list[str]]]:
    """The name, query and documents of each table column."""
    counts = [int(count) for count in options.documents] * (len(options.data) if len(options.documents) == 1 else 1)
    for data, count in zip(options.data, counts, strict=True):
        corpus = read_corpus(data)
        yield f"{corpus.name}, {count} documents", corpus.query(0), corpus.documents(0, count)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_workload(parser)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--compile", action="store_true", help="with compiled layers, whose modules are not told apart")
    options = parser.parse_args(arguments)
    shape = SHAPES[options.shape]
    columns: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = write_checkpoint(Path(folder), shape, layers=options.layers, tokenizer=options.tokenizer)
        tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder)
        given = {"device": "cpu", "dtype": options.dtype, "recipe": checkpoint.recipe}
        with Reranker.load(checkpoint.folder, **given) as reranker:
            runner = ModelRunner(reranker.classifier, is_compiled=options.compile)
            for name, query, documents in workloads(options):
                ids = prompt_rows(tokenizer, checkpoint.recipe, query, documents)
                compute = partial(runner.logits, [TokenRow(tuple(row)) for row in ids])
                for _ in range(3):
                    compute()
                columns[name] = seconds_by_kind(reranker.classifier, compute)
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}\n")
    print_table(columns)
    write_json(columns, options.out)


if __name__ == "__main__":
    main()
