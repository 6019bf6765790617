"""EvaluationSpec -> Evaluation: reads the data, scores the systems, and writes the results to files."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from onelogit.errors import InputError, check_packages
from onelogit.evaluation.bm25 import with_candidates
from onelogit.evaluation.data.beir import read_beir, with_run
from onelogit.evaluation.data.dataset import Dataset
from onelogit.evaluation.data.query_rows import read_query_rows
from onelogit.evaluation.evaluation import Evaluation, evaluate, group_queries
from onelogit.evaluation.metrics import metrics_at
from onelogit.evaluation.pairwise import check_pairs
from onelogit.evaluation.report.html_report import render_page
from onelogit.evaluation.report.json_report import evaluation_json, query_lines
from onelogit.evaluation.report.plots import plot_evaluation
from onelogit.evaluation.run_file import check_is_run_file
from onelogit.evaluation.scoring import score_systems
from onelogit.evaluation.systems import build_systems, check_instruction_fields
from onelogit.io.atomic_write import atomic_file
from onelogit.io.bad_lines import BadLines
from onelogit.io.outputs import check_plot, check_writable, locked
from onelogit.model_spec import ModelSpec
from onelogit.validation import check_text, checked_count

RESULTS, PER_QUERY = "figures.json", "per-query.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSpec:
    """The inputs, settings and outputs of an evaluation.

    Attributes:
        models: hub ids, folders, or urls of servers.
        data: a folder in BEIR format, or a file of queries with their documents and labels.
        spec_of: returns the spec for a model and a template.
        output: folder for run files and results.
        instructions, templates, quantizations: see `build_systems`.
        run: run file of a first stage, in TREC format.
        split: which judgements of a BEIR folder to use.
        changed_qrels: file of judgements under another instruction.
        max_queries: evaluate only the first queries; None for all.
        max_candidates: maximum number of documents to rerank for a query.
        cutoffs: k of the metrics.
        seed: for random order and the bootstrap.
        group_column: the field that the queries are split by.
        is_pairwise: whether to compare systems with the same model to each other.
        is_skipping: whether to skip malformed lines and unknown ids.
        is_resuming, is_overwriting: whether to continue or to delete the runs in the folder.
        plot, report: files for a plot and for an HTML page.
        command: the command that repeats the evaluation; shown on the page.
    """

    models: Sequence[str]
    data: Path
    spec_of: Callable[[str, Path | None], ModelSpec]
    output: Path
    instructions: Sequence[str] = ()
    templates: Sequence[Path] = ()
    quantizations: Sequence[str] = ()
    run: Path | None = None
    split: str | None = None
    changed_qrels: Path | None = None
    max_queries: int | None = None
    max_candidates: int = 100
    cutoffs: Sequence[int] = (10,)
    seed: int = 0
    group_column: str | None = None
    is_pairwise: bool = False
    is_skipping: bool = False
    is_resuming: bool = False
    is_overwriting: bool = False
    plot: Path | None = None
    report: Path | None = None
    command: str = ""


def run_evaluation(spec: EvaluationSpec) -> Evaluation:
    """Read the data, score the systems, and write the results.

    Raises:
        InputError: the spec or the data cannot be used.
        OnelogitError: as `open_reranker` and `Reranker.logits`.
    """
    _check(spec)
    metrics = metrics_at(spec.cutoffs)
    bad_lines = BadLines(is_skipping=spec.is_skipping)
    dataset = with_candidates(_limited(_read_dataset(spec, bad_lines), spec.max_queries), spec.max_candidates)
    systems = build_systems(spec.models, spec.instructions, spec.templates, spec.spec_of, spec.quantizations)
    check_instruction_fields(systems, dataset)
    if spec.group_column is not None:
        group_queries(dataset.queries, dataset.documents, spec.group_column)
    if spec.is_pairwise:
        check_pairs(systems, dataset.queries)
    digest = dataset.digest()
    # Identify all models before old runs are deleted: a model may be missing.
    files = [(spec.output / f"run-{n:02}.jsonl", system.identity(digest)) for n, system in enumerate(systems, start=1)]
    with locked(spec.output):
        _prepare_folder(spec, [path for path, _ in files])
        runs = score_systems(systems, files, dataset, bad_lines)
        evaluation = evaluate(
            dataset,
            runs,
            metrics,
            seed=spec.seed,
            group_column=spec.group_column,
            is_pairwise=spec.is_pairwise,
            skipped=bad_lines.skipped,
        )
        _write(spec.output / PER_QUERY, "".join(f"{line}\n" for line in query_lines(evaluation)))
        _write(spec.output / RESULTS, json.dumps(evaluation_json(evaluation), ensure_ascii=False, indent=1) + "\n")
    if spec.plot is not None:
        plot_evaluation(evaluation, spec.plot)
    if spec.report is not None:
        _write(spec.report, render_page(evaluation, spec.command))
    return evaluation


def _read_dataset(spec: EvaluationSpec, bad_lines: BadLines) -> Dataset:
    if spec.data.is_dir():
        return read_beir(spec.data, bad_lines, split=spec.split, changed=spec.changed_qrels, run=spec.run)
    if not spec.data.exists():
        raise InputError(f"{spec.data} does not exist; name a folder in BEIR format, or a JSONL, CSV or Parquet file")
    for name, value in {"--split": spec.split, "--changed-qrels": spec.changed_qrels}.items():
        if value is not None:
            raise InputError(f"{name} needs a folder in BEIR format; {spec.data} is a file")
    dataset = read_query_rows(spec.data, bad_lines)
    return dataset if spec.run is None else with_run(dataset, spec.run, bad_lines)


def _limited(dataset: Dataset, max_queries: int | None) -> Dataset:
    """The dataset with its first queries; the others are counted as excluded."""
    left = [] if max_queries is None else dataset.queries[max_queries:]
    if not left:
        return dataset
    return replace(
        dataset,
        queries=dataset.queries[:max_queries],
        excluded={**dataset.excluded, f"after the first {max_queries:,} (--limit)": len(left)},
        excluded_ids=dataset.excluded_ids | {query.id for query in left},
    )


def _check(spec: EvaluationSpec) -> None:
    """Find errors immediately that would otherwise appear after hours of scoring."""
    check_packages("ir_measures", "scipy", extra="evaluate")
    checked_count("--candidates", spec.max_candidates)
    if spec.max_queries is not None:
        checked_count("--limit", spec.max_queries)
    checked_count("--seed", spec.seed, least=0)
    for instruction in spec.instructions:
        check_text(instruction, "the instruction")
    if spec.is_resuming and spec.is_overwriting:
        raise InputError("--resume keeps existing runs and --overwrite deletes them; pass only one of them")
    if spec.plot is not None:
        check_plot(spec.plot, created_folder=spec.output)
    if spec.report is not None:
        check_writable(spec.report, "--report", created_folder=spec.output)
    _check_paths_differ(spec)


def _check_paths_differ(spec: EvaluationSpec) -> None:
    """Check that no output would overwrite an input or another output."""
    inputs = [("--data", spec.data), ("--run", spec.run), ("--changed-qrels", spec.changed_qrels)]
    inputs += [("--chat-template", template) for template in spec.templates]
    outputs = [("--plot", spec.plot), ("--report", spec.report)]
    outputs += [(f"the {name} of --output", spec.output / name) for name in (RESULTS, PER_QUERY)]
    used = {path.resolve(): name for name, path in inputs if path is not None}
    for name, path in outputs:
        if path is not None and (other := used.setdefault(path.resolve(), name)) != name:
            raise InputError(f"{name} would overwrite {other}, {path}; name another file")


def _prepare_folder(spec: EvaluationSpec, paths: Sequence[Path]) -> None:
    """Delete existing runs if the spec says so; otherwise, check that the spec continues them."""
    existing = [path for path in spec.output.glob("run-[0-9]*.jsonl") if path.is_file()]
    if spec.is_overwriting:
        for path in existing:
            check_is_run_file(path)
        for path in existing:
            path.unlink()
    elif existing and not spec.is_resuming:
        raise InputError(
            f"{spec.output} contains runs already: pass --resume to continue them, --overwrite to delete them, or name "
            "another --output"
        )
    for path in paths:
        if path.is_dir():
            raise InputError(f"{path} is a folder; name another --output")


def _write(path: Path, text: str) -> None:
    with atomic_file(path, InputError) as temporary:
        temporary.write_bytes(text.encode("utf-8", "replace"))
