"""A recipe -> the files by which Sentence Transformers and vLLM read it: what `declared` reads, written."""

import json
from typing import Any

from onelogit.errors import RecipeError
from onelogit.recipes import Activation, Recipe
from onelogit.template import compile_prompt, takes_instruction

ACTIVATION_CLASSES: dict[Activation, str] = {
    "sigmoid": "torch.nn.modules.activation.Sigmoid",
    "identity": "torch.nn.modules.linear.Identity",
}


def served_template(recipe: Recipe) -> str | None:
    """The recipe's chat template, so that a request without an instruction gets the default one.

    vLLM passes an instruction as the variable `instruction`, and none where a request has none; Sentence Transformers
    sends a system message. A template that writes its default instruction by itself is left as it is.
    """
    template, default = recipe.chat_template, recipe.default_instruction
    if template is None or not default or not takes_instruction(template):
        return template
    values = {"query": "q", "document": "d", "instruction": default}
    expected = compile_prompt(template, True).text(values)  # type: ignore[arg-type]
    written = json.dumps(default, ensure_ascii=False)
    setting = f"{{%- if instruction is not defined -%}}{{%- set instruction = {written} -%}}{{%- endif +%}}"
    for candidate in (template, f"{setting}{template}"):
        try:
            if compile_prompt(candidate, False).text(values) == expected:  # type: ignore[arg-type]
                return candidate
        except RecipeError:
            continue
    return template


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
