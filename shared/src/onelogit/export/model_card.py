"""A recipe and its source's name -> the README.md of an exported folder, and examples of its use."""

import re
from pathlib import Path
from textwrap import fill
from typing import NamedTuple

from huggingface_hub import ModelCardData

from onelogit.checkpoints.hub import commit_of
from onelogit.checkpoints.known_family import cached_id
from onelogit.checkpoints.module_chain import Pooling
from onelogit.recipes.recipe import ReadOut, Recipe

_NOT_FOR_VLLM = (
    "# not for vLLM, whose code of this architecture attends only to earlier tokens and would give other logits;\n"
    "# `onelogit serve` serves it"
)
_POOLED_STATES: dict[Pooling, str] = {"mean": "states.mean(dim=0)", "cls": "states[0]", "lasttoken": "states[-1]"}


class UsageExamples(NamedTuple):
    """Three ways to use an exported folder: code or a command for each library."""

    transformers: str
    sentence_transformers: str
    vllm: str


def public_name(source: str) -> str:
    """A hub id, also of a folder in the hub's cache; or the last part of a path, which does not reveal where it was."""
    if is_hub_id(source):
        return source
    folder = Path(source)
    cached = None if commit_of(folder) is None else cached_id(folder.parents[1].name)
    return cached or folder.name


def is_hub_id(source: str) -> bool:
    """Whether a model's name has the form owner/name and is not a local folder."""
    has_form = re.fullmatch(r"[\w.-]+/[\w.-]+", source) is not None and not source.startswith(".")
    return has_form and not Path(source).is_dir()


def usage_examples(
    folder: str, *, has_prompt: bool, labels: int = 1, pooling: Pooling | None = None, for_vllm: bool = True
) -> UsageExamples:
    """Code and a command that use the folder.

    Args:
        folder: path or hub id.
        has_prompt: whether the model reads prompts from a chat template; False if it reads plain pairs.
        labels: number of labels; 1 for a reranker.
        pooling: of the hidden states that the head reads; None for the last token's.
        for_vllm: whether vLLM serves it; see `is_served_by_vllm`.
    """
    # Converted heads are stored in float32, which transformers would round to the dtype of the other weights.
    dtype = ', dtype="float32"' if has_prompt or labels > 1 else ""
    kind = "AutoModelForSequenceClassification" if pooling is None else "AutoModel"
    lines = [
        *(() if pooling is None else ("from safetensors.torch import load_file",)),
        f"from transformers import {kind}, AutoTokenizer\n",
        f'model = {kind}.from_pretrained("{folder}"{dtype})',
        f'tokenizer = AutoTokenizer.from_pretrained("{folder}")',
    ]
    if has_prompt:
        lines += [
            'messages = [{"role": "query", "content": query}, {"role": "document", "content": document}]',
            'inputs = tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=True)',
        ]
    elif labels == 1:
        lines += ['inputs = tokenizer(query, document, truncation=True, return_tensors="pt")']
    else:
        lines += ['inputs = tokenizer(prompt, return_tensors="pt")  # write the prompt yourself']
    logit = [f"{'logit' if labels == 1 else 'logits'} = model(**inputs).logits[0]"]
    if pooling is not None:
        logit = [
            f'head = load_file("{folder}/2_Dense/model.safetensors")["linear.weight"][0]',
            "states = model(**inputs).last_hidden_state[0]",
            f"logit = {_POOLED_STATES[pooling]} @ head",
        ]
    template = f"--chat-template {folder}/chat_template.jinja"
    older = f"  # before vLLM 0.33 add: {template}" if has_prompt else ""
    older = older if pooling is None else f" {template}"
    predict = "[(query, document) for document in documents]" if labels == 1 else "[prompt]"
    return UsageExamples(
        transformers="\n".join([*lines, *logit]),
        sentence_transformers=(
            "from sentence_transformers import CrossEncoder\n\n"
            f'model = CrossEncoder("{folder}")\n'
            f"scores = model.predict({predict})"
        ),
        vllm=f"vllm serve {folder} --runner pooling{older}" if for_vllm else _NOT_FOR_VLLM,
    )


def write_model_card(
    recipe: Recipe,
    source: str,
    name: str,
    labels: int = 1,
    pooling: Pooling | None = None,
    base: str | None = None,
    *,
    for_vllm: bool = True,
    commits: tuple[str | None, str | None] = (None, None),
) -> str:
    """The model card: a description, the model's origin and licence, and how to use it.

    Args:
        recipe: with token ids.
        source: hub id or path of the original.
        name: of the folder, for the code in the card.
        labels: number of labels; 1 for a reranker.
        pooling: as in `usage_examples`.
        base: hub id or path of the model that the original, an adapter, was merged into; None for a whole model.
        for_vllm: as in `usage_examples`.
        commits: of the original and of the base on the hub, to which the card links; None if unknown.
    """
    model = public_name(source)
    origin = _linked(source, commits[0])
    if base is not None:
        origin = f"{origin}, an adapter merged into {_linked(base, commits[1])}"
    has_prompt = recipe.chat_template is not None
    used = usage_examples(name, has_prompt=has_prompt, labels=labels, pooling=pooling, for_vllm=for_vllm)
    paths = "`/rerank` and `/score`" if labels == 1 else "`/classify`"
    licence = "see its model card" if recipe.licence is None else recipe.licence
    texts = [_reranker_text(recipe, origin) if labels == 1 else _labels_text(origin, labels)]
    owner = "the original's" if base is None else "those of the base model and of the adapter"
    texts.append(f"Licence and attribution: {owner} ({licence}). Credit for the model goes to its authors.")
    parts = [
        f"---\n{_front_matter(recipe, source, labels, base)}\n---",
        f"# {model} as a sequence classifier",
        *map(_wrapped, texts),
        "## Use",
        f"With Sentence Transformers (5.4 or newer):\n\n```python\n{used.sentence_transformers}\n```",
        f"With transformers, for the raw logit:\n\n```python\n{used.transformers}\n```",
        f"With vLLM, on {paths}:\n\n```console\n{used.vllm}\n```",
        *map(_wrapped, _scores_texts(recipe, source, name, pooling) if labels == 1 else []),
    ]
    return "\n\n".join(parts) + "\n"


def _wrapped(text: str) -> str:
    return fill(text, width=100, break_long_words=False, break_on_hyphens=False)


def _linked(model: str, commit: str | None) -> str:
    name, tree = public_name(model), "" if commit is None else f"/tree/{commit}"
    return f"[{name}](https://huggingface.co/{name}{tree})" if is_hub_id(name) else f"`{name}`"


def _front_matter(recipe: Recipe, source: str, labels: int, base: str | None) -> str:
    is_reranker = labels == 1
    names = [public_name(each) for each in (source, base) if each is not None]
    origins = [name for name in names if is_hub_id(name)]
    has_two_licences = base is not None and recipe.licence is not None and ", " in recipe.licence
    return ModelCardData(
        base_model=origins if len(origins) > 1 else origins[0] if origins else None,
        license="other" if has_two_licences else recipe.licence,  # the hub takes only one
        license_name=recipe.licence if has_two_licences else None,
        library_name="sentence-transformers" if is_reranker else "transformers",
        pipeline_tag="text-ranking" if is_reranker else "text-classification",
        tags=[*(["cross-encoder", "reranker"] if is_reranker else []), "text-classification", "onelogit"],
    ).to_yaml()


def _reranker_text(recipe: Recipe, origin: str) -> str:
    family = "" if recipe.family == "declared" else f" of the family `{recipe.family}` ({recipe.source})"
    head = _head_text(recipe.read_out)
    return f"This is {origin}, a reranker{family}, converted by onelogit. {head} Nothing was trained."


def _labels_text(origin: str, labels: int) -> str:
    return (
        f"This is {origin}, a language model, converted by onelogit. Its language-model head is replaced by {labels} "
        "of its rows, in float32: each label is a token, and its logit is the token's. It is not a reranker, which has "
        "one logit, and it contains no prompt. Nothing was trained."
    )


def _head_text(read_out: ReadOut | None) -> str:
    if read_out is None:
        return "Its classification head is the original's and gives the same logits."
    rows = f"row {read_out.true}" if read_out.false is None else f"row {read_out.true} minus row {read_out.false}"
    scaled = rows if read_out.scale == 1 else f"{rows}, times {read_out.scale:g}"
    return (
        f"Its language-model head is replaced by a single row, in float32: {scaled}. The classifier's one logit equals "
        "the original's relevance logit at the prompt's last token."
    )


def _scores_texts(recipe: Recipe, source: str, name: str, pooling: Pooling | None) -> list[str]:
    score = "the logit's sigmoid" if recipe.activation == "sigmoid" else "the logit itself"
    texts = [
        f"The score is {score}. It is for ordering documents; it is not the probability that a document is relevant.",
        "`reranker_probe.json` contains three prompts with their token ids and logits, for checking a server. "
        f"`onelogit verify {public_name(source)} --against {name}` compares this folder with the original.",
    ]
    if pooling in ("mean", "cls"):
        texts.append(
            "The head reads a pooled state, which the code above computes. `AutoModelForSequenceClassification` of "
            "transformers reads the last token instead, and gives other logits."
        )
    elif recipe.chat_template is not None:
        texts.append(
            "The head is stored in float32. Plain transformers rounds it to the dtype of the other weights on loading, "
            'unless you pass `dtype="float32"`, as above. Sentence Transformers (from 6.0) and vLLM keep float32.'
        )
    if recipe.chat_template is not None and "seam" in recipe.chat_template:
        texts.append(
            "The original's reference code and onelogit tokenise the prompt in several spans. Servers tokenise it as a "
            "whole, which gives other tokens and slightly different logits if a text ends in punctuation."
        )
    return texts
