"""A Haystack document -> what the model reads of it: its text, and the images of its blob and its meta fields."""

from collections.abc import Iterator, Sequence

from haystack import Document
from haystack.dataclasses import ByteStream, ImageContent

from onelogit import ContentDocument
from onelogit.adapters import image_type, images_in, text_with_metadata, with_images


def content_of(
    document: Document, fields: Sequence[str], separator: str, image_fields: Sequence[str] | None, *, is_local: bool
) -> str | ContentDocument:
    """What the model reads of a document.

    Args:
        document: its blob is an image if its MIME type says so or, without one, its content.
        fields: names of meta fields to put in front of the text.
        separator: between these values, and before the text.
        image_fields: names of meta fields with images: `ImageContent`, `ByteStream`, or as in
            `onelogit.adapters.images_in`. None to leave out all images.
        is_local: leave out the images of a document that has a text.

    Raises:
        InputError: an image cannot be sent.
    """
    text = text_with_metadata(document.content or "", document.meta, fields, separator)
    is_text_enough = is_local and bool(text.strip())
    return text if image_fields is None or is_text_enough else with_images(text, _images(document, image_fields))


def _images(document: Document, fields: Sequence[str]) -> Iterator[object]:
    blob = document.blob
    if blob is not None:
        is_image = image_type(blob.data) is not None if blob.mime_type is None else blob.mime_type.startswith("image/")
        if is_image:
            yield blob.data
    for field in fields:
        for image in images_in(document.meta.get(field)):
            if isinstance(image, ImageContent):
                yield image.base64_image
            else:
                yield image.data if isinstance(image, ByteStream) else image
