"""A checkpoint's files, which strangers wrote -> an error if they lead out of its folder, or ask for absurd sizes.

Nothing is allocated for what they ask before it is checked here. No torch.
"""

import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from onelogit.checkpoints.metadata import SmallFiles, parse_json
from onelogit.errors import CheckpointError, OnelogitError, first_line
from onelogit.io.lines import shortened

MAX_TEXT_BYTES = 16 * 2**20  # of one small file; the largest published ones, of tokenizers, have 4 MiB
MAX_TEXTS_BYTES = 64 * 2**20  # of all small files of a folder
MAX_VOCABULARY_BYTES = 128 * 2**20  # of tokenizer.json; the largest published ones have 35 MiB
# The model cannot do without them, or transformers reads them as well.
_REQUIRED = re.compile(
    r"\.jinja$|(^|/)(config|modules|adapter_config|generation_config|special_tokens_map|added_tokens|chat_template|"
    r"config_sentence_transformers|quantize_config|\w*processor_config|\w*tokenizer_config|\w+_bert_config)\.json$"
)
_VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "merges.txt", "*.model")

# The names of fields that give the number of such parts of a model, and the largest number that is accepted.
_COUNTS = {
    r"layers?$|blocks?$|depths?$": 10_000,
    r"heads?$|experts?$|labels$|groups?$": 100_000,
    r"_size$|_dim$|^d_[a-z]+$|^n_(embd|inner)$|_rank$|^(r|width|channels)$|intermediate": 10_000_000,
    r"positions?(_embeddings)?$|^n_ctx$|seq_len|max_length": 1_000_000_000,
}
_UNLIMITED = re.compile(r"model_max_length|_ids?$")  # transformers writes 1e30 for no limit
_PACKED = 32  # quantised weights have up to this many values in one element
_CODE_FIELD = re.compile(r"(attn|attention|experts)_implementation")  # also the internal names of transformers
# Fields with the names of files that transformers would read in place of those that are checked.
_OTHER_FILES = ("configuration_files", "transformers_weights")
_POSITIONS = re.compile(r"(?:position_embeddings?|embed_positions|wpe)\.weight$")


def why_outside(file: Path, folder: Path) -> str | None:
    """Why a file is not one of the folder, but elsewhere; None if it is, or if the hub's cache links to its blobs."""
    root, target = folder.resolve(), file.resolve()
    if target.is_relative_to(root):
        return None
    blobs = root.parent.parent / "blobs"
    if root.parent.name == "snapshots" and file.is_symlink():
        link = Path(os.path.normpath(file.parent.resolve() / file.readlink()))
        if link.parent == blobs and not link.is_symlink():
            return None
    return (
        f"{file} leads out of the model's folder, to {target}, and a model's files must not name others; if you trust "
        "it, copy that file into the folder"
    )


def is_plain_path(path: object) -> bool:
    """Whether a path that a file names stays in the folder, by its text: relative, without `..` and without drives."""
    if not isinstance(path, str) or re.search(r"[\\:\0\ud800-\udfff]", path):
        return False
    # Windows ignores dots and spaces at the end of a name.
    return not path.startswith(("/", "~")) and all(part.strip(" .") or part in ("", ".") for part in path.split("/"))


def is_required(name: str) -> bool:
    """Whether a small file of this name is an error if it is too large, and not left out."""
    return _REQUIRED.search(name) is not None


def check_readable(file: Path, left: int = MAX_TEXTS_BYTES) -> bool:
    """Whether a small file is to be read: one that is too large is an error only if the model cannot do without it.

    Args:
        file: to be read.
        left: how many bytes may still be read of all small files.

    Raises:
        CheckpointError: it is too large, or is not a file but, for example, a pipe, which would be read forever.
    """
    status = file.stat()
    if not stat.S_ISREG(status.st_mode):
        raise CheckpointError(f"{file} is not a regular file; copy it again from the original")
    if status.st_size <= min(MAX_TEXT_BYTES, left):
        return True
    if is_required(file.name):
        limit = MAX_TEXT_BYTES if status.st_size > MAX_TEXT_BYTES else MAX_TEXTS_BYTES
        together = "" if limit == MAX_TEXT_BYTES else " with the small files before it"
        raise CheckpointError(
            f"{file} has {status.st_size:,} bytes{together}, of at most {limit:,}, so it is damaged; copy it from the "
            "original"
        )
    return False


@contextmanager
def strange_settings_named(name: str) -> Iterator[None]:
    """Raise CheckpointError if a library fails in the block, because a model's settings or options are strange."""
    try:
        yield
    except Exception as error:
        is_of_settings = isinstance(error, ArithmeticError | AttributeError | LookupError | TypeError | ValueError)
        if isinstance(error, OnelogitError) or not (is_of_settings or type(error) is Exception):  # as tokenizers raises
            raise
        raise CheckpointError(
            f"{name!r} cannot be computed as its files and your options say ({type(error).__name__}: "
            f"{first_line(error)}); check the options, or copy config.json and tokenizer.json from the original"
        ) from error


def check_vocabularies(folder: Path) -> None:
    """Check the sizes of the files of a tokenizer, which are larger than others. Raises CheckpointError."""
    for file in (each for name in _VOCABULARIES for each in folder.glob(name)):
        if file.is_file() and (size := file.stat().st_size) > MAX_VOCABULARY_BYTES:
            raise CheckpointError(
                f"{file} has {size:,} bytes, of at most {MAX_VOCABULARY_BYTES:,}, so it is damaged; copy it from the "
                "original"
            )


def check_texts(folder: Path, texts: SmallFiles) -> None:
    """Check the paths and the sizes that the small files of a model or an adapter ask for.

    Raises:
        CheckpointError: a path leads out of the folder, a size is absurd, or a file names code to download.
    """
    for module in _content(texts, "modules.json", list):
        path = module.get("path", "") if isinstance(module, dict) else ""
        if not is_plain_path(path):
            raise CheckpointError(f"modules.json in {folder} names {path!r}, which is not a folder of the model")
        inside = [name for name in texts if path.strip("/.") and name.startswith(f"{path.rstrip('/')}/")]
        if reason := next(filter(None, (why_outside(folder / each, folder) for each in (path, *inside))), None):
            raise CheckpointError(reason)
    names = _content(texts, "tokenizer_config.json", dict).get("fast_tokenizer_files")
    for name in names if isinstance(names, list) else ():
        if not is_plain_path(name) or "/" in name:
            raise CheckpointError(f"tokenizer_config.json in {folder} names {name!r}, which is not a file of the model")
    for file in ("config.json", "adapter_config.json"):
        for name, value in _fields(_content(texts, file, dict)):
            _check_field(folder / file, name, value)


def check_tensors(config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], folder: Path) -> None:
    """Check that a model of the sizes in its config.json can have the stored weights, before it is built.

    Args:
        config: the fields of config.json.
        shapes: of the stored tensors, by their names.
        folder: of the checkpoint, for messages.

    Raises:
        CheckpointError: it declares more layers than there are tensors, or sizes far above those of all tensors.
    """
    text_config = config.get("text_config")
    config = {**config, **(text_config if isinstance(text_config, dict) else {})}
    largest = max((max(shape, default=1) for shape in shapes.values()), default=1)
    rows = [shape[0] for name, shape in shapes.items() if shape and _POSITIONS.search(name) and "vis" not in name]
    limits = {
        **dict.fromkeys(("num_hidden_layers", "n_layer", "num_layers"), len(shapes)),
        **dict.fromkeys(("hidden_size", "vocab_size", "intermediate_size", "n_embd", "d_model"), _PACKED * largest),
        **dict.fromkeys(("max_position_embeddings", "n_positions") if rows else (), _PACKED * max(rows, default=1)),
        **dict.fromkeys((name for name in config if name.endswith("experts")), max(largest, len(shapes))),
    }
    for name, limit in limits.items():
        value = config.get(name)
        if isinstance(value, int) and value > limit:
            raise CheckpointError(
                f"config.json in {folder} declares {name}={value:,}, which does not fit its weights: they have "
                f"{len(shapes):,} tensors of at most {largest:,} rows or columns; copy config.json from the original"
            )


def _content(texts: SmallFiles, file: str, kind: type) -> Any:
    """The content of a file; an empty one if it is damaged, which is told by whoever needs the file."""
    try:
        return parse_json(texts, file, kind)
    except CheckpointError:
        return kind()


def _fields(content: object) -> Iterator[tuple[str, Any]]:
    """All fields of an object and of the objects in it."""
    waiting = [content]
    while waiting:
        each = waiting.pop()
        if isinstance(each, list):
            waiting += each
        elif isinstance(each, dict):
            waiting += each.values()
            yield from each.items()


def _check_field(file: Path, name: str, value: object) -> None:
    if name in _OTHER_FILES and value:
        raise CheckpointError(
            f"{file} names other files of the model ({name}={shortened(str(value), 60)}), which onelogit does not "
            "read; give them the usual names, config.json and model.safetensors, and remove the field"
        )
    if _CODE_FIELD.search(name) and "/" in str(value):
        raise CheckpointError(
            f"{file} names code to download from the hub ({name}={value!r}), which a model must not choose; if you "
            "trust it, remove the field, and pass attn_implementation= yourself"
        )
    if isinstance(value, bool) or not isinstance(value, int | float) or _UNLIMITED.search(name):
        return
    limit = next((limit for pattern, limit in _COUNTS.items() if re.search(pattern, name)), None)
    if limit is not None and not abs(value) <= limit:
        raise CheckpointError(
            f"{file} declares {name}={shortened(str(value), 30)}, of at most {limit:,}, so it is damaged; copy it from "
            "the original"
        )
