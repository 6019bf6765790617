"""A document of texts and images, as a content list in the form of OpenAI and vLLM -> the same, checked. No torch.

Source of the form: vllm 0.32, entrypoints/pooling/scoring/typing.py, ScoreMultiModalParam.
"""

import base64
import binascii
import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from onelogit.errors import InputError

MAX_IMAGE_BYTES = 20 * 2**20
MAX_IMAGES = 32
NO_LOCAL_IMAGES = (
    "which a model in this process does not read; serve the model with vLLM, and rank with the server's url, "
    "protocol='rerank' and template='server'"
)

_FORMATS = "PNG, JPEG, GIF, WebP, BMP and TIFF"
_SIGNATURES = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "image/png"),
    (re.compile(rb"\xff\xd8\xff"), "image/jpeg"),
    (re.compile(rb"GIF8[79]a"), "image/gif"),
    (re.compile(rb"RIFF.{4}WEBP", re.DOTALL), "image/webp"),
    (re.compile(rb"BM.{4}\0{4}", re.DOTALL), "image/bmp"),
    (re.compile(rb"II\*\0|MM\0\*"), "image/tiff"),
)
_WEB = re.compile(r"https?://[^\s/]+\S*", re.IGNORECASE)
_DATA = re.compile(r"data:([^;,]*)((?:;[^;,]*)*),", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ContentDocument:
    """A document with at least one image, for a server that reads images. It is hashable, and never changed.

    A content list in the form of OpenAI and vLLM, such as `[{"type": "image_url", "image_url": {"url": ...}},
    {"type": "text", "text": ...}]`, is a document, too: rerankers turn it into this.

    Attributes:
        parts: texts and images in the order in which the server gets them: ("text", a text) or ("image", its url).
            The url of an image is the address from which the server fetches it, or a `data:` url that contains it.
    """

    parts: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, text: str = "", *images: object) -> "ContentDocument":
        """A document of images and a text, in this order, which is that of the models' reference code.

        Args:
            text: "" for none.
            *images: of at most 20 MiB each: the content of a file in PNG, JPEG, GIF, WebP, BMP or TIFF, as bytes; the
                `Path` of such a file, which is read now; its base64 text; a `data:` url; or a web address.

        Raises:
            InputError: there is no image or too many, or one of them is too large, missing, or in another format.
        """
        if not isinstance(text, str):
            raise InputError(f"the text of a document with images must be a string, not {type(text).__name__}")
        parts = [("image", image_url(each, f"image {index}")) for index, each in enumerate(images)]
        return cls._checked([*parts, *([("text", text)] if text else [])], "the document")

    @classmethod
    def _checked(cls, parts: Sequence[tuple[str, str]], name: str) -> "ContentDocument":
        count = sum(kind == "image" for kind, _ in parts)
        if not 1 <= count <= MAX_IMAGES:
            raise InputError(f"{name} has {count} images; it must have from 1 to {MAX_IMAGES}")
        return cls(tuple(parts))

    @property
    def texts(self) -> list[str]:
        """Its texts, in order."""
        return [value for kind, value in self.parts if kind == "text"]

    @property
    def text(self) -> str:
        """Its texts, one a line."""
        return "\n".join(self.texts)

    @property
    def size(self) -> int:
        """The number of characters of its texts and urls."""
        return sum(len(value) for _, value in self.parts)

    def content(self) -> dict[str, Any]:
        """The document as vLLM's requests have it."""
        return {"content": [_part(kind, value) for kind, value in self.parts]}

    def with_texts(self, change: Callable[[str], str]) -> "ContentDocument":
        """The document with changed texts."""
        return replace(self, parts=tuple((kind, change(each) if kind == "text" else each) for kind, each in self.parts))

    def __repr__(self) -> str:
        shown = ", ".join(f"{kind}: {value[:40]!r}" for kind, value in self.parts)
        return f"ContentDocument({shown})"


def _part(kind: str, value: str) -> dict[str, Any]:
    return {"type": "text", "text": value} if kind == "text" else {"type": "image_url", "image_url": {"url": value}}


def refuse_images(documents: Iterable[object], why: str) -> None:
    """Raise InputError, which says why and what else to do, if one of some checked documents has an image."""
    for index, document in enumerate(documents):
        if isinstance(document, ContentDocument):
            raise InputError(
                f"document {index} has an image, {why}; to rank by its text alone, leave the image out (in an adapter: "
                "read_images=False, or no image_fields)"
            )


def is_document(value: object) -> bool:
    """Whether a value is a text or meant as a content list."""
    return isinstance(value, str) or is_content(value)


def is_content(document: object) -> bool:
    """Whether a document is meant as a content list."""
    if isinstance(document, ContentDocument):
        return True
    parts = document.get("content") if isinstance(document, Mapping) else document
    return isinstance(parts, list | tuple) and bool(parts) and all(isinstance(each, Mapping) for each in parts)


def checked_content(document: Any, name: str) -> str | ContentDocument:
    """The document of a content list; a string if it has no image.

    Args:
        document: for which `is_content` holds.
        name: of it, for messages.

    Raises:
        InputError: a part is neither a text nor an image, or an image cannot be sent.
    """
    if isinstance(document, ContentDocument):
        return document
    if isinstance(document, Mapping) and (unknown := [key for key in document if key != "content"]):
        raise InputError(f"{name} may have only the key 'content', not {unknown[0]!r}")
    parts = document["content"] if isinstance(document, Mapping) else document
    read = [_read_part(part, f"part {index} of {name}") for index, part in enumerate(parts)]
    if all(kind == "text" for kind, _ in read):
        return "\n".join(text for _, text in read)
    return ContentDocument._checked(read, name)


def _read_part(part: Mapping[str, Any], name: str) -> tuple[str, str]:
    kind = part.get("type")
    if kind == "text":
        if not isinstance(part.get("text"), str):
            raise InputError(f"{name} must have a string as its text, not {type(part.get('text')).__name__}")
        return "text", part["text"]
    if kind != "image_url":
        raise InputError(f"{name} must have the type 'text' or 'image_url', not {kind!r}")
    given = part.get("image_url")
    url = given.get("url") if isinstance(given, Mapping) else given
    if not isinstance(url, str) or not url.lower().startswith(("http:", "https:", "data:")):
        raise InputError(
            f"{name} must have an image_url with a url that begins with https://, http:// or data:, not {_shown(url)}; "
            "ContentDocument.of takes bytes and the Path of a file"
        )
    return "image", image_url(url, name)


def image_url(image: object, name: str = "the image") -> str:
    """The url of an image, to send to a server: the given web address, or a `data:` url that contains the image.

    Args:
        image: bytes, the Path of a file, base64, a `data:` url, or a web address.
        name: of the image, for messages.

    Raises:
        InputError: it is too large, missing, or in another format.
    """
    if isinstance(image, os.PathLike):
        return _data_url(_read_file(Path(image), name), name)
    if isinstance(image, bytes | bytearray | memoryview):
        return _data_url(bytes(image), name)
    if not isinstance(image, str):
        raise InputError(f"{name} must be bytes, a Path, or a string, not {type(image).__name__}")
    if image.lower().startswith(("http:", "https:")):
        if not _WEB.fullmatch(image):
            raise InputError(f"{name} has no valid web address: {_shown(image)}")
        return image
    if image.lower().startswith("data:"):
        head = _DATA.match(image)
        if head is None or ";base64" not in head.group(2).lower():
            raise InputError(f"{name} must be a data url in base64 (data:image/png;base64,...), not {_shown(image)}")
        image = image[head.end() :]
    return _data_url(_decoded(image, name), name)


def image_type(data: bytes) -> str | None:
    """The MIME type of an image's content; None if it is no image of a known format."""
    return next((kind for signature, kind in _SIGNATURES if signature.match(data)), None)


def _decoded(text: str, name: str) -> bytes:
    if len(text) > MAX_IMAGE_BYTES * 3 // 2:  # base64 takes four thirds, and line ends
        raise _too_large(len(text) * 3 // 4, name)
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError(
            f"{name} is neither base64, a data url, nor a web address ({_shown(text)}); pass a pathlib.Path for a file"
        ) from error


def _read_file(path: Path, name: str) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{name} is not a file: {path}")
        if status.st_size > MAX_IMAGE_BYTES:
            raise _too_large(status.st_size, f"{name}, {path},")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{name} cannot be read from {path}: {reason}") from error


def _data_url(data: bytes, name: str) -> str:
    if len(data) > MAX_IMAGE_BYTES:
        raise _too_large(len(data), name)
    kind = image_type(data)
    if kind is None:
        raise InputError(f"{name} is not an image in one of the formats that servers read: {_FORMATS}")
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _too_large(size: int, name: str) -> InputError:
    return InputError(
        f"{name} has {size / 2**20:.1f} MiB; an image may have at most {MAX_IMAGE_BYTES >> 20} MiB: make it smaller, "
        "or pass its web address"
    )


def _shown(value: object) -> str:
    return repr(f"{value[:40]}..." if isinstance(value, str) and len(value) > 40 else value)
