"""The tables of recipes and of refused models -> docs/models.md: every family that we know of. Run it after a change.

    python tools/models_page.py

A test checks that the page is what this writes.
"""

# ruff: noqa: E501 -- a row of a Markdown table is one line

from pathlib import Path

from onelogit.prompts.template import compile_prompt, takes_instruction
from onelogit.recipes.families import FAMILIES
from onelogit.recipes.recipe import Recipe, is_non_commercial
from onelogit.recipes.unsupported import (
    CLASSIFIER,
    MULTIMODAL,
    MULTIMODAL_ADAPTER,
    MULTIMODAL_QUANTISED,
    NO_HEAD,
    UNSUPPORTED,
    UnsupportedKind,
)

PAGE = Path(__file__).parents[1] / "docs" / "models.md"

_HEAD = """\
# Supported models

All families of rerankers that we know of, and models that are often mistaken for rerankers. `onelogit recipes MODEL`
shows which recipe a model gets, and why. The error for a refused model says the same as this page.

The last column of the first two tables says how a model is loaded: *converted* if it is a language model whose head is
reduced to one logit, *native* if it is a classifier with a head of its own. A model on a server needs no entry here:
`RemoteReranker` and `--url` rank with whatever the server scores. The tables of this page are written by
`python tools/models_page.py`.

## Decoders with a recipe

"""
_ENCODERS = """
Fine-tunes are recognised by their files (their chat template, or `base_model` in README.md). For others, pass the
family's name: `recipe="qwen3-reranker"`. FollowIR takes an instruction after the query, as its training data did.
RankLLaMA's models are LoRA adapters of Llama 2, trained on documents of the form `title text`; they need the
[extra](install.md#extras) `lora`. For a folder into which one was merged, or an adapter under another name, pass
`recipe="rankllama"`.

Two entries are less certain than the rest, because no model card confirms them: PIXIE's prompt and its limit of 8,192
tokens are those of its authors' evaluation script, and Prism-Qwen3-Reranker-4B-exp is assumed to have the prompt and
the limit (10,240 tokens) of the Prism models that share its card. A `Recipe` of your own replaces either.

## Models whose files say everything

These models need no entry in the table above.

| models | score | prompt | licence | loads |
|---|---|---|---|---|
| BAAI/bge-reranker-base, large, v2-m3; cross-encoder/ms-marco-*; ibm-granite/granite-embedding-reranker-english-r2 | head of an encoder | the tokenizer's pair | Apache-2.0, MIT | native |
| Alibaba-NLP/gte-reranker-modernbert-base | head of an encoder | the tokenizer's pair | Apache-2.0 | native |
| Alibaba-NLP/gte-multilingual-reranker-base | head of an encoder | the tokenizer's pair | Apache-2.0 | native: as transformers' GTE, without its own code (transformers 5.23 or newer) |
| cross-encoder/ettin-reranker-* | modules: Pooling, Dense, LayerNorm, Dense | the tokenizer's pair | Apache-2.0 | native |
| cross-encoders of NVIDIA NeMo Automodel (`LlamaBidirectionalForSequenceClassification` and its like) | own head after a pooled state (mean, first or last token), divided by a temperature | that of `llama-nemotron-rerank`, or a template in its files | see its card | native |
| any classifier with two labels whose names tell which means relevant (irrelevant/relevant, no/yes, LABEL_0/LABEL_1); for others, pass `relevant_label` | the relevant label's logit − the other's | the tokenizer's pair for encoders; for decoders as declared, or named with `recipe=` | see its card | native |
| PEFT adapters (LoRA, DoRA, ...) of any model on this page that loads | as their base model, or a head of their own | of their base model, or a reranker's template of their own | see both cards | as their base model, merged; needs the extra `lora` |
| tomaarsen/Qwen3-Reranker-*-seq-cls, and other conversions to one label | own head | of the original: declared, or named with `recipe=` | Apache-2.0 | native |
| any model in the Sentence Transformers reranker format (`LogitScore` and a chat template) | as declared | as declared | see its card | converted |
| any model with `classifier_from_token` and `method` in config.json, and a chat template | as declared | as declared | see its card | converted |
| any other decoder | as your `Recipe` says | as your `Recipe` says: [your-own-model.md](your-own-model.md) | see its card | converted or native |
| reward models as plain classifiers (Skywork-Reward, ...) | own head | a chat with the answer to rate, so no relevance | see its card | native, with a `Recipe` only |

## Models that are refused

| models | how they rank | why that is not one logit | what to do | licence |
|---|---|---|---|---|
"""
_TAIL = """
Weights in GGUF, ONNX, OpenVINO, MLX or pickled files are not read: the error names the version to use instead. Models
with AWQ, GPTQ and other quantised weights that transformers loads are read, but not exported.
"""


def render() -> str:
    """The whole page."""
    columns = "| family | models | logit | score | prompt | licence | loads |\n|---|---|---|---|---|---|---|\n"
    refused = (*UNSUPPORTED, MULTIMODAL_ADAPTER, MULTIMODAL_QUANTISED, NO_HEAD, CLASSIFIER)
    families = "".join(map(_family_row, FAMILIES))
    return f"{_HEAD}{columns}{families}{_ENCODERS}{''.join(map(_refused_row, refused))}{_TAIL}"


def _family_row(recipe: Recipe) -> str:
    licence = "see their cards" if recipe.licence is None else recipe.licence
    licence += ": **not for commercial use**" if is_non_commercial(recipe.licence) else ""
    score = "the logit" if recipe.activation == "identity" else recipe.activation
    loads = "native" if recipe.read_out is None else "converted; its conversions: native"
    return _row(f"`{recipe.family}`", _short(recipe.models), _logit(recipe), score, _prompt(recipe), licence, loads)


def _refused_row(kind: UnsupportedKind) -> str:
    reason = kind.reason.replace(" ({labels})", "").replace("{count}", "three or more").replace("{task}", "")
    licence = "see their cards" if kind.licence is None else kind.licence
    instead = f"{kind.instead} (server only)" if kind is MULTIMODAL else kind.instead
    return _row(kind.models, kind.scoring, reason, instead, licence)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"


def _short(models: tuple[str, ...]) -> str:
    """Hub ids, each owner once."""
    owners = [model.split("/")[0] for model in models]
    return ", ".join(
        model if index == 0 or owner != owners[index - 1] else model.split("/")[1]
        for index, (model, owner) in enumerate(zip(models, owners, strict=True))
    )


def _logit(recipe: Recipe) -> str:
    read_out = recipe.read_out
    if read_out is None:
        return "its own head"
    answers = [each for each in (read_out.true, read_out.false) if each is not None]
    names = " − ".join(f"`{each}`" if isinstance(each, str) else f"token {each}" for each in answers)
    return names if read_out.scale == 1 else f"{names}, times {read_out.scale:g}"


def _prompt(recipe: Recipe) -> str:
    if recipe.chat_template is None:
        return "the tokenizer's pair"
    parts = compile_prompt(recipe.chat_template, False)
    text, fields = "".join(part.text for part in parts), [part.field for part in parts if part.field]
    kind = "a chat" if "<|im_start|>" in text or "[INST]" in text else "plain text"
    order = ", document first" if fields.index("document") < fields.index("query") else ""
    place = ", takes an instruction" if takes_instruction(recipe.chat_template) else ""
    return f"{kind}{order}{place}"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
