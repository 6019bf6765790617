"""The models of README's table -> the time that a document takes, relative to Qwen3-Reranker-0.6B.

Weights are random, in the models' true widths, and each family has its own prompt. Each model is built with a few and
with some more layers; the difference gives the time of a layer, and so of all layers. The embeddings are cut to the
vocabulary of the one tokenizer that all models get, and no head has a vocabulary: neither takes much time. Calls of a
model and of Qwen3-Reranker-0.6B alternate, with the same texts. The run can be stopped and repeated: rounds that are in
--out are not measured again.

    python benchmarks/model_costs.py --tokenizer DIR --data DIR DIR --out costs.json
    python benchmarks/model_costs.py --quick
"""

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from command_line import LIBRARIES, check_known, new_parser
from cpu import BUSY_LOAD, machine
from cpu_targets import CpuTarget
from shapes import ENCODER_SHAPES, SHAPES, Shape, changed
from targets import ONELOGIT
from texts import Corpus, read_corpus
from timing import spread
from transformers import AutoTokenizer

from checkpoints import write_checkpoint, write_encoder
from onelogit import DEMO_MODEL
from onelogit.benchmarking.runner import time_round
from onelogit.benchmarking.targets import TargetProcess
from onelogit.benchmarking.worker_process import silence_libraries
from onelogit.io.outputs import versions

REFERENCE = "qwen3-0.6b"
MODELS = {
    "bge-m3": "BAAI/bge-reranker-v2-m3",
    "mxbai-base": "mixedbread-ai/mxbai-rerank-base-v2",
    "ctxl-1b": "ContextualAI/ctxl-rerank-v2-instruct-multilingual-1b",
    "mxbai-large": "mixedbread-ai/mxbai-rerank-large-v2",
    "bge-gemma": "BAAI/bge-reranker-v2-gemma",
    "qwen3-4b": "Qwen/Qwen3-Reranker-4B",
    "qwen3-8b": "Qwen/Qwen3-Reranker-8B",
}
DEPTHS = (2, 5)  # layers of the two checkpoints of a model
QUICK_DEPTHS = (1, 2)
QUICK_WIDTHS = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2}


class Round(NamedTuple):
    """The seconds of one call to each depth of a model and of the reference, with the same texts."""

    model: str
    texts: str
    number: int
    seconds: list[float]
    reference_seconds: list[float]


def shape_of(name: str, *, is_quick: bool) -> Shape:
    """The shape of a model; if `is_quick`, with the same layers, but narrow."""
    shape = {**SHAPES, **ENCODER_SHAPES}[name]
    if not is_quick:
        return shape
    widths = QUICK_WIDTHS if name in ENCODER_SHAPES else {**QUICK_WIDTHS, "head_dim": 32}
    return shape._replace(config=changed(shape.config, **widths))


def whole_time(seconds: Sequence[float], depths: Sequence[int], layers: int) -> float:
    """The seconds of a call with all layers, from those with fewer and with more of them."""
    few, more = depths
    return seconds[0] + (layers - few) * (seconds[1] - seconds[0]) / (more - few)


def relative_cost(measured: Round, depths: Sequence[int]) -> float:
    """The time of a model over that of the reference, both with all layers."""
    times = [
        whole_time(seconds, depths, shape_of(name, is_quick=False).config.num_hidden_layers)
        for name, seconds in ((measured.model, measured.seconds), (REFERENCE, measured.reference_seconds))
    ]
    return times[0] / times[1]


class CostRun:
    """The rounds of a run, kept in a file so that it can be continued."""

    def __init__(self, path: Path | None, settings: dict[str, Any]) -> None:
        self._path = path
        self._settings = settings
        self.rounds: list[Round] = []
        if path is not None and path.exists():
            found = json.loads(path.read_text(encoding="utf-8"))
            if found["settings"] != settings:
                raise SystemExit(f"{path} has rounds with other settings, {found['settings']}; name another --out")
            self.rounds = [Round(**each) for each in found["rounds"]]

    def lacks(self, model: str, texts: str, number: int) -> bool:
        """Whether a round is still to be measured."""
        return (model, texts, number) not in {each[:3] for each in self.rounds}

    def add(self, measured: Round, facts: dict[str, Any]) -> None:
        """Keep a round, and write the file."""
        self.rounds.append(measured)
        if self._path is None:
            return
        rounds = [each._asdict() for each in self.rounds]
        content = {"settings": self._settings, **facts, "costs": self.costs(), "rounds": rounds}
        temporary = self._path.with_name(f".{self._path.name}")
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        temporary.replace(self._path)

    def costs(self) -> dict[str, dict[str, dict[str, float]]]:
        """The spread of the relative cost of each model: with each folder's texts, and with all of them."""
        depths = self._settings["depths"]
        costs: dict[str, dict[str, dict[str, float]]] = {}
        for model in dict.fromkeys(each.model for each in self.rounds):
            own = [each for each in self.rounds if each.model == model]
            groups = {texts: [each for each in own if each.texts == texts] for texts in {each.texts for each in own}}
            costs[model] = {
                texts: spread([relative_cost(each, depths) for each in group])
                for texts, group in {**dict(sorted(groups.items())), "all": own}.items()
            }
        return costs


class CostBenchmark:
    """Measures rounds with checkpoints that it writes into a folder and removes again."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self._options = options
        self._folder = folder
        self._depths = QUICK_DEPTHS if options.quick else DEPTHS
        self._vocabulary = len(AutoTokenizer.from_pretrained(options.tokenizer or DEMO_MODEL))

    def measure(self, run: CostRun, corpora: Sequence[Corpus]) -> None:
        """Measure all rounds that the run lacks."""
        facts = {"machine": machine(), "versions": versions(LIBRARIES)}
        if (load := facts["machine"]["load_before"]) > BUSY_LOAD:
            print(f"{load:.1f} programs were running before the benchmark, so times are not reliable", flush=True)
        with ExitStack() as stack:
            reference: list[TargetProcess] = []
            for model in self._options.only:
                wanted = [
                    (number, corpus)
                    for number in range(self._options.rounds)
                    for corpus in corpora
                    if run.lacks(model, corpus.name, number)
                ]
                if not wanted:
                    print(f"{model}: all rounds are in the file", flush=True)
                    continue
                reference = reference or self._targets(REFERENCE, stack)
                with ExitStack() as own:
                    targets = self._targets(model, own)
                    for number, corpus in wanted:
                        run.add(self._round(model, number, corpus, targets, reference), facts)
                        cost = relative_cost(run.rounds[-1], self._depths)
                        progress = f"{model}: round {number + 1} of {self._options.rounds}, {corpus.name}"
                        print(f"{progress}: {cost:.2f} times the time of {REFERENCE}", flush=True)

    def _targets(self, model: str, stack: ExitStack) -> list[TargetProcess]:
        """A process for each depth of a model; the checkpoints are removed once they are loaded."""
        targets = []
        for depth in self._depths:
            print(f"{model}: building {depth} layers", flush=True)
            with tempfile.TemporaryDirectory(dir=self._folder) as folder:
                write = write_encoder if model in ENCODER_SHAPES else write_checkpoint
                shape = shape_of(model, is_quick=self._options.quick)
                shape = shape._replace(config=changed(shape.config, vocab_size=self._vocabulary))
                checkpoint = write(Path(folder) / model, shape, layers=depth, tokenizer=self._options.tokenizer)
                name = f"{model}, {depth} layers"
                target = TargetProcess(name, CpuTarget, ONELOGIT, checkpoint, None)
            stack.callback(target.close)
            targets.append(target)
        return targets

    def _round(
        self,
        model: str,
        number: int,
        corpus: Corpus,
        targets: Sequence[TargetProcess],
        reference: Sequence[TargetProcess],
    ) -> Round:
        count = self._options.documents
        documents = corpus.documents(number * count, count)
        calls = time_round([*targets, *reference], corpus.query(number), documents, number)
        seconds = [each.seconds for each in calls]
        return Round(model, corpus.name, number, seconds[: len(targets)], seconds[len(targets) :])


def report(costs: dict[str, dict[str, dict[str, float]]]) -> None:
    """Print a Markdown table."""
    texts = next(iter(costs.values()), {})
    print(f"\n| model | {' | '.join(texts)} |\n|---|{'---|' * len(texts)}")
    for model, by_texts in costs.items():
        cells = [f"{each['median']:.2f} ({each['min']:.2f} to {each['max']:.2f})" for each in by_texts.values()]
        print(f"| {MODELS[model]} | {' | '.join(cells)} |")


def parse() -> argparse.Namespace:
    parser = new_parser(__doc__, MODELS)
    parser.add_argument("--documents", type=int, help="per call (default: 12)")
    parser.add_argument("--rounds", type=int, help="calls with each folder's texts (default: 3)")
    parser.add_argument("--folder", type=Path, help="for checkpoints, up to 4 GB at a time (default: the system's)")
    options = parser.parse_args()
    options.only = [*MODELS] if options.only is None else options.only
    options.documents = options.documents or (2 if options.quick else 12)
    options.rounds = options.rounds or (1 if options.quick else 3)
    check_known(parser, "--only", options.only, [*MODELS])
    return options


def main() -> None:
    options = parse()
    silence_libraries()
    corpora = [read_corpus(each) for each in options.data or [None]]
    settings = {
        "depths": list(QUICK_DEPTHS if options.quick else DEPTHS),
        "documents": options.documents,
        "quick": options.quick,
        "tokenizer": None if options.tokenizer is None else options.tokenizer.name,
        "cores": os.cpu_count(),
    }
    run = CostRun(options.out, settings)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        CostBenchmark(options, Path(folder)).measure(run, corpora)
    report(run.costs())


if __name__ == "__main__":
    main()
