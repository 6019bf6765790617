"""A checkpoint's folder -> its tokenizer, read without transformers and so without torch: for clients of servers."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Tokenizer

from onelogit.errors import CheckpointError


class FileTokenizer(NamedTuple):
    """A tokenizer as far as prompts need it: see `encode.HasBackend`."""

    backend_tokenizer: Tokenizer
    bos_token: str | None
    model_input_names: tuple[str, ...] = ()


def read_tokenizer(folder: Path, texts: Mapping[str, str]) -> FileTokenizer:
    """The tokenizer of a folder.

    Args:
        folder: holds tokenizer.json.
        texts: the folder's small files.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise CheckpointError(f"{folder} has no tokenizer.json")
    try:
        backend = Tokenizer.from_file(str(file))
        bos_token = _text_of(json.loads(texts.get("tokenizer_config.json", "{}")).get("bos_token"))
    except Exception as error:  # tokenizers raises nothing narrower for a damaged file
        raise CheckpointError(f"the tokenizer in {folder} cannot be read: {error}") from error
    return FileTokenizer(backend, bos_token)


def _text_of(token: str | dict[str, Any] | None) -> str | None:
    return token["content"] if isinstance(token, dict) else token
