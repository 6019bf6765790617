"""A file of documents -> their texts."""

from pathlib import Path

from onelogit.io.text_files import read_documents


def texts_in(path: str | Path, text_name: str | None = None) -> list[str]:
    return [document.text for document in read_documents(path, text_name)]
