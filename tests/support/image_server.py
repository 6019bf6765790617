"""A small server in vLLM's form that reads images: it checks requests as vLLM's source does, and decodes each image.

Source: vllm 0.32, entrypoints/pooling/scoring/protocol.py and utils.py, multimodal/media/connector.py.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Literal, NotRequired, Required

from PIL import Image
from pydantic import BaseModel, ConfigDict, ValidationError
from typing_extensions import TypedDict

from support.servers import Body, FakeServer, Response


class ImageURL(TypedDict, total=False):
    url: Required[str]
    detail: Literal["auto", "low", "high"]


class ImagePart(TypedDict, total=False):
    image_url: Required[ImageURL]
    type: Required[Literal["image_url"]]


class TextPart(TypedDict, total=False):
    text: Required[str]
    type: Required[Literal["text"]]


class MultiModal(TypedDict):
    content: list[ImagePart | TextPart]
    extra: NotRequired[None]


class RerankRequest(BaseModel):
    model_config = ConfigDict(extra="allow")

    query: str | MultiModal
    documents: list[str | MultiModal]
    use_activation: bool | None = None
    instruction: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageServer:
    """Responds as vLLM does for a vision-language model. Pass it to `serving`.

    A document's logit is that of its text, and a thousandth of the brightness (0 to 255) of each of its images.

    Attributes:
        fake: gives the logits of texts.
        is_multimodal: whether the served model reads images.
    """

    fake: FakeServer
    is_multimodal: bool = True

    def __call__(self, path: str, body: Body | None) -> Response:
        if body is None or path != "/v1/rerank":
            return self.fake(path, body)
        try:
            documents = [self._read(each) for each in RerankRequest.model_validate(body).documents]
        except (ValidationError, ValueError, OSError) as error:
            return Response(
                code=400, content={"error": {"message": str(error), "type": "BadRequestError", "code": 400}}
            )
        response: Any = self.fake(path, {**body, "documents": [text for text, _ in documents]})
        results = response.content["results"]
        added = [{**each, "relevance_score": each["relevance_score"] + documents[each["index"]][1]} for each in results]
        return Response(content={"results": sorted(added, key=lambda each: -each["relevance_score"])})

    def _read(self, document: Any) -> tuple[str, float]:
        """A document's text, and what its images add to its logit."""
        if isinstance(document, str):
            return document, 0.0
        if not self.is_multimodal:
            raise ValueError("MultiModalParam is not supported for Qwen3ForSequenceClassification")
        texts = [part["text"] for part in document["content"] if part["type"] == "text"]
        urls = [part["image_url"]["url"] for part in document["content"] if part["type"] == "image_url"]
        return "\n".join(texts), sum(brightness(url) for url in urls) / 1000


def brightness(url: str) -> float:
    """The mean of the pixels of the image in a data url; 7 for a web address, which is not fetched."""
    if url.startswith(("http://", "https://")):
        return 7.0
    head, _, data = url.partition(",")
    kind, _, encoding = head.removeprefix("data:").partition(";")
    if not head.startswith("data:") or encoding != "base64":
        raise ValueError("Only base64 data URLs are supported for now.")
    image: Any = Image.open(BytesIO(base64.b64decode(data, validate=True)))
    if Image.MIME[image.format] != kind:
        raise ValueError(f"{kind} is not the type of the image, {image.format}")
    grey = image.convert("L")
    return float(sum(grey.tobytes()) / (grey.width * grey.height))


def image(value: int, kind: str = "PNG") -> bytes:
    """The content of an image file of one shade of grey, from 0 to 255."""
    file = BytesIO()
    Image.new("RGB", (4, 4), (value, value, value)).save(file, kind)
    return file.getvalue()


def added(values: Sequence[int | None]) -> list[float]:
    """What images of such shades add to a logit; None for no image."""
    return [0.0 if value is None else value / 1000 for value in values]
