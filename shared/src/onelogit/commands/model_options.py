"""Arguments that say which model, and how it is loaded -> LoadOptions. Loads no torch."""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, cast, get_args

from onelogit.errors import InputError, RecipeError
from onelogit.files import find_folder, read_texts
from onelogit.inputs import checked_recipe
from onelogit.options import LoadOptions, OpenOptions, Protocol, is_url
from onelogit.recipes import ReadOut, Recipe
from onelogit.recognise import recognise

METHODS = ("from_2_way_softmax", "no_post_processing")


def add_hub_options(parser: argparse.ArgumentParser) -> None:
    """Which version of a model, and how to print."""
    parser.add_argument("--revision", help="branch, tag or commit on the hub")
    parser.add_argument("--json", action="store_true", help="print JSON")


def add_server_options(parser: argparse.ArgumentParser) -> None:
    """Which server, and how it is asked."""
    parser.add_argument("--url", help="of a server that serves the model; its key is read from ONELOGIT_API_KEY")
    parser.add_argument("--protocol", choices=get_args(Protocol), help="how it is asked; vllm-tokens where left out")
    parser.add_argument("--template", choices=("client", "server"), help="who writes prompts, in protocols of texts")


def add_model_options(parser: argparse.ArgumentParser, default_dtype: str = "the checkpoint's own") -> None:
    """Everything that `load_options` reads, and how to print."""
    add_hub_options(parser)
    add_loading_options(parser, default_dtype)
    add_prompt_options(parser)


def add_prompt_options(parser: argparse.ArgumentParser) -> None:
    """What a model is asked, and what becomes of its answer."""
    parser.add_argument("--instruction", help="in place of the family's default")
    parser.add_argument("--activation", choices=("sigmoid", "identity"), help="from logit to score")
    parser.add_argument("--chat-template", type=Path, help="jinja file with the roles query and document")


def add_loading_options(parser: argparse.ArgumentParser, default_dtype: str = "the checkpoint's own") -> None:
    """How a model is loaded, and which tokens answer, whatever it is asked."""
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps")
    parser.add_argument("--dtype", help=f"bfloat16, float16 or float32; {default_dtype} where left out")
    parser.add_argument("--max-tokens", type=int, help="longest prompt")
    parser.add_argument("--compile", action="store_true", help="have PyTorch compile the layers")
    parser.add_argument("--trust-remote-code", action="store_true", help="let the checkpoint's own Python run")
    parser.add_argument(
        "--classifier-from-tokens",
        "--classifier_from_tokens",
        metavar="JSON",
        help="""the answer tokens, as texts or ids: '["no", "yes"]', '["Yes"]', '[0]'""",
    )
    parser.add_argument("--method", choices=METHODS, help="what becomes of the answer tokens")


def load_options(options: argparse.Namespace, model: str) -> LoadOptions:
    """What `Reranker.load` takes, with the recipe that the arguments describe.

    Raises:
        InputError: the arguments contradict each other.
        RecipeError: they describe a part of a recipe, and nothing is known of the rest.
    """
    return {**options_without_recipe(options), "recipe": _given_recipe(options, model)}


class Named(NamedTuple):
    """What scores: a model of this process, a server and the model that it serves, or a server alone."""

    model: str | None
    url: str | None


def named(options: argparse.Namespace) -> Named:
    """What --model (or the argument in its place) and --url name; the address of a server may stand in either.

    Raises:
        InputError: both are servers.
    """
    model, url = options.model, options.url
    if model is None or not is_url(model):
        return Named(model, url)
    if url is not None:
        raise InputError("two servers are named, one in the model's place and one as --url; leave one out")
    return Named(None, model)


def open_options(options: argparse.Namespace, model: str | None, url: str | None) -> OpenOptions:
    """What `open_reranker` takes besides the model's name, or the url where there is none.

    Raises:
        InputError: as `load_options`.
        RecipeError: as `load_options`.
    """
    if url is None:
        return cast("OpenOptions", load_options(options, cast("str", model)))
    loading = {name: value for name, value in options_without_recipe(options).items() if value is not False}
    remote = {"protocol": options.protocol, "template": options.template}
    return cast("OpenOptions", {**loading, **remote, "url": None if model is None else url})


def fetch(model: str, options: LoadOptions) -> None:
    """Bring a model of the hub here, under the hub's own progress bars; one that cannot be used without its weights.

    Raises:
        CheckpointError: it is not found.
        RecipeError: it is not known how it reranks.
    """
    if Path(model).expanduser().is_dir():
        return
    revision = options.get("revision")
    folder = find_folder(model, with_weights=False, revision=revision)
    recognise(model, read_texts(folder), checked_recipe(options.get("recipe")))
    find_folder(model, with_weights=True, revision=revision)


def options_without_recipe(options: argparse.Namespace) -> LoadOptions:
    """What `Reranker.load` takes, but for the recipe."""
    return LoadOptions(
        revision=options.revision,
        device=options.device,
        dtype=options.dtype,
        max_tokens=options.max_tokens,
        instruction=options.instruction,
        compile=options.compile,
        activation=options.activation,
        trust_remote_code=options.trust_remote_code,
    )


def given_tokens(options: argparse.Namespace) -> list[str | int] | None:
    """The answer tokens that the arguments name, in their order.

    Raises:
        InputError: they are no JSON list of texts and ids, or have no method.
    """
    if options.classifier_from_tokens is None:
        if options.method is not None:
            raise InputError(f"--method {options.method} needs --classifier-from-tokens")
        return None
    try:
        tokens = json.loads(options.classifier_from_tokens)
    except json.JSONDecodeError as error:
        raise InputError(f'--classifier-from-tokens is not JSON ({error}); give \'["no", "yes"]\'') from error
    if not isinstance(tokens, list) or not tokens or not all(type(token) in (str, int) for token in tokens):
        raise InputError(f"--classifier-from-tokens must be a list of texts or ids, not {tokens!r}")
    if options.method is None:
        raise InputError(f"--classifier-from-tokens needs a --method: {' or '.join(METHODS)}")
    return tokens


def _given_recipe(options: argparse.Namespace, model: str) -> Recipe | None:
    tokens = given_tokens(options)
    if tokens is None and options.chat_template is None:
        return None
    read_out = None if tokens is None else _read_out(tokens, options.method)
    template = None if options.chat_template is None else _read_template(options.chat_template)
    try:
        known = recognise(model, read_texts(find_folder(model, with_weights=False, revision=options.revision))).recipe
    except RecipeError:
        if template is None or read_out is None:
            raise
        return Recipe(family="given", chat_template=template, read_out=read_out, source="the command line")
    return replace(
        known,
        chat_template=known.chat_template if template is None else template,
        read_out=known.read_out if read_out is None else replace(read_out, scale=_scale(known)),
    )


def _scale(known: Recipe) -> float:
    return 1.0 if known.read_out is None else known.read_out.scale


def _read_out(tokens: list[str | int], method: str) -> ReadOut:
    if method == "from_2_way_softmax" and len(tokens) == 2:
        return ReadOut(true=tokens[1], false=tokens[0])
    if method == "no_post_processing" and len(tokens) == 1:
        return ReadOut(true=tokens[0])
    raise InputError(
        f"{method} of {len(tokens)} tokens is no single logit: from_2_way_softmax takes two, the false one first, and "
        "no_post_processing takes one"
    )


def _read_template(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the chat template {path} cannot be read: {error}") from error
