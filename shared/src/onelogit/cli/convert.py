"""`onelogit convert`: writes a model as a sequence classifier that other libraries and servers load."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import HfApi

from onelogit.checkpoints.hub import find_folder, read_texts
from onelogit.checkpoints.metadata import parse_json
from onelogit.checkpoints.module_chain import read_module_chain
from onelogit.checkpoints.recipe_choice import resolve_recipe
from onelogit.cli.model_options import (
    add_json_option,
    add_model_options,
    fetch,
    given_tokens,
    model_spec,
    options_without_recipe,
)
from onelogit.cli.output import print_json
from onelogit.cli.verify import check_requirements
from onelogit.errors import CheckpointError, InputError, first_line
from onelogit.export.metadata import is_served_by_vllm
from onelogit.export.model_card import UsageExamples, usage_examples
from onelogit.io.progress import waiting
from onelogit.io.tables import console
from onelogit.model_spec import ModelSpec
from onelogit.validation import checked_path

if TYPE_CHECKING:
    from onelogit.verification.parity import Parity

SUMMARY = "write a model as a sequence classifier that transformers, Sentence Transformers and vLLM load"
EXAMPLES = (
    "onelogit convert Qwen/Qwen3-Reranker-0.6B --output qwen3-reranker-classifier",
    "onelogit convert Qwen/Qwen3-Reranker-0.6B --output qwen3-reranker-classifier --overwrite --verify",
)
_HEADINGS = UsageExamples(
    transformers="Use it with transformers, for raw logits:",
    sentence_transformers="Use it with Sentence Transformers (5.4 or newer):",
    vllm="Serve it with vLLM:",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments, some also by the names that vLLM's script gives them."""
    parser.add_argument("model", nargs="?", help="hub id or folder")
    parser.add_argument("--model-name", "--model_name", metavar="MODEL", help="as MODEL; named as in vLLM's script")
    parser.add_argument("-o", "--output", "--path", type=Path, metavar="FOLDER", required=True, help="folder to write")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier export")
    help_text = "compare the export with the original, and add the result to the model card"
    parser.add_argument("--verify", action="store_true", help=help_text)
    parser.add_argument("--push-to-hub", metavar="ID", help="also upload the export to the hub")
    parser.add_argument("--private", action="store_true", help="upload the export as a private model")
    add_json_option(parser)
    add_model_options(parser, may_quantise=False)  # an export has the original weights


def run(options: argparse.Namespace) -> int:
    """Convert the model, write and verify the export, print how to use it, and upload it."""
    from onelogit.export.exporter import check_target  # noqa: PLC0415  loads torch

    model = _model(options)
    options.output = checked_path(options.output)
    source = ModelSpec(model).folder
    check_target(options.output.absolute(), source, is_overwriting=options.overwrite, option="--overwrite")
    tokens = given_tokens(options)
    labels = 1 if tokens is None or options.method != "no_post_processing" else len(tokens)
    if labels > 1:
        _check_labels(options, tokens or [])
    elif options.verify:
        check_requirements(None)
    _save(model, options, tokens if labels > 1 else None)
    parity = _verify(model, options) if options.verify else None
    _report(options, labels, parity)
    if options.push_to_hub:
        push(options.output, options.push_to_hub, is_private=options.private)
    return 0


def _model(options: argparse.Namespace) -> str:
    names = {name for name in (options.model, options.model_name) if name is not None}
    if len(names) != 1:
        raise InputError("name one model to convert: onelogit convert MODEL --output FOLDER")
    return str(names.pop())


def _check_labels(options: argparse.Namespace, tokens: list[str | int]) -> None:
    for name in ("recipe", "chat_template", "instruction", "activation", "max_tokens", "relevant_label", "verify"):
        if getattr(options, name) not in (None, False):
            raise InputError(f"--{name.replace('_', '-')} does not apply to several labels, which are not a reranker")
    if len(set(tokens)) < len(tokens):
        raise InputError(f"{tokens} contains a token twice; each token is one label")


def _save(model: str, options: argparse.Namespace, labels: list[str | int] | None) -> None:
    from onelogit.export.multi_label import save_labels  # noqa: PLC0415
    from onelogit.local.reranker import Reranker  # noqa: PLC0415  loads torch

    if labels is not None:
        find_folder(model, options_without_recipe(options), with_weights=True)
        with waiting(f"converting {model}"):
            save_labels(
                model, labels, options.output, options_without_recipe(options), is_overwriting=options.overwrite
            )
        return
    found = fetch(model_spec(options, model))
    with waiting(f"converting {model}"), Reranker.load(found) as reranker:
        reranker.save(options.output, force=options.overwrite)


def _verify(model: str, options: argparse.Namespace) -> "Parity":
    """Compare the export with the original, add the result to the folder's model card, and return it.

    Raises:
        CheckpointError: they differ; the folder is kept for inspection.
    """
    from onelogit.io.sample_pairs import bundled_pairs  # noqa: PLC0415  loads torch
    from onelogit.verification.parity import measure_parity  # noqa: PLC0415

    parity = measure_parity(
        model, bundled_pairs(), model_spec(options, model).load_options, against=str(options.output)
    )
    result = _sentence(parity)
    if not parity.agrees:
        raise CheckpointError(f"{options.output} differs from {model!r}. {result}")
    card = options.output / "README.md"
    text = f"{card.read_text(encoding='utf-8')}\n{result}\n"
    card.write_text(text, encoding="utf-8", newline="\n")
    return parity


def _sentence(parity: "Parity") -> str:
    largest = max(comparison.largest_difference for comparison in parity.comparisons)
    return (
        f"Compared with the original on {parity.pair_count} pairs in Korean, English and Chinese, {parity.dtype} on "
        f"{parity.device}: largest difference of a logit {largest:.1e} (up to {parity.tolerance:.1e} is rounding)."
    )


def push(folder: Path, hub_id: str, *, is_private: bool) -> None:
    """Upload an exported folder to the hub.

    Raises:
        CheckpointError: the hub refuses the upload or cannot be reached; the folder is kept.
    """
    hub = HfApi()
    try:
        hub.create_repo(hub_id, private=is_private, exist_ok=True)
        hub.upload_folder(repo_id=hub_id, folder_path=folder, commit_message="Conversion by onelogit")
    except Exception as error:  # the hub's client and its transport raise errors of many classes
        raise CheckpointError(
            f"{folder} is written, but cannot be uploaded to {hub_id!r}: {first_line(error)}"
        ) from error


def _report(options: argparse.Namespace, labels: int, parity: "Parity | None") -> None:
    texts = read_texts(options.output)
    recipe = resolve_recipe(str(options.output), texts).recipe if labels == 1 else None
    has_prompt = recipe is not None and recipe.chat_template is not None
    chain = read_module_chain(texts)
    pooling = None if chain is None else chain.pooling
    examples = usage_examples(
        str(options.output),
        has_prompt=has_prompt,
        labels=labels,
        pooling=pooling,
        for_vllm=is_served_by_vllm(parse_json(texts, "config.json")),
    )
    if options.json:
        verified = {} if parity is None else {"verification": parity.to_json()}
        print_json({"folder": str(options.output), "labels": labels, **examples._asdict(), **verified})
        return
    out = console(soft_wrap=True)
    many = "" if labels == 1 else f", with {labels} labels, one for each token; it is not a one-logit reranker"
    out.print(f"Written to {options.output}{many}.", markup=False)
    if parity is not None:
        out.print(_sentence(parity), markup=False)
    for heading, code in zip(_HEADINGS, examples, strict=True):
        out.print(f"\n[bold]{heading}[/]")
        out.print(code, markup=False)
