"""A recipe and the name of its source -> the README.md of an exported folder, and the commands that serve it."""

import re
from typing import NamedTuple

import yaml

from onelogit.recipes import ReadOut, Recipe


class Serving(NamedTuple):
    """Three ways to use an exported folder, as code or a command to paste."""

    transformers: str
    sentence_transformers: str
    vllm: str


def serving(folder: str, *, has_prompt: bool) -> Serving:
    """How the folder is used, filled in.

    Args:
        folder: path or hub id.
        has_prompt: whether a chat template writes what the model reads; False where it reads a plain pair.
    """
    older = f"  # before vLLM 0.33 add: --chat-template {folder}/chat_template.jinja"
    if not has_prompt:
        text = 'tokenizer(query, document, truncation=True, return_tensors="pt")'
        older = messages = ""
    else:
        messages = 'messages = [{"role": "query", "content": query}, {"role": "document", "content": document}]\n'
        text = 'tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=True)'
    return Serving(
        transformers=(
            "from transformers import AutoModelForSequenceClassification, AutoTokenizer\n\n"
            f'model = AutoModelForSequenceClassification.from_pretrained("{folder}")\n'
            f'tokenizer = AutoTokenizer.from_pretrained("{folder}")\n'
            f"{messages}"
            f"logit = model(**{text}).logits[0, 0]"
        ),
        sentence_transformers=(
            "from sentence_transformers import CrossEncoder\n\n"
            f'model = CrossEncoder("{folder}")\n'
            "scores = model.predict([(query, document) for document in documents])"
        ),
        vllm=f"vllm serve {folder} --runner pooling{older}",
    )


def write_model_card(recipe: Recipe, source: str, name: str) -> str:
    """The model card: what this is, what it was made from, under which licence, and how to use it.

    Args:
        recipe: with token ids.
        source: hub id or path of the original.
        name: how the code in the card calls the folder.
    """
    is_hub_id = re.fullmatch(r"[\w.-]+/[\w.-]+", source) is not None
    front = {
        "base_model": source if is_hub_id else None,
        "license": recipe.licence,
        "library_name": "sentence-transformers",
        "pipeline_tag": "text-ranking",
        "tags": ["cross-encoder", "reranker", "text-classification", "onelogit"],
    }
    origin = f"[{source}](https://huggingface.co/{source})" if is_hub_id else f"`{source.rstrip('/').split('/')[-1]}`"
    used = serving(name, has_prompt=recipe.chat_template is not None)
    return f"""---
{yaml.safe_dump({key: value for key, value in front.items() if value is not None}, sort_keys=False).strip()}
---

# {origin.partition("]")[0].strip("[`")} as a sequence classifier

This is {origin}, a reranker of the family `{recipe.family}` ({recipe.source}), converted by onelogit. {_head(recipe)}
Nothing was trained: the logit is the original's.

Licence and attribution are those of the original: {recipe.licence or "see its model card"}. Credit for the model goes
to its authors.

## Use

With Sentence Transformers (5.4 or newer):

```python
{used.sentence_transformers}
```

With transformers, for the raw logit:

```python
{used.transformers}
```

With vLLM, behind `/rerank` and `/score`:

```console
{used.vllm}
```

The score is {_score(recipe)}. It orders documents; it is no probability that a document is relevant.
`reranker_probe.json` holds three prompts with their token ids and logits, to ask any server whether it is sane.
{_seams(recipe)}"""


def _head(recipe: Recipe) -> str:
    read_out = recipe.read_out
    if read_out is None:
        return "Its classification head is its own, unchanged."
    return (
        f"Its language-model head is gone; in its place stands one row, in float32, {_rows(read_out)}, "
        "so that the classifier's one logit is the relevance that the original gives at the prompt's last token."
    )


def _rows(read_out: ReadOut) -> str:
    rows = f"row {read_out.true}" if read_out.false is None else f"row {read_out.true} less row {read_out.false}"
    return rows if read_out.scale == 1 else f"{rows}, times {read_out.scale:g}"


def _score(recipe: Recipe) -> str:
    return "the logit's sigmoid" if recipe.activation == "sigmoid" else "the logit itself"


def _seams(recipe: Recipe) -> str:
    if recipe.chat_template is None or "seam" not in recipe.chat_template:
        return ""
    return """
The original's own code tokenises the prompt in pieces, and onelogit does as it does. Servers tokenise it whole, which
gives other tokens where a query or a document ends in punctuation, and slightly other logits.
"""
