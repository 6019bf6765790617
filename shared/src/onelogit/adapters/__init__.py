"""The code that framework adapters share: public, so that you can write an adapter for another framework.

An adapter only translates: a framework's documents to strings, a call of `RerankerHandle.rank`, and indices back to
documents. It never scores, sorts or batches, and never imports torch. To write one:

1. Give the adapter the fields `model`, `options`, `device`, `dtype`, `url` and `protocol`, those of `ModelParameters`
   (a pydantic model inherits `ModelFields`, and calls `keep_recipe_plain` once it is validated), and in `_handle` a
   `RerankerHandle`. Pass the constructor's arguments through `adapter_fields`, `options` through `plain_options` and
   other fields through `plain`, so that every value can be dumped. Keep `token` and `api_key` out of dumps.
2. Write `_spec(self)` as `self._handle.spec(self, token=..., api_key=...)`, and call it once in the constructor: that
   checks the options. Later calls reuse the spec until a field changes.
3. In each call, create a `RankRequest` (`rank_options` merges the options of the call with the adapter's own,
   `document_list` checks the list, `text_with_metadata` puts metadata in front of a text, `with_images` adds a
   document's images, `key` removes duplicates) and pass it to `self._handle.rank` or `arank`. No model is loaded for an
   empty list.
4. For each result, copy the caller's document and add `score` and `logit` as usual in the framework. A `Kept` has
   neither: reranking failed with on_error="keep_order"; return the caller's document as it is.
5. Forward `warm_up`, `awarm_up` and `close` to the handle; `from_reranker` uses `fields_of`. A copy of the adapter gets
   a copy of the handle, so that closing one does not close the other.

`tests/adapters` tests one contract for all adapters: add yours to `ADAPTERS` of `tests/support/adapters.py`.
"""

from onelogit.adapters.handle import RerankerHandle
from onelogit.adapters.images import images_in, with_images
from onelogit.adapters.parameters import (
    ModelFields,
    ModelParameters,
    adapter_fields,
    adapter_options,
    check_names,
    fields_of,
    keep_recipe_plain,
    uses_server,
)
from onelogit.adapters.plain import MetadataDict, plain, plain_options
from onelogit.adapters.request import (
    Kept,
    OnError,
    RankOptions,
    RankRequest,
    document_list,
    rank_options,
    text_with_metadata,
)
from onelogit.contents import image_type
from onelogit.model_spec import ModelSpec
from onelogit.option_values import checked_flag
from onelogit.options import OpenOptions
from onelogit.validation import check_top_n, checked_score_threshold, checked_top_n

__all__ = [
    "Kept",
    "MetadataDict",
    "ModelFields",
    "ModelParameters",
    "ModelSpec",
    "OnError",
    "OpenOptions",
    "RankOptions",
    "RankRequest",
    "RerankerHandle",
    "adapter_fields",
    "adapter_options",
    "check_names",
    "check_top_n",
    "checked_flag",
    "checked_score_threshold",
    "checked_top_n",
    "document_list",
    "fields_of",
    "image_type",
    "images_in",
    "keep_recipe_plain",
    "plain",
    "plain_options",
    "rank_options",
    "text_with_metadata",
    "uses_server",
    "with_images",
]
