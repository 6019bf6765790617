"""A recipe -> files that declare it to Sentence Transformers and vLLM; `checkpoints.metadata` reads them back."""

import json
from typing import Any

from onelogit.errors import RecipeError
from onelogit.prompts.layout import Field, fill
from onelogit.prompts.template import compile_prompt, takes_instruction
from onelogit.recipes.recipe import Activation, Recipe

ACTIVATION_CLASSES: dict[Activation, str] = {
    "sigmoid": "torch.nn.modules.activation.Sigmoid",
    "identity": "torch.nn.modules.linear.Identity",
}

_VARIABLE_TO_MESSAGE = (
    '{%- if instruction is defined and messages[0].role != "system" -%}'
    '{%- set messages = [{"role": "system", "content": instruction}] + messages -%}{%- endif -%}'
)


def exported_template(recipe: Recipe) -> str | None:
    """The recipe's chat template, extended if necessary to read the instruction of any request.

    vLLM passes an instruction as the variable `instruction`; Sentence Transformers sends a system message. A request
    without an instruction gets the recipe's default one.
    """
    template = recipe.chat_template
    if template is None or not takes_instruction(template):
        return template
    variable = '{%- set instruction = "i" -%}'
    candidates = (template, _VARIABLE_TO_MESSAGE + template)
    expected = _prompt(template, "i")
    reads_both = next((each for each in candidates if _prompt(variable + each) == expected), template)
    default = recipe.default_instruction
    if not default:
        return reads_both
    expected = _prompt(template, default)
    quoted = json.dumps(default, ensure_ascii=False)
    setting = f"{{%- if instruction is not defined -%}}{{%- set instruction = {quoted} -%}}{{%- endif +%}}"
    candidates = (reads_both, setting + reads_both)
    return next((each for each in candidates if _prompt(each) == expected), reads_both)


def _prompt(template: str, instruction: str | None = None) -> str | None:
    """The prompt of a sample pair, with the instruction as a system message; None if the template is not valid."""
    texts: dict[Field, str] = {"query": "q", "document": "d", "instruction": instruction or ""}
    try:
        return fill(compile_prompt(template, instruction is not None), texts)
    except RecipeError:
        return None


def sentence_transformers_files(recipe: Recipe, max_tokens: int) -> dict[str, Any]:
    """The content of each JSON file that sentence_transformers 6.2 saves for a single Transformer module."""
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
