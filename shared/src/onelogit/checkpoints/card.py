"""The text of a model card -> its metadata, such as the licence. A stranger wrote it, so it is bounded. No torch."""

import re
from functools import lru_cache
from itertools import accumulate
from typing import Any

import yaml

from onelogit.checkpoints.metadata import SmallFiles
from onelogit.io.lines import shortened

_MAX_CARD = 2**16  # characters of the metadata, without benchmarks' results and examples: a second to read as YAML
_MAX_DEPTH = 50  # of brackets in it; the time to read YAML grows with the square
_METADATA = re.compile(r"---[^\S\n]*\n(.*?)\n---[^\S\n]*(\n|$)", re.DOTALL)
_LONG_FIELDS = re.compile(r"^(?:model-index|widget):.*?(?=^[^\s#-]|\Z)", re.DOTALL | re.MULTILINE)


def read_model_card(texts: SmallFiles, path: str = "README.md") -> dict[str, Any]:
    """The metadata at the top of README.md; empty if there is none, or it is not valid YAML. Do not change it."""
    match = _METADATA.match(texts.get(path, ""))
    return {} if match is None else _fields_of(_LONG_FIELDS.sub("", match[1]))


@lru_cache(maxsize=8)
def _fields_of(text: str) -> dict[str, Any]:
    if len(text) > _MAX_CARD or _depth(text) > _MAX_DEPTH:
        return {}
    try:
        if "*" in text and any(isinstance(each, yaml.AliasEvent) for each in yaml.parse(text, yaml.SafeLoader)):
            return {}  # a few lines of aliases may stand for gigabytes
        fields = yaml.safe_load(text)
    except Exception:  # of dates and numbers that do not exist, too
        return {}
    return fields if isinstance(fields, dict) else {}


def _depth(text: str) -> int:
    """How many brackets are open at most."""
    return max(accumulate((each in "[{") - (each in "]}") for each in text if each in "[]{}"), default=0)


def read_licence(texts: SmallFiles) -> str | None:
    """The licence that the model card names, as one short line that is safe to print, or None."""
    card = read_model_card(texts)
    licence = card.get("license_name") if card.get("license") == "other" else None
    licence = card.get("license") if licence is None else licence
    if isinstance(licence, list):
        licence = ", ".join(map(str, licence))
    return None if licence is None else "".join(filter(str.isprintable, shortened(str(licence), 200)))
