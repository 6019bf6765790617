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
        "raw_scores",
    ),
    "api_key": ("cohere_api_key", "jina_api_key", "voyage_api_key", "nvidia_api_key", "openai_api_key"),
    "attempts": ("max_retries", "retries", "num_retries"),
    "attn_implementation": ("attention_implementation", "attn_impl"),
    "batch_tokens": ("batch_size", "max_batch_size", "max_batch_tokens", "mini_batch_size"),
    "cache_dir": ("cache_folder", "cache_path", "download_dir"),
    "dtype": ("torch_dtype", "precision", "use_fp16", "use_bf16"),
    "headers": ("default_headers", "extra_headers"),
    "instruction": ("prompt", "task", "task_instruction", "system_prompt", "query_instruction"),
    "max_tokens": (
        *("max_length", "model_max_length", "max_seq_length", "max_seq_len", "max_model_len", "max_len"),
        *("max_tokens_per_doc", "truncate_prompt_tokens"),
    ),
    "metadata_fields": ("rank_fields", "meta_fields", "metadata_keys"),
    "model": (
        *("model_name", "model_name_or_path", "model_id", "model_path", "model_dir", "repo_id"),
        "pretrained_model_name_or_path",
    ),
    "progress": ("show_progress", "show_progress_bar", "progress_bar"),
    "quantization_config": ("load_in_4bit", "load_in_8bit", "quantization"),
    "relevant_label": ("positive_label", "pos_label", "positive_class", "label"),
    "score_threshold": ("threshold", "min_score", "similarity_threshold", "similarity_cutoff"),
    "timeout_s": ("timeout", "request_timeout"),
    "token": ("hf_token", "use_auth_token", "huggingface_token", "huggingfacehub_api_token", "auth_token"),
    "top_n": ("top_k", "k", "num_results"),
    "url": ("base_url", "api_base", "endpoint", "endpoint_url", "api_url", "server_url"),
}
_MEANINGS = {other: name for name, others in _MEANT.items() for other in others}
_FRAMEWORK_NAMES = {
    "top_n": ("top_k",),
    "progress": ("show_progress", "progress_bar"),
    "metadata_fields": ("meta_fields_to_embed",),
    "metadata_separator": ("embedding_separator",),
}
_CONTAINERS = (
    *("model_kwargs", "automodel_args", "model_args", "tokenizer_kwargs", "tokenizer_args", "config_kwargs"),
    *("config_args", "processor_kwargs", "encode_kwargs"),
)
_NEEDLESS = {
    **dict.fromkeys(
        ("query_prefix", "query_suffix", "document_prefix", "document_suffix"), "the model's own prompt is written"
    ),
    "keep_retrieval_score": "the score before reranking is always kept, as retrieval_score",
}
_NOTES = {
    "batch_size": ", and counts tokens; by default it follows the free memory",
    "max_tokens_per_doc": ", and limits the whole prompt",
}
_VALUES = {
    "use_fp16": "='float16'",
    "use_bf16": "='bfloat16'",
    "load_in_4bit": "={'load_in_4bit': True}",
    "load_in_8bit": "={'load_in_8bit': True}",
    "normalize": "='sigmoid' or 'identity'",
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
    key = given.lower()
    meant = _known_name(_MEANINGS.get(key, given), known)
    start = f"unknown option {given!r}"
    renamed = f"{given} is {meant}{_VALUES.get(key, '')} here{_NOTES.get(key, '')}"
    if key in _NEEDLESS:
        return InputError(f"{start}: leave it out, because {_NEEDLESS[key]}")
    if key in _CONTAINERS:
        return InputError(f"{start}: pass what is in it by name, such as dtype=... or attn_implementation=...")
    if meant in known and meant != given:
        return InputError(f"{start}: {renamed}")
    for say, names in elsewhere.items():
        if meant in names:
            said = say.format(name=meant)
            return InputError(f"{start}: {said if meant == given else f'{renamed}, and {said}'}")
    close = "".join(f" (did you mean {each!r}?)" for each in get_close_matches(given, known, n=1, cutoff=0.75))
    return InputError(f"{start}{close}; the options are {', '.join(known)}")


def meant_option(name: str, known: Collection[str]) -> str | None:
    """The known option that another library calls by this name; None if there is none."""
    meant = _known_name(_MEANINGS.get(name.lower(), name), known)
    return meant if meant in known and meant != name else None


def _known_name(meant: str, known: Collection[str]) -> str:
    """The name of the meant option where it has another name, as top_n has in Haystack."""
    names = (meant, *_FRAMEWORK_NAMES.get(meant, ()))
    return next((name for name in names if name in known), meant)
