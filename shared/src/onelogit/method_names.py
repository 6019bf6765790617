"""A name that rerankers lack -> an error that names the method that is meant, in the style of `option_names`."""

from abc import ABCMeta
from typing import TYPE_CHECKING

_MEANT = {
    "load(model)": ("from_pretrained", "from_hub", "from_model", "from_path", "load_model", "from_finetuned"),
    "rank(query, documents)": ("rerank", "rerank_documents", "rank_documents", "sort", "search", "run", "invoke"),
    "await arank(query, documents)": ("arerank", "rank_async", "rerank_async", "run_async", "ainvoke"),
    "predict([(query, document), ...])": (
        *("score", "scores", "compute_score", "compute_scores", "predict_proba", "predict_scores", "similarity"),
        *("score_pairs", "rank_pairs", "classify"),
    ),
    "logits(query, documents)": ("forward", "decision_function", "get_logits", "compute_logits", "predict_logits"),
    "save(path)": ("save_pretrained", "save_model", "export", "save_to_disk"),
    "warm_up()": ("warmup",),
    "prompt(query, document)": ("apply_chat_template", "format_prompt", "build_prompt", "tokenize"),
    "load(model, device=..., dtype=...)": ("to", "cuda", "cpu", "half", "bfloat16", "float", "to_device"),
    "classifier": ("model", "network", "automodel", "backbone"),
}
_MEANINGS = {other: name for name, others in _MEANT.items() for other in others}


def unknown_name(kind: type, name: str, subject: str) -> AttributeError:
    """The error for a name that a reranker, or its class, does not have.

    Args:
        kind: the class of the reranker.
        name: not found.
        subject: the owner of the name, as in Python's own messages: "'Reranker' object".
    """
    meant = _MEANINGS.get(name, "")
    method = meant.removeprefix("await ").partition("(")[0]
    use = ""
    if method and method in dir(kind):
        use = meant.replace(method, f"{kind.__name__}.{method}", 1)
    elif method == "load":  # of a server's reranker
        use = f"{kind.__name__}(url, model)"
    return AttributeError(f"{subject} has no attribute {name!r}{f'; use {use}' if use else ''}", name=name)


class NamedMethods(ABCMeta):
    """A metaclass: the error for a missing name says which method is meant. An ABCMeta, to mix with ABCs."""

    if not TYPE_CHECKING:  # type checkers would accept any name

        def __getattr__(cls, name: str) -> object:
            raise unknown_name(cls, name, f"type object {cls.__name__!r}")
