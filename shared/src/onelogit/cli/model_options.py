"""The arguments that name a model or a server, and how to load it -> a ModelSpec. Loads no torch."""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import cast, get_args

from onelogit.checkpoints.metadata import read_activation, vllm_read_out
from onelogit.checkpoints.resolve import ResolvedModel, fetch_weights, find_texts, resolve_model
from onelogit.errors import InputError, RecipeError, UnsupportedModelError
from onelogit.model_spec import ModelSpec
from onelogit.options import LoadOptions, OpenOptions, Protocol, Quantization, is_url
from onelogit.prompts.template import takes_instruction
from onelogit.recipes.lookup import family_recipe, is_recipe_file, recipe_of
from onelogit.recipes.recipe import Activation, Recipe

METHODS = ("from_2_way_softmax", "no_post_processing")
_EXAMPLES_OF_TOKENS = """'["no", "yes"]', the false one first, or '["Yes"]'"""


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Add --json."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")


def add_hub_options(parser: argparse._ActionsContainer) -> None:
    """Add the options that `hub_options` reads."""
    help_text = "hub id or folder of the model that an adapter (LoRA) was trained on (default: the one it names)"
    parser.add_argument("--base-model", metavar="MODEL", help=help_text)
    parser.add_argument("--revision", metavar="NAME", help="branch, tag or commit on the hub")
    parser.add_argument("--cache-dir", metavar="FOLDER", help="folder of downloaded models (default: the hub's)")
    parser.add_argument("--local-files-only", action="store_true", help="never ask the hub; use downloaded models only")


def hub_options(options: argparse.Namespace) -> dict[str, str | bool]:
    """The given options of finding a model's files."""
    given = {name: getattr(options, name) for name in ("base_model", "revision", "cache_dir", "local_files_only")}
    return {name: value for name, value in given.items() if value is not None and value is not False}


def add_server_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a server: --url, --protocol, --path, --template and --raw-logits."""
    group = parser.add_argument_group("server")
    group.add_argument("--url", help="server that serves the model; its API key is read from ONELOGIT_API_KEY")
    group.add_argument("--protocol", choices=get_args(Protocol), help="protocol of the server (default: vllm-tokens)")
    group.add_argument("--path", help="path of the requests, such as /rerank (default: the protocol's)")
    help_text = "which side writes the prompts, for protocols that send texts"
    group.add_argument("--template", choices=("client", "server"), help=help_text)
    help_text = "--no-raw-logits: the server cannot turn its activation off; use its scores as they are"
    group.add_argument("--raw-logits", action=argparse.BooleanOptionalAction, default=None, help=help_text)


def add_model_options(
    parser: argparse.ArgumentParser, default_dtype: str = "the checkpoint's own", *, may_quantise: bool = True
) -> None:
    """Add all options that `model_spec` reads, except those of a server, and --quantization if it applies."""
    add_loading_options(parser, default_dtype, may_quantise=may_quantise)
    group = parser.add_argument_group("prompt and score")
    group.add_argument("--instruction", metavar="TEXT", help="instruction in the prompt (default: the model's default)")
    group.add_argument("--activation", choices=get_args(Activation), help="how to compute the score from the logit")
    help_text = "Jinja template with the roles query and document"
    group.add_argument("--chat-template", type=Path, metavar="FILE", help=help_text)


def add_loading_options(
    parser: argparse.ArgumentParser, default_dtype: str = "the checkpoint's own", *, may_quantise: bool = False
) -> None:
    """Add the options of loading a model and of its answer tokens, and --quantization if it applies."""
    group = parser.add_argument_group("loading the model")
    add_hub_options(group)
    group.add_argument("--device", help="cpu, cuda, cuda:1 or mps (default: the fastest available)")
    group.add_argument("--dtype", help=f"bfloat16, float16 or float32 (default: {default_dtype})")
    group.add_argument("--max-tokens", type=int, metavar="N", help="maximum length of a prompt (default: the model's)")
    group.add_argument("--compile", action="store_true", help="compile the layers with PyTorch")
    if may_quantise:
        help_text = "int8: approximate but faster, on an x86 CPU with VNNI or AMX (default: exact)"
        group.add_argument("--quantization", choices=get_args(Quantization), help=help_text)
    help_text = "of a classifier with two labels, the one that means relevant, by its name or index"
    group.add_argument("--relevant-label", metavar="LABEL", help=help_text)
    group.add_argument("--trust-remote-code", action="store_true", help="allow the checkpoint's own Python code to run")
    help_text = "name of a family, such as qwen3-reranker, or a JSON file with a recipe's fields"
    group.add_argument("--recipe", metavar="NAME_OR_FILE", help=help_text)
    group.add_argument(
        "--classifier-from-tokens",
        "--classifier_from_tokens",
        metavar="JSON",
        help="""answer tokens, as texts or ids; of two, the false one first: '["no", "yes"]', '["Yes"]', '[0]'""",
    )
    help_text = "how the answer tokens give the logit: the second minus the first, or the only one"
    group.add_argument("--method", choices=METHODS, help=help_text)


def model_spec(options: argparse.Namespace, model: str | None, extra: OpenOptions | None = None) -> ModelSpec:
    """The spec of a local model, of a server and the model that it serves, or of a server alone.

    Args:
        options: the arguments of `add_model_options` and, for some commands, `add_server_options`.
        model: hub id, folder, or the url of a server.
        extra: options that only this command has.

    Raises:
        InputError: the arguments contradict each other.
        RecipeError: they describe only a part of a recipe, and no recipe is known for the model.
    """
    url: str | None = getattr(options, "url", None)
    if url is not None and not is_url(url):
        raise InputError(f"--url must be an http or https url such as http://127.0.0.1:8000, not {url!r}")
    if is_url(model):
        if url is not None:
            raise InputError("two servers are named, one as the model and one as --url; leave one out")
        model, url = None, model
    given = {**options_without_recipe(options), **(extra or {})}
    given |= {name: getattr(options, name, None) for name in ("protocol", "path", "template", "raw_logits")}
    if model is not None:
        given["recipe"] = _given_recipe(options, model)
    elif given_names := _given_recipe_options(options):
        name = given_names[0]
        raise InputError(
            f"{name} needs prompts that the client writes; name the model as well, and the server as --url"
        )
    return ModelSpec(model, url, given)


def fetch(spec: ModelSpec) -> ResolvedModel:
    """Download a model from the hub, with the hub's progress bars. An unusable model is downloaded without weights.

    Raises:
        CheckpointError: the model is not found.
        RecipeError: no recipe is known for the model.
    """
    return fetch_weights(resolve_model(spec))


def options_without_recipe(options: argparse.Namespace) -> LoadOptions:
    """The given options of `Reranker.load`, except the recipe."""
    of_loading = ("device", "dtype", "compile", "relevant_label", "trust_remote_code")
    of_scoring = ("max_tokens", "instruction", "activation")
    given = {name: getattr(options, name) for name in (*of_loading, *of_scoring)}
    given["quantization"] = getattr(options, "quantization", None)  # not of all commands
    given = {name: value for name, value in given.items() if value is not None and value is not False}
    return cast("LoadOptions", {**hub_options(options), **given})


def given_tokens(options: argparse.Namespace) -> list[str | int] | None:
    """The answer tokens that the arguments name, in their order.

    Raises:
        InputError: they are not a JSON list of texts and ids, or there is no --method.
    """
    if options.classifier_from_tokens is None:
        if options.method is not None:
            raise InputError(f"--method {options.method} needs --classifier-from-tokens: {_EXAMPLES_OF_TOKENS}")
        return None
    try:
        tokens = json.loads(options.classifier_from_tokens)
    except json.JSONDecodeError as error:
        raise InputError(f"--classifier-from-tokens is not JSON ({error}); give {_EXAMPLES_OF_TOKENS}") from error
    if not isinstance(tokens, list) or not tokens or not all(type(token) in (str, int) for token in tokens):
        raise InputError(f"--classifier-from-tokens must be a list of texts or ids, not {tokens!r}")
    if options.method is None:
        fitting = METHODS[0] if len(tokens) == 2 else METHODS[1]
        raise InputError(f"--classifier-from-tokens needs a --method: {' or '.join(METHODS)}; here --method {fitting}")
    return tokens


def source_of_recipe(options: argparse.Namespace) -> str | None:
    """The options that describe the recipe, with their files, for messages; None if there are none."""
    given = {name: getattr(options, name[2:].replace("-", "_")) for name in _given_recipe_options(options)}
    named = ("--recipe", "--chat-template")
    return ", ".join(f"{name} {value}" if name in named else name for name, value in given.items()) or None


def _given_recipe_options(options: argparse.Namespace) -> list[str]:
    """The given options that describe a recipe."""
    names = ("recipe", "chat_template", "classifier_from_tokens", "method")
    return ["--" + name.replace("_", "-") for name in names if getattr(options, name, None) is not None]


def _given_recipe(options: argparse.Namespace, model: str) -> Recipe | None:
    names = _given_recipe_options(options)
    if names == ["--recipe"] or not names:
        return None if options.recipe is None else read_recipe(options.recipe)
    tokens = given_tokens(options)
    read_out = None if tokens is None else vllm_read_out(tokens, options.method)
    if tokens is not None and read_out is None:
        raise InputError(
            f"{options.method} of {len(tokens)} tokens does not give a single logit: from_2_way_softmax takes two, the "
            "false one first, and no_post_processing takes one"
        )
    template = None if options.chat_template is None else _read_template(options.chat_template)
    try:
        given = None if options.recipe is None else read_recipe(options.recipe)
        known = resolve_model(ModelSpec(model, options={**hub_options(options), "recipe": given})).recipe
    except UnsupportedModelError:
        raise
    except RecipeError as error:
        if template is None:
            raise RecipeError(
                f"--classifier-from-tokens and --method give only the answers; the prompt is missing: add "
                f"--chat-template FILE, or --recipe NAME, because no file of {model!r} declares it"
            ) from error
        activation = read_activation(find_texts(ModelSpec(model, options=hub_options(options)))[1])
        if activation is None:  # Sentence Transformers' default for a head, and the plain logit of a language model
            activation = "sigmoid" if read_out is None else "identity"
        return Recipe(
            family="given",
            chat_template=template,
            read_out=read_out,
            activation=activation,
            source="the command line",
        )
    if read_out is None:
        read_out = known.read_out
    elif known.read_out is not None:
        read_out = replace(read_out, scale=known.read_out.scale)
    if template is not None:
        default = known.default_instruction if takes_instruction(template) else None
        known = replace(known, chat_template=template, default_instruction=default)
    return replace(known, read_out=read_out)


def read_recipe(name_or_file: str) -> Recipe:
    """The recipe of a family, by its name, or of a JSON file with the fields of `recipe_of`.

    Raises:
        InputError: the file cannot be read.
        RecipeError: as `recipe_of`.
    """
    return cast("Recipe", recipe_of(name_or_file)) if is_recipe_file(name_or_file) else family_recipe(name_or_file)


def _read_template(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")  # a byte order mark is not part of the prompt
    except UnicodeDecodeError as error:
        raise InputError(f"the chat template {path} is not UTF-8; save it as UTF-8") from error
    except (OSError, ValueError) as error:  # ValueError: a name with NUL
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"the chat template {path} cannot be read: {reason}") from error
