"""Decoder language models as one-logit rerankers.

    from onelogit import Reranker

    reranker = Reranker.load("Qwen/Qwen3-Reranker-0.6B")
    best_first = reranker.rank("What is the capital of China?", ["Paris is in France.", "Beijing is China's capital."])

The public names are loaded when they are first used: importing the package loads no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onelogit.adapters.handle import RerankerHandle, fields_of
    from onelogit.adapters.request import Kept, OnError, RankOptions, RankRequest, rank_options, text_with_metadata
    from onelogit.errors import (
        CheckpointError,
        InputError,
        LogitError,
        OnelogitError,
        RecipeError,
        ServerError,
        UnsupportedModelError,
    )
    from onelogit.local.reranker import Reranker
    from onelogit.options import (
        DEMO_MODEL,
        LoadOptions,
        OpenOptions,
        Protocol,
        RemoteOptions,
        adapter_options,
        check_options,
        plain_options,
    )
    from onelogit.ranking import Ranked
    from onelogit.recipes.families import FAMILIES
    from onelogit.recipes.recipe import ReadOut, Recipe, recipe_fields, recipe_from
    from onelogit.registry import open_reranker
    from onelogit.remote.reranker import RemoteReranker
    from onelogit.validation import check_top_n

__version__ = "0.1.0"

_HOMES = {
    "DEMO_MODEL": "options",
    "CheckpointError": "errors",
    "InputError": "errors",
    "LogitError": "errors",
    "OnelogitError": "errors",
    "RecipeError": "errors",
    "ServerError": "errors",
    "UnsupportedModelError": "errors",
    "Kept": "adapters.request",
    "OnError": "adapters.request",
    "RankOptions": "adapters.request",
    "RankRequest": "adapters.request",
    "RerankerHandle": "adapters.handle",
    "fields_of": "adapters.handle",
    "rank_options": "adapters.request",
    "text_with_metadata": "adapters.request",
    "open_reranker": "registry",
    "LoadOptions": "options",
    "OpenOptions": "options",
    "Protocol": "options",
    "RemoteOptions": "options",
    "RemoteReranker": "remote.reranker",
    "check_options": "options",
    "adapter_options": "options",
    "plain_options": "options",
    "FAMILIES": "recipes.families",
    "ReadOut": "recipes.recipe",
    "Recipe": "recipes.recipe",
    "recipe_fields": "recipes.recipe",
    "recipe_from": "recipes.recipe",
    "Reranker": "local.reranker",
    "Ranked": "ranking",
    "check_top_n": "validation",
}

__all__ = [
    "DEMO_MODEL",
    "FAMILIES",
    "CheckpointError",
    "InputError",
    "Kept",
    "LoadOptions",
    "LogitError",
    "OnError",
    "OnelogitError",
    "OpenOptions",
    "Protocol",
    "RankOptions",
    "RankRequest",
    "Ranked",
    "ReadOut",
    "Recipe",
    "RecipeError",
    "RemoteOptions",
    "RemoteReranker",
    "Reranker",
    "RerankerHandle",
    "ServerError",
    "UnsupportedModelError",
    "adapter_options",
    "check_options",
    "check_top_n",
    "fields_of",
    "open_reranker",
    "plain_options",
    "rank_options",
    "recipe_fields",
    "recipe_from",
    "text_with_metadata",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
