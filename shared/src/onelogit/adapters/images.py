"""A framework's text and images -> a document for a reranker: the text, or both for a server that reads images."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from onelogit.contents import ContentDocument
from onelogit.errors import InputError


def with_images(text: str, images: Iterable[object]) -> str | ContentDocument:
    """The text, if there are no images; else the images and then the text.

    Args:
        text: "" for none.
        images: as in `ContentDocument.of`.

    Raises:
        InputError: an image cannot be sent.
    """
    images = [*images]
    return ContentDocument.of(text, *images) if images else text


def images_in(value: object) -> Iterator[object]:
    """The images in a value of a document's metadata, as `ContentDocument.of` takes them.

    Args:
        value: None for no image; an image as in `ContentDocument.of`; a content block of OpenAI, LangChain or
            Anthropic, whose texts are skipped; or a list of them. A string is never read as the path of a file: a
            stored document must not choose which files are sent.

    Raises:
        InputError: a block is neither an image nor a text.
    """
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, Mapping):
            yield from _image_in_block(each)
        elif isinstance(each, list | tuple):
            waiting += reversed(each)
        elif each is not None:
            yield each


def _image_in_block(block: Mapping[Any, Any]) -> Iterator[object]:
    kind = block.get("type")
    if kind == "text":
        return
    inner = block.get("source" if kind == "image" else "image_url", block)
    fields = inner if isinstance(inner, Mapping) else {"url": inner}
    image = next((fields[name] for name in ("base64", "data", "url") if fields.get(name) is not None), None)
    if kind not in ("image", "image_url") or image is None:
        raise InputError(f"a content block must be a text, or an image with a url or its content, not of type {kind!r}")
    yield image
