"""What is asked of `onelogit evaluate` -> data read, contestants scored, and all that is written of it."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from onelogit.errors import InputError, check_packages
from onelogit.evaluation.bm25 import with_candidates
from onelogit.evaluation.data.bad_lines import Faults
from onelogit.evaluation.data.beir import read_beir, with_run
from onelogit.evaluation.data.dataset import DataSet
from onelogit.evaluation.data.jsonl import read_lists
from onelogit.evaluation.evaluation import Evaluation, evaluate, groups
from onelogit.evaluation.metrics import measures
from onelogit.evaluation.pairwise import check_pairs
from onelogit.evaluation.report.html_report import write_page
from onelogit.evaluation.report.json_report import lines_of_queries, plain_evaluation
from onelogit.evaluation.report.plots import plot_evaluation
from onelogit.evaluation.run_file import check_ours
from onelogit.evaluation.scoring import paths, score
from onelogit.evaluation.systems import check_fields, systems
from onelogit.io.atomic_write import atomic_file
from onelogit.io.outputs import check_plot, check_writable, locked
from onelogit.options import OpenOptions
from onelogit.validation import check_text, checked_count

FIGURES, PER_QUERY = "figures.json", "per-query.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSpec:
    """What is asked.

    Attributes:
        models: hub ids, folders, or addresses of servers.
        data: a folder in BEIR form, or a JSONL file of queries with their documents and labels.
        options_of: gives the options of a model's reranker with a template.
        output: the folder for runs, figures, and those of each query.
        instructions: see `systems`.
        templates: see `systems`.
        run: what a first stage found, in TREC form.
        split: of a BEIR folder's judgements.
        changed: judgements under another instruction.
        candidates: the most documents of a query that are reranked.
        cutoffs: k of the measures.
        seed: of random order and bootstrap.
        slice_column: what the queries are split by.
        is_pairwise: whether contestants of one model are compared with one another.
        is_skipping: whether malformed lines and unknown ids are passed over.
        is_resuming: whether to go on with runs that are in the folder.
        is_overwriting: whether to remove them.
        plot: file for a picture.
        report: file for a page.
        command: how to ask for the same again.
    """

    models: Sequence[str]
    data: Path
    options_of: Callable[[str, Path | None], OpenOptions]
    output: Path
    instructions: Sequence[str] = ()
    templates: Sequence[Path] = ()
    run: Path | None = None
    split: str | None = None
    changed: Path | None = None
    candidates: int = 100
    cutoffs: Sequence[int] = (10,)
    seed: int = 0
    slice_column: str | None = None
    is_pairwise: bool = False
    is_skipping: bool = False
    is_resuming: bool = False
    is_overwriting: bool = False
    plot: Path | None = None
    report: Path | None = None
    command: str = ""


def run_evaluation(job: EvaluationSpec) -> Evaluation:
    """Do it.

    Raises:
        InputError: something that is asked for, or the data, cannot be used.
        OnelogitError: as `open_reranker` and `Reranker.logits`.
    """
    _check(job)
    wanted = measures(job.cutoffs)
    faults = Faults(is_skipping=job.is_skipping)
    data = with_candidates(read_data(job, faults), job.candidates)
    made = systems(job.models, job.instructions, job.templates, job.options_of)
    check_fields(made, data)
    if job.slice_column is not None:
        groups(data.queries, data.documents, job.slice_column)
    if job.is_pairwise:
        check_pairs(made, data.queries)
    digest = data.digest()
    identities = [one.identity(digest) for one in made]  # a model that is not found costs no runs that are there
    with locked(job.output):
        _claim(job, len(made))
        runs = score(made, identities, data, job.output, faults)
        evaluation = evaluate(
            data,
            runs,
            wanted,
            seed=job.seed,
            slice_column=job.slice_column,
            is_pairwise=job.is_pairwise,
            skipped=faults.skipped,
        )
        _write(job.output / PER_QUERY, "".join(f"{line}\n" for line in lines_of_queries(evaluation)))
        _write(job.output / FIGURES, json.dumps(plain_evaluation(evaluation), ensure_ascii=False, indent=1) + "\n")
    if job.plot is not None:
        plot_evaluation(evaluation, job.plot)
    if job.report is not None:
        _write(job.report, write_page(evaluation, job.command))
    return evaluation


def read_data(job: EvaluationSpec, faults: Faults) -> DataSet:
    """The data that the job names, with the candidates of its run where it has one.

    Raises:
        InputError: there is nothing there, or what is there is something else.
    """
    if job.data.is_dir():
        return read_beir(job.data, faults, split=job.split, changed=job.changed, run=job.run)
    if not job.data.exists():
        raise InputError(f"there is no {job.data}: name a folder in BEIR form, or a JSONL file")
    for name, value in {"--split": job.split, "--changed-qrels": job.changed}.items():
        if value is not None:
            raise InputError(f"{name} belongs to a folder in BEIR form; {job.data} is a file")
    data = read_lists(job.data, faults)
    return data if job.run is None else with_run(data, job.run, faults)


def _check(job: EvaluationSpec) -> None:
    """Refuse at once what would fail after hours."""
    check_packages("ir_measures", "scipy", install="onelogit[evaluate]")
    checked_count("--candidates", job.candidates)
    checked_count("--seed", job.seed, least=0)
    for instruction in job.instructions:
        check_text(instruction, "the instruction")
    if job.is_resuming and job.is_overwriting:
        raise InputError("--resume keeps what is there, and --overwrite removes it: pass one of them")
    if job.plot is not None:
        check_plot(job.plot, created_folder=job.output)
    if job.report is not None:
        check_writable(job.report, "--report", created_folder=job.output)
    _check_apart(job)


def _check_apart(job: EvaluationSpec) -> None:
    """Refuse to write over what is read, or over another file of the same run."""
    read: list[tuple[str, Path | None]] = [("--data", job.data), ("--run", job.run), ("--changed-qrels", job.changed)]
    read += [("--chat-template", template) for template in job.templates]
    written = [("--plot", job.plot), ("--report", job.report)]
    written += [(f"the {name} of --output", job.output / name) for name in (FIGURES, PER_QUERY)]
    taken = {path.resolve(): name for name, path in read if path is not None}
    for name, path in written:
        if path is not None and path.resolve() in taken:
            raise InputError(f"{name} would be written over {taken[path.resolve()]}, {path}; name another file")
        if path is not None:
            taken[path.resolve()] = name


def _claim(job: EvaluationSpec, count: int) -> None:
    """Make room for the runs, or refuse to."""
    found = [path for path in job.output.glob("run-[0-9]*.jsonl") if path.is_file()]
    if job.is_overwriting:
        for path in found:
            check_ours(path)
        for path in found:
            path.unlink()
    elif found and not job.is_resuming:
        raise InputError(
            f"{job.output} holds runs already: pass --resume to go on with them, --overwrite to remove them, or name "
            "another --output"
        )
    for path in paths(job.output, count):
        if path.is_dir():
            raise InputError(f"{path} is a folder; name another --output")


def _write(path: Path, text: str) -> None:
    with atomic_file(path, InputError) as temporary:
        temporary.write_bytes(text.encode("utf-8", "replace"))
