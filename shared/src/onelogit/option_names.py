"""An unknown option -> an error that names the option of onelogit that is meant, and where it belongs.

Loads no torch.
"""

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from types import MappingProxyType

from onelogit.errors import InputError

_MEANT = {
    "activation": (
        *("activation_fn", "activation_fct", "activation_function", "default_activation_function", "normalize"),
        *("raw_scores", "scale_score", "apply_softmax", "apply_sigmoid"),
    ),
    "api_key": (
        *("cohere_api_key", "jina_api_key", "voyage_api_key", "nvidia_api_key", "openai_api_key", "dashscope_api_key"),
        *("mixedbread_api_key", "zeroentropy_api_key", "api_token", "bearer_token"),
    ),
    "attempts": ("max_retries", "retries", "num_retries", "max_attempts", "retry_on_failure"),
    "attn_implementation": ("attention_implementation", "attn_impl", "use_flash_attn", "use_flash_attention_2"),
    "batch_tokens": (
        *("batch_size", "max_batch_size", "max_batch_tokens", "mini_batch_size", "max_num_batched_tokens"),
        *("choice_batch_size", "eval_batch_size"),
    ),
    "cache_dir": ("cache_folder", "cache_path", "download_dir"),
    "compile": ("torch_compile", "compile_model"),
    "deduplicate": ("dedup", "remove_duplicates", "unique"),
    "device": ("devices", "device_name", "target_device", "target_devices", "gpu", "gpu_id"),
    "dtype": ("torch_dtype", "precision", "use_fp16", "use_bf16", "fp16", "bf16", "half"),
    "headers": ("default_headers", "extra_headers", "user_agent"),
    "instruction": (
        *("prompt", "task", "task_instruction", "system_prompt", "query_instruction", "prompts", "prompt_name"),
        *("default_prompt_name", "query_instruction_for_rerank", "text_instruction", "instruct"),
    ),
    "local_files_only": ("offline", "local_only"),
    "long_documents": ("truncate", "truncation", "truncate_text", "max_chunks_per_doc", "chunk_documents"),
    "max_tokens": (
        *("max_length", "model_max_length", "max_seq_length", "max_seq_len", "max_model_len", "max_len"),
        *("max_tokens_per_doc", "truncate_prompt_tokens", "query_max_length", "passage_max_length", "query_max_len"),
        *("passage_max_len", "max_query_length", "max_passage_length", "context_size"),
    ),
    "max_waiting": ("max_queue_size", "max_queue", "queue_size", "max_pending", "max_waiting_requests"),
    "metadata_fields": ("rank_fields", "meta_fields", "metadata_keys", "meta_fields_to_embed"),
    "metadata_separator": ("embedding_separator", "separator"),
    "model": (
        *("model_name", "model_name_or_path", "model_id", "model_path", "model_dir", "repo_id", "checkpoint"),
        *("pretrained_model_name_or_path", "reranker_model", "rerank_model", "llm"),
    ),
    "on_error": ("raise_on_failure", "raise_on_error", "fail_silently"),
    "progress": ("show_progress", "show_progress_bar", "progress_bar"),
    "quantization": ("quantize", "quantise", "quantisation", "quantized", "int8", "use_int8"),
    "quantization_config": ("load_in_4bit", "load_in_8bit", "bnb_config"),
    "recipe": (
        "chat_template",
        "prompt_template",
        "model_type",
        "model_class",
        "read_out",
        "true_token",
        "false_token",
    ),
    "relevant_label": ("positive_label", "pos_label", "positive_class", "label"),
    "score_threshold": (
        *("threshold", "min_score", "similarity_threshold", "similarity_cutoff", "relevance_threshold", "score_cutoff"),
    ),
    "served_name": ("served_model_name",),
    "timeout_s": ("timeout", "request_timeout", "timeout_seconds"),
    "token": ("hf_token", "use_auth_token", "huggingface_token", "huggingfacehub_api_token", "auth_token"),
    "top_n": ("top_k", "k", "num_results", "similarity_top_k", "limit", "max_results", "rerank_top_n", "rerank_top_k"),
    "url": ("base_url", "api_base", "endpoint", "endpoint_url", "api_url", "server_url", "api_base_url", "host"),
}
_MEANINGS = {other: name for name, others in _MEANT.items() for other in others}
_FRAMEWORK_NAMES = {
    "top_n": ("top_k",),
    "progress": ("show_progress", "progress_bar"),
    "metadata_fields": ("meta_fields_to_embed", "metadata_mode"),
    "metadata_separator": ("embedding_separator",),
}
_CONTAINERS = (
    *("model_kwargs", "automodel_args", "model_args", "tokenizer_kwargs", "tokenizer_args", "config_kwargs"),
    *("config_args", "processor_kwargs", "encode_kwargs", "cross_encoder_kwargs", "model_init_kwargs", "init_kwargs"),
    *("reranker_kwargs", "load_kwargs", "loader_kwargs", "kwargs"),
)
_OWN_PROMPT = "the model's own prompt is written"
_FILES = "the model's files say how it is built"
_THREADS = "calls from any number of threads are computed together"
_NUMBERS = "scores have one form: numbers of Python, or an array of NumPy from predict"
_NEEDLESS = {
    **dict.fromkeys(("query_prefix", "query_suffix", "document_prefix", "document_suffix"), _OWN_PROMPT),
    **dict.fromkeys(("query_instruction_format", "passage_instruction_format", "query_template"), _OWN_PROMPT),
    **dict.fromkeys(("passage_instruction_for_rerank", "document_template"), _OWN_PROMPT),
    **dict.fromkeys(("modules", "num_labels", "tokenizer", "tokenizer_name", "use_fast_tokenizer"), _FILES),
    **dict.fromkeys(("pool", "num_workers", "workers", "chunk_size", "parallel", "multi_process"), _THREADS),
    **dict.fromkeys(("convert_to_numpy", "convert_to_tensor"), _NUMBERS),
    **dict.fromkeys(("cutoff_layers", "compress_layers", "compress_ratio"), "the last layer is always read"),
    **dict.fromkeys(("http_client_kwargs", "client"), "timeout_s, attempts and headers are options of their own"),
    "backend": "local models always run in PyTorch; for a server, pass its url",
    "calibration_factor": "scores are on the scale of the model's card; multiply the logit, which is returned as well",
    "return_documents": "documents are always returned",
    "truncation_direction": "it is always the end of a document that is cut",
    "verbose": "messages go to the loggers of Python",
}
# What becomes of the score before reranking, by a name that only one framework's adapter has.
_KEPT_SCORE = {
    "metadata_mode": "the score before reranking is always kept, as retrieval_score",
    "metadata_fields": "the metadata of documents, with any score in them, are always kept",
    "meta_fields_to_embed": "the new score takes the place of the old one, which you can copy into meta before",
}
_NOTES = {
    "batch_size": ", and counts tokens; by default it follows the free memory",
    **dict.fromkeys(
        ("max_tokens_per_doc", "query_max_length", "passage_max_length", "max_query_length", "max_passage_length"),
        ", and limits the whole prompt",
    ),
    "model_type": ", such as recipe='qwen3-reranker', and is needed only if the model's files do not say it",
    "model_class": ", such as recipe='qwen3-reranker', and is needed only if the model's files do not say it",
    "llm": ", the name of a reranker",
    "load_in_8bit": ", or quantization='int8' on a CPU",
}
_VALUES = {
    **dict.fromkeys(("use_fp16", "fp16", "half"), "='float16'"),
    **dict.fromkeys(("use_bf16", "bf16"), "='bfloat16'"),
    **dict.fromkeys(("use_flash_attn", "use_flash_attention_2"), "='flash_attention_2'"),
    **dict.fromkeys(("truncate", "truncation", "truncate_text"), "='cut'"),
    **dict.fromkeys(("max_chunks_per_doc", "chunk_documents"), "='chunk_max'"),
    **dict.fromkeys(("normalize", "scale_score", "apply_softmax", "apply_sigmoid"), "='sigmoid' or 'identity'"),
    **dict.fromkeys(("raise_on_failure", "raise_on_error", "fail_silently"), "='raise' or 'keep_order'"),
    **dict.fromkeys(("chat_template", "prompt_template"), "=Recipe(chat_template=..., ...)"),
    **dict.fromkeys(("read_out", "true_token", "false_token"), "=Recipe(read_out=ReadOut(...), ...)"),
    **dict.fromkeys(("quantize", "quantise", "quantisation", "quantized", "int8", "use_int8"), "='int8'"),
    "load_in_4bit": "={'load_in_4bit': True}",
    "load_in_8bit": "={'load_in_8bit': True}",
    "raw_scores": "='identity'",
}
_NOWHERE: Mapping[str, Collection[str]] = MappingProxyType({})


def unknown_option(
    name: object, known: Collection[str], elsewhere: Mapping[str, Collection[str]] = _NOWHERE
) -> InputError:
    """The error for an unknown option.

    Args:
        name: of the option.
        known: the options that would be accepted in its place.
        elsewhere: what to say of options that are accepted in another place, with {name} for the option's name, and
            the names of these options.
    """
    given = str(name)
    key = _usual_spelling(given, {each for names in elsewhere.values() for each in names})
    meant = _known_name(_MEANINGS.get(key, key), known)
    start = f"unknown option {given!r}"
    renamed = f"{given} is {meant}{_VALUES.get(key, '')} here{_NOTES.get(key, '')}"
    if key in _CONTAINERS:
        other = "attn_implementation=..." if "attn_implementation" in known else "options={'attn_implementation': ...}"
        return InputError(f"{start}: pass what is in it by name, such as dtype=... or {other}")
    if (reason := _why_needless(key, known)) is not None:
        return InputError(f"{start}: leave it out, because {reason}")
    if meant in known and meant != given:
        return InputError(f"{start}: {renamed}")
    for say, names in elsewhere.items():
        if meant in names:
            said = say.format(name=meant)
            return InputError(f"{start}: {said if meant == given else f'{renamed}, and {said}'}")
    close = "".join(f" (did you mean {each!r}?)" for each in get_close_matches(given, known, n=1, cutoff=0.75))
    return InputError(f"{start}{close}; the options are {', '.join(known)}")


def _why_needless(key: str, known: Collection[str]) -> str | None:
    if key != "keep_retrieval_score":
        return _NEEDLESS.get(key)
    return next(
        (reason for name, reason in _KEPT_SCORE.items() if name in known), "texts have no score before they are ranked"
    )


def _usual_spelling(name: str, elsewhere: Collection[str]) -> str:
    """The name of another library, or of an option elsewhere, without regard to case and dashes: top_k for topK."""
    plain = name.lower().replace("-", "").replace("_", "")
    others = (*elsewhere, *_MEANINGS, *_CONTAINERS, *_NEEDLESS)
    return next((each for each in others if each.replace("_", "") == plain), name)


def meant_option(name: str, known: Collection[str]) -> str | None:
    """The known option that another library calls by this name; None if there is none."""
    meant = _known_name(_MEANINGS.get(name.lower(), name), known)
    return meant if meant in known and meant != name else None


def _known_name(meant: str, known: Collection[str]) -> str:
    """The name of the meant option where it has another name, as top_n has in Haystack."""
    names = (meant, *_FRAMEWORK_NAMES.get(meant, ()))
    return next((name for name in names if name in known), meant)
