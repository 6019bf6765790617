"""A recipe -> files that declare it to Sentence Transformers and vLLM; `checkpoints.metadata` reads them back."""

import json
from collections.abc import Mapping
from typing import Any

from onelogit.checkpoints.module_chain import Pooling
from onelogit.errors import RecipeError
from onelogit.prompts.layout import Field, fill
from onelogit.prompts.template import compile_prompt, takes_instruction
from onelogit.recipes.recipe import Activation, Recipe

ACTIVATION_CLASSES: dict[Activation, str] = {
    "sigmoid": "torch.nn.modules.activation.Sigmoid",
    "identity": "torch.nn.modules.linear.Identity",
}

_BOTH_WAYS_IN_VLLM = ("llama", "mistral", "qwen2", "qwen3")

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


def module_chain_files(files: dict[str, Any], pooling: Pooling, size: int) -> dict[str, Any]:
    """The files of a single Transformer module, changed into those of a chain: Transformer, Pooling, Dense.

    Args:
        files: from `sentence_transformers_files`.
        pooling: of the last hidden states.
        size: of a hidden state.
    """
    forward = {"method": "forward", "method_output_name": "last_hidden_state"}
    transformer = files["sentence_bert_config.json"]
    forms = {form: {**settings, **forward} for form, settings in transformer["modality_config"].items()}
    types = {"1_Pooling": "sentence_transformer.modules.pooling.Pooling", "2_Dense": "base.modules.dense.Dense"}
    return {
        "modules.json": [
            *files["modules.json"],
            *(
                {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.{name}"}
                for index, (path, name) in enumerate(types.items(), start=1)
            ),
        ],
        "sentence_bert_config.json": {
            **transformer,
            "transformer_task": "feature-extraction",
            "modality_config": forms,
            "module_output_name": "token_embeddings",
        },
        "config_sentence_transformers.json": {
            **files["config_sentence_transformers.json"],
            "keep_in_fp32_modules": ["2.linear"],
        },
        "1_Pooling/config.json": {"embedding_dimension": size, "pooling_mode": pooling},
        "2_Dense/config.json": {
            "in_features": size,
            "out_features": 1,
            "bias": False,
            "activation_function": ACTIVATION_CLASSES["identity"],
            "module_input_name": "sentence_embedding",
            "module_output_name": "scores",
        },
    }


def is_served_by_vllm(config: Mapping[str, Any]) -> bool:
    """Whether vLLM attends to the same tokens as transformers, by the fields of an exported config.json.

    Source: vllm 0.32, model_executor/models: only these architectures read `is_causal`, all of them in each layer.
    Others attend to earlier tokens only (Gemma), or read other fields (Gemma 3).
    """
    both_ways = config.get("is_causal") is False or bool(config.get("use_bidirectional_attention"))
    return not both_ways or (config.get("model_type") in _BOTH_WAYS_IN_VLLM and config.get("is_causal") is False)
