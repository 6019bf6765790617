"""A checkpoint -> a GGUF file with a rerank head, and llama.cpp as a target that reads it.

Only shapes of Qwen3. The file has no tokenizer: llama.cpp gets the same token ids as all targets.
"""

import ctypes
import math
import os
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from targets import Loaded
from transformers import AutoConfig, AutoTokenizer, Qwen3Config
from workload import prompt_rows

from checkpoints import RandomCheckpoint
from onelogit import OnelogitError

CONTEXT_TOKENS = 4096
BATCH_TOKENS = 2048
_HEAD = "cls.output.weight"


def write_gguf(checkpoint: RandomCheckpoint, kind: str) -> Path:
    """Write the model as llama.cpp's converter writes Qwen3-Reranker, unless the file exists.

    Matrices have the type `kind`, norms and the head are in float32. The head has the rows of both answers, because
    llama.cpp computes the probabilities of the answers of this architecture.

    Args:
        checkpoint: a language model of the architecture Qwen3, whose read-out has two answers.
        kind: "BF16" or "Q8_0".

    Source: https://github.com/ggml-org/llama.cpp, conversion/qwen.py and src/models/qwen3.cpp.
    """
    import gguf  # noqa: PLC0415  optional

    path = checkpoint.folder.with_name(f"{checkpoint.folder.name}-{kind}.gguf")
    if path.exists():
        return path
    config = AutoConfig.from_pretrained(checkpoint.folder)
    unfinished = path.with_suffix(".part")
    writer = gguf.GGUFWriter(unfinished, gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH.QWEN3])
    _add_metadata(writer, config)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN3, config.num_hidden_layers)
    matrix_type = gguf.GGMLQuantizationType[kind]
    for name, tensor in _tensors(checkpoint):
        is_matrix = tensor.dim() > 1 and name != _HEAD
        kept = matrix_type if is_matrix else gguf.GGMLQuantizationType.F32
        own = name if name == _HEAD else names.get_name(name, try_suffixes=(".weight",))
        writer.add_tensor(own, gguf.quants.quantize(tensor.float().numpy(), kept), raw_dtype=kept)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return unfinished.rename(path)


def _add_metadata(writer: Any, config: Qwen3Config) -> None:
    import gguf  # noqa: PLC0415  optional

    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_pooling_type(gguf.PoolingType.RANK)
    writer.add_classifier_output_labels(["yes", "no"])
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("no_vocab")


def _tensors(checkpoint: RandomCheckpoint) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of a language model with tied embeddings, and the head's rows: true answer, false answer."""
    read_out = checkpoint.recipe.read_out
    for file in sorted(checkpoint.folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118  not a dict
                tensor = tensors.get_tensor(name)
                if name == "model.embed_tokens.weight":
                    yield _HEAD, tensor[[read_out.true, read_out.false]]
                yield name, tensor


def load_llama_cpp(checkpoint: RandomCheckpoint, kind: str) -> Loaded:
    """llama.cpp with all cores, as `llama-server --reranking` uses it, but without HTTP and its tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder)
    model = _LlamaCpp(write_gguf(checkpoint, kind))

    def score(query: str, documents: Sequence[str]) -> list[float]:
        return model.logits(prompt_rows(tokenizer, checkpoint.recipe, query, documents))

    return Loaded(score, None, model.allowed)


class _LlamaCpp:
    """A model and its context. Not thread-safe."""

    def __init__(self, path: Path) -> None:
        import llama_cpp  # noqa: PLC0415  optional

        self._library, self._silent = llama_cpp, llama_cpp.llama_log_callback(lambda *_: None)
        llama_cpp.llama_log_set(self._silent, ctypes.c_void_p(0))
        self._model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
        if self._model is None:
            raise OnelogitError(f"llama.cpp cannot load {path}")
        settings = {
            "n_ctx": CONTEXT_TOKENS,
            "n_batch": BATCH_TOKENS,
            "n_ubatch": BATCH_TOKENS,
            "n_seq_max": 1,
            "n_threads": os.cpu_count(),
            "n_threads_batch": os.cpu_count(),
            "flash_attn_type": llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED,
        }
        parameters = llama_cpp.llama_context_default_params()
        parameters.embeddings, parameters.pooling_type = True, llama_cpp.LLAMA_POOLING_TYPE_RANK
        for name, value in settings.items():
            setattr(parameters, name, value)
        self._context = llama_cpp.llama_init_from_model(self._model, parameters)
        if self._context is None:
            raise OnelogitError(f"llama.cpp cannot create a context of {settings}")
        self._batch = llama_cpp.llama_batch_init(BATCH_TOKENS, 0, 1)
        self.allowed = {
            **settings,
            "prompts at a time": 1,
            "version": f"llama-cpp-python {version('llama-cpp-python')}",
            "system": llama_cpp.llama_print_system_info().decode(),
        }

    def logits(self, rows: Sequence[Sequence[int]]) -> list[float]:
        """The logit of each row: the logarithm of the ratio of both answers' probabilities."""
        return [math.log(true) - math.log(false) for true, false in map(self._probabilities, rows)]

    def _probabilities(self, row: Sequence[int]) -> tuple[float, float]:
        library, batch = self._library, self._batch
        library.llama_memory_clear(library.llama_get_memory(self._context), True)
        batch.n_tokens = len(row)
        for index, id in enumerate(row):
            batch.token[index], batch.pos[index] = id, index
            batch.n_seq_id[index], batch.seq_id[index][0], batch.logits[index] = 1, 0, True
        if code := library.llama_decode(self._context, batch):
            raise OnelogitError(f"llama.cpp cannot compute {len(row)} tokens: llama_decode returned {code}")
        true, false = library.llama_get_embeddings_seq(self._context, 0)[:2]
        return true, false
