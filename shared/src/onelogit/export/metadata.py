"""A recipe -> the files by which Sentence Transformers and vLLM read it: what `declared` reads, written."""

import json
from collections.abc import Sequence
from typing import Any

from onelogit.errors import RecipeError
from onelogit.prompts.template import compile_prompt, takes_instruction
from onelogit.recipes.recipe import Activation, Recipe

ACTIVATION_CLASSES: dict[Activation, str] = {
    "sigmoid": "torch.nn.modules.activation.Sigmoid",
    "identity": "torch.nn.modules.linear.Identity",
}


def exported_template(recipe: Recipe) -> str | None:
    """The recipe's chat template, so that a request's instruction is read, and one without gets the default one.

    vLLM passes an instruction as the variable `instruction`, and none where a request has none; Sentence Transformers
    sends a system message. A template that does both by itself is left as it is.
    """
    template = recipe.chat_template
    if template is None or not takes_instruction(template):
        return template
    told = _first_that_is_told([template, _AS_A_MESSAGE + template], template)
    default = recipe.default_instruction
    return _first_with_default([told, _setting(default) + told], template, default) if default else told


_AS_A_MESSAGE = (
    '{%- if instruction is defined and messages[0].role != "system" -%}'
    '{%- set messages = [{"role": "system", "content": instruction}] + messages -%}{%- endif -%}'
)


def _setting(default: str) -> str:
    written = json.dumps(default, ensure_ascii=False)
    return f"{{%- if instruction is not defined -%}}{{%- set instruction = {written} -%}}{{%- endif +%}}"


def _first_that_is_told(candidates: Sequence[str], template: str) -> str:
    """The first that reads the variable `instruction` as the template reads a system message; or else the template."""
    told = '{%- set instruction = "i" -%}'
    return next((each for each in candidates if _writes(told + each, _written(template, "i"))), template)


def _first_with_default(candidates: Sequence[str], template: str, default: str) -> str:
    """The first that writes the default instruction where there is none; or else the first."""
    return next((each for each in candidates if _writes(each, _written(template, default))), candidates[0])


def _written(template: str, instruction: str) -> str:
    return compile_prompt(template, True).text({"query": "q", "document": "d", "instruction": instruction})


def _writes(template: str, expected: str) -> bool:
    try:
        return compile_prompt(template, False).text({"query": "q", "document": "d"}) == expected
    except RecipeError:
        return False


def sentence_transformers_files(recipe: Recipe, max_tokens: int) -> dict[str, Any]:
    """The declaration of a single Transformer module, as sentence_transformers 6.2 saves it."""
    forward = {"method": "forward", "method_output_name": "logits"}
    is_prompt = recipe.chat_template is not None
    prompts = {} if not recipe.default_instruction else {"query": recipe.default_instruction}
    return {
        "modules.json": [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"}
        ],
        "sentence_bert_config.json": {
            "transformer_task": "sequence-classification",
            "modality_config": {"text": forward, **({"message": {**forward, "format": "flat"}} if is_prompt else {})},
            "module_output_name": "scores",
            "max_seq_length": max_tokens,
        },
        "config_sentence_transformers.json": {
            "model_type": "CrossEncoder",
            "activation_fn": ACTIVATION_CLASSES[recipe.activation],
            "prompts": prompts,
            "default_prompt_name": "query" if prompts else None,
            **({"keep_in_fp32_modules": ["0.model.score"]} if is_prompt else {}),
        },
    }
