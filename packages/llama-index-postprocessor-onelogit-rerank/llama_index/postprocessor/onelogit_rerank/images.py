"""A LlamaIndex node -> its image, wherever the node's class keeps it."""

from pathlib import Path

from llama_index.core.schema import BaseNode, ImageNode


def images_of(node: BaseNode) -> list[object]:
    """The image of a node: its content, or else its file, or else its web address, as `resolve_image` of LlamaIndex.

    Returns:
        One image, as `onelogit.ContentDocument.of` takes it; empty for a node without one.
    """
    if isinstance(node, ImageNode):
        image, path, url = node.image, node.image_path, node.image_url
    else:
        resource = getattr(node, "image_resource", None)
        if resource is None:
            return []
        image = None if resource.data is None else resource.data.decode("ascii", "replace")
        path, url = resource.path, None if resource.url is None else str(resource.url)
    found: tuple[object, ...] = (image or None, Path(path) if path else None, url or None)
    return [each for each in found if each is not None][:1]
