"""Decoder language models as one-logit rerankers.

    from onelogit import Reranker

    reranker = Reranker.load("Qwen/Qwen3-Reranker-0.6B")
    best_first = reranker.rank("What is the capital of China?", ["Paris is in France.", "Beijing is China's capital."])

Public names are imported on first use: importing the package loads no torch. Names for authors of framework adapters
are in `onelogit.adapters`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from onelogit.processes import paused_collection

if TYPE_CHECKING:
    from onelogit.contents import ContentDocument
    from onelogit.errors import (
        CheckpointError,
        DeviceMemoryError,
        InputError,
        LogitError,
        OnelogitError,
        OverloadError,
        RecipeError,
        ServerError,
        UnsupportedModelError,
    )
    from onelogit.local.reranker import Reranker
    from onelogit.model_spec import ModelSpec
    from onelogit.options import DEMO_MODEL, LoadOptions, OpenOptions, Protocol, RemoteOptions
    from onelogit.ranking import Ranked, RankedDocument
    from onelogit.recipes.families import FAMILIES
    from onelogit.recipes.recipe import ReadOut, Recipe, recipe_fields, recipe_from
    from onelogit.registry import open_reranker
    from onelogit.remote.reranker import RemoteReranker

__version__ = "0.1.0"

_MODULES = {
    "contents": ("ContentDocument",),
    "errors": (
        "CheckpointError",
        "DeviceMemoryError",
        "InputError",
        "LogitError",
        "OnelogitError",
        "OverloadError",
        "RecipeError",
        "ServerError",
        "UnsupportedModelError",
    ),
    "local.reranker": ("Reranker",),
    "model_spec": ("ModelSpec",),
    "options": ("DEMO_MODEL", "LoadOptions", "OpenOptions", "Protocol", "RemoteOptions"),
    "ranking": ("Ranked", "RankedDocument"),
    "recipes.families": ("FAMILIES",),
    "recipes.recipe": ("ReadOut", "Recipe", "recipe_fields", "recipe_from"),
    "registry": ("open_reranker",),
    "remote.reranker": ("RemoteReranker",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "DEMO_MODEL",
    "FAMILIES",
    "CheckpointError",
    "ContentDocument",
    "DeviceMemoryError",
    "InputError",
    "LoadOptions",
    "LogitError",
    "ModelSpec",
    "OnelogitError",
    "OpenOptions",
    "OverloadError",
    "Protocol",
    "Ranked",
    "RankedDocument",
    "ReadOut",
    "Recipe",
    "RecipeError",
    "RemoteOptions",
    "RemoteReranker",
    "Reranker",
    "ServerError",
    "UnsupportedModelError",
    "open_reranker",
    "recipe_fields",
    "recipe_from",
]


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = f"{__name__}.{_MODULE_OF[name]}"
    try:
        with paused_collection():
            value = getattr(import_module(module), name)
    except AttributeError as error:  # `from onelogit import name` would hide it: Python takes it for a missing name
        raise ImportError(f"{module} cannot be imported: {error}", name=module) from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
