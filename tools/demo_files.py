"""A model and a tokenizer -> the files of the demo folder, with its metadata. Independent of training."""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save
from tokenizers import Tokenizer
from transformers import Qwen3ForCausalLM

from demo_tokenizer import NOT_SPECIAL, SPECIAL, one_token_id
from onelogit import OnelogitError
from onelogit.io.atomic_write import atomic_folder

INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"

# The prompt of Qwen3-Reranker, cut where no token crosses: query and document start with the space before them.
HEAD = f"""<|im_start|>system
Judge whether the Document meets the requirements based on the Query and the Instruct provided. \
Note that the answer can only be "yes" or "no".<|im_end|>
<|im_start|>user
<Instruct>: {INSTRUCTION}
<Query>:"""
MIDDLE = "\n<Document>:"
TAIL = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"

# With three newlines at the end, of which jinja strips one.
CHAT_TEMPLATE = (
    '{%- set instruction = messages | selectattr("role", "eq", "system") | map(attribute="content") | first'
    f' | default("{INSTRUCTION}") -%}}\n'
    '{%- set query_text = messages | selectattr("role", "eq", "query") | map(attribute="content") | first -%}\n'
    '{%- set document_text = messages | selectattr("role", "eq", "document") | map(attribute="content") | first -%}\n'
    + HEAD.replace(INSTRUCTION, "{{ instruction }}")
    + " {{ query_text }}"
    + MIDDLE
    + " {{ document_text }}"
    + TAIL
    + "\n"
)


def write_folder(folder: Path, model: Qwen3ForCausalLM, tokenizer: Tokenizer) -> None:
    """Write weights (bfloat16), tokenizer and metadata to a folder; other files in it stay."""
    folder.mkdir(parents=True, exist_ok=True)
    config = model.config.to_diff_dict() | {"architectures": ["Qwen3ForCausalLM"], "dtype": "bfloat16"}
    _write_json(folder / "config.json", config)
    weights = {name: weight.to(torch.bfloat16).clone() for name, weight in model.state_dict().items()}
    weights.pop("lm_head.weight")  # tied
    (folder / "model.safetensors").write_bytes(save(weights, metadata={"format": "pt"}))
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    _write_json(folder / "tokenizer_config.json", _tokenizer_config(tokenizer))
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    for name, content in _metadata_files(tokenizer).items():
        _write_json(folder / name, content)


def replace_folder(output: Path, model: Qwen3ForCausalLM, tokenizer: Tokenizer) -> None:
    """As `write_folder`, but a half-written file is never visible."""
    with atomic_folder(output, OnelogitError) as folder:
        if output.exists():
            shutil.copytree(output, folder, dirs_exist_ok=True)
        write_folder(folder, model, tokenizer)


def _write_json(path: Path, content: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _tokenizer_config(tokenizer: Tokenizer) -> dict[str, object]:
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    added = {
        str(tokenizer.token_to_id(text)): {"content": text, **flags, "special": text in SPECIAL}
        for text in SPECIAL + NOT_SPECIAL
    }
    return {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": added,
        "additional_special_tokens": SPECIAL[1:],
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 4096,
        "pad_token": "<|endoftext|>",
        "padding_side": "left",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }


def _metadata_files(tokenizer: Tokenizer) -> dict[str, object]:
    """The files that tell Sentence Transformers that this causal model is a reranker."""
    output = {"method": "forward", "method_output_name": "logits"}
    return {
        "modules.json": [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"},
            {
                "idx": 1,
                "name": "1",
                "path": "1_LogitScore",
                "type": "sentence_transformers.cross_encoder.modules.logit_score.LogitScore",
            },
        ],
        "1_LogitScore/config.json": {
            "true_token_id": one_token_id(tokenizer, "yes"),
            "false_token_id": one_token_id(tokenizer, "no"),
            "module_input_name": "causal_logits",
        },
        "sentence_bert_config.json": {
            "transformer_task": "text-generation",
            "modality_config": {"text": output, "message": {**output, "format": "flat"}},
            "module_output_name": "causal_logits",
            "processing_kwargs": {"chat_template": {"add_generation_prompt": True}},
        },
        "config_sentence_transformers.json": {
            "activation_fn": "torch.nn.modules.activation.Sigmoid",
            "default_prompt_name": "query",
            "model_type": "CrossEncoder",
            "prompts": {"query": INSTRUCTION},
        },
    }
