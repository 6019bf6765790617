"""Haystack documents -> the same documents, reranked. It only translates; onelogit computes the scores."""

import inspect
import os
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Never, Self

from haystack import Document, component, default_from_dict, default_to_dict
from haystack.utils import ComponentDevice, Secret
from typing_extensions import Unpack

from haystack_integrations.components.rankers.onelogit.contents import content_of
from onelogit import InputError, ModelSpec, OpenOptions, Protocol, Ranked
from onelogit.adapters import (
    Kept,
    ModelFields,
    ModelParameters,
    OnError,
    RankRequest,
    RerankerHandle,
    adapter_fields,
    check_names,
    checked_flag,
    checked_score_threshold,
    checked_top_n,
    document_list,
    fields_of,
    plain,
    plain_options,
    uses_server,
)

if TYPE_CHECKING:
    from onelogit import RemoteReranker, Reranker


@component
class OnelogitRanker(ModelFields):
    """Reorders documents by the relevance logit of a decoder language model.

    Returns copies of the documents with the same ids. The score is on the scale of the model's card, and
    `meta["relevance_logit"]` determines the order.
    """

    def __new__(cls, *_: Any, **arguments: Any) -> Self:
        """Refuse unknown arguments by what is meant, before Python does."""
        if cls is OnelogitRanker:  # a subclass may have arguments of its own
            check_names(arguments, _ARGUMENTS)
        return object.__new__(cls)

    def __init__(
        self,
        model: str | os.PathLike[str],
        device: str | ComponentDevice | None = None,
        dtype: str | None = None,
        token: Secret | None = Secret.from_env_var(["HF_API_TOKEN", "HF_TOKEN"], strict=False),  # noqa: B008  as Haystack has it
        top_k: int | None = None,
        score_threshold: float | None = None,
        instruction: str | None = None,
        scale_score: bool | None = None,
        meta_fields_to_embed: Sequence[str] | None = (),
        embedding_separator: str = "\n",
        deduplicate: bool = True,
        on_error: OnError = "raise",
        progress_bar: bool = False,
        url: str | None = None,
        protocol: Protocol | None = None,
        api_key: Secret | None = Secret.from_env_var("ONELOGIT_API_KEY", strict=False),  # noqa: B008
        options: OpenOptions | None = None,
        read_images: bool = True,
        image_meta_fields: Sequence[str] | None = (),
        **parameters: Unpack[ModelParameters],
    ) -> None:
        """A ranker that loads its model in `warm_up`, or in the first run with documents.

        Args:
            model: hub id or path of a folder.
            device: such as "cuda:1"; None for the fastest device of the machine that runs the pipeline. Several devices
                become the option `device_map`.
            dtype: as in `onelogit.OpenOptions`.
            token: for a private or gated model on the hub. One from `Secret.from_token` cannot be dumped.
            top_k: return at most this many documents; None for all.
            score_threshold: return only documents with at least this score; None for all.
            instruction: what "relevant" means; None for the model's default, "" for none.
            scale_score: True for scores from 0 to 1 (the logit's sigmoid), False for the logit itself, None for the
                scale of the model's card.
            meta_fields_to_embed: names of meta fields to put in front of a document's content.
            embedding_separator: between these values, and before the content.
            deduplicate: keep only the best of the documents with the same id.
            on_error: "raise", or "keep_order" to log the error and return the documents unchanged.
            progress_bar: show a progress bar.
            url: of a server to use instead of a local model.
            protocol: the form of requests, as in `onelogit.RemoteOptions`.
            api_key: for the server.
            options: the other `onelogit.OpenOptions`.
            read_images: send images to the server; a local model reads the text beside them. False for texts alone.
            image_meta_fields: names of meta fields with images, such as `ImageContent`, besides the document's blob.
            **parameters: `max_tokens`, `long_documents`, `batch_tokens`, `document_cache_bytes`, `quantization`,
                `quantization_config`, `trust_remote_code`, `recipe` and `revision`, as in `onelogit.OpenOptions`.

        Raises:
            InputError: an option is unknown, given twice, or out of range, or contains what cannot be dumped.
        """
        self.model = plain(model, "model")
        self.device, self.options = _devices(device, plain_options({} if options is None else options))
        self.dtype = plain(dtype, "dtype")
        self.token = _secret("token", token)
        self.top_k = checked_top_n(top_k, "top_k")
        self.score_threshold = checked_score_threshold(score_threshold)
        self.instruction = _text("instruction", instruction)
        self.scale_score = _flag("scale_score", scale_score)
        self.meta_fields_to_embed = _names("meta_fields_to_embed", meta_fields_to_embed)
        self.embedding_separator = _text("embedding_separator", embedding_separator) or ""
        self.deduplicate = _flag("deduplicate", deduplicate)
        self.on_error = plain(on_error, "on_error")
        self.progress_bar = bool(_flag("progress_bar", progress_bar))
        self.url = plain(url, "url")
        self.protocol = plain(protocol, "protocol")
        self.api_key = _secret("api_key", api_key)
        self.read_images = _flag("read_images", read_images)
        self.image_meta_fields = _names("image_meta_fields", image_meta_fields)
        for name, value in adapter_fields(parameters, _ARGUMENTS).items():
            setattr(self, name, value)
        self._handle = RerankerHandle()
        self._spec(with_secrets=False)
        self._request("", [])

    @classmethod
    def from_reranker(cls, reranker: "Reranker | RemoteReranker", **arguments: Any) -> "OnelogitRanker":
        """A ranker that uses an existing reranker, which it never closes.

        Args:
            reranker: computes the scores.
            **arguments: of the constructor, except those that the reranker determines, such as `model`.
        """
        ranker = cls(token=None, **fields_of(reranker, arguments))
        ranker._handle = RerankerHandle(reranker)
        return ranker

    def __copy__(self) -> "OnelogitRanker":
        copied = OnelogitRanker.__new__(OnelogitRanker)
        copied.__dict__.update(self.__dict__, _handle=copy(self._handle))
        return copied

    def warm_up(self) -> None:
        """Load the model and score once. Does nothing if it is loaded: pipelines call this before every run."""
        self._handle.warm_up(self._spec(), self.on_error)

    async def warm_up_async(self) -> None:
        """`warm_up` without blocking the event loop."""
        await self._handle.awarm_up(self._spec(), self.on_error)

    def close(self) -> None:
        """Drop the model. Its memory is freed when nothing else uses it; the next run loads it again."""
        self._handle.close()

    async def close_async(self) -> None:
        """`close`."""
        self.close()

    @component.output_types(documents=list[Document])
    def run(
        self,
        query: str,
        documents: list[Document],
        top_k: int | None = None,
        score_threshold: float | None = None,
        instruction: str | None = None,
        scale_score: bool | None = None,
        **unknown: Never,
    ) -> dict[str, list[Document]]:
        """The documents, most relevant first. An empty list does not load the model.

        Args:
            query: the query.
            documents: to reorder; a document without content is read as empty.
            top_k: as in the constructor, but for this run only.
            score_threshold: for this run.
            instruction: for this run.
            scale_score: for this run.
            **unknown: refused, with what is meant.
        """
        check_names(unknown, _RUN_ARGUMENTS, is_call=True)
        documents = document_list(documents, Document)
        request = self._request(query, documents, top_k, score_threshold, instruction, scale_score)
        ranking = self._handle.rank(self._spec, request)
        return {"documents": [_with_relevance(documents[ranked.index], ranked) for ranked in ranking]}

    @component.output_types(documents=list[Document])
    async def run_async(
        self,
        query: str,
        documents: list[Document],
        top_k: int | None = None,
        score_threshold: float | None = None,
        instruction: str | None = None,
        scale_score: bool | None = None,
        **unknown: Never,
    ) -> dict[str, list[Document]]:
        """`run` without blocking the event loop, even while the model is loaded."""
        check_names(unknown, _RUN_ARGUMENTS, is_call=True)
        documents = document_list(documents, Document)
        request = self._request(query, documents, top_k, score_threshold, instruction, scale_score)
        ranking = await self._handle.arank(self._spec, request)
        return {"documents": [_with_relevance(documents[ranked.index], ranked) for ranked in ranking]}

    def _request(
        self,
        query: str,
        documents: Sequence[Document],
        top_k: int | None = None,
        score_threshold: float | None = None,
        instruction: str | None = None,
        scale_score: bool | None = None,
    ) -> RankRequest:
        top_k = checked_top_n(self.top_k if top_k is None else top_k, "top_k")
        scale_score = self.scale_score if scale_score is None else _flag("scale_score", scale_score)
        fields, separator = self.meta_fields_to_embed, self.embedding_separator
        images = self.image_meta_fields if self.read_images else None
        return RankRequest(
            query=query,
            documents=documents,
            kind=Document,
            text=lambda each: content_of(each, fields, separator, images, is_local=not uses_server(self)),
            key=attrgetter("id") if self.deduplicate else None,
            top_n=top_k,
            score_threshold=self.score_threshold if score_threshold is None else score_threshold,
            instruction=self.instruction if instruction is None else instruction,
            activation=None if scale_score is None else "sigmoid" if scale_score else "identity",
            on_error=self.on_error,
            progress=self.progress_bar,
        )

    def _spec(self, *, with_secrets: bool = True) -> ModelSpec:
        token = self.token.resolve_value() if self.token is not None and with_secrets else None
        needs_key = self.url is not None and with_secrets  # without a url, the key may be meant for another server
        api_key = self.api_key.resolve_value() if self.api_key is not None and needs_key else None
        return self._handle.spec(self, token=token, api_key=api_key)

    def to_dict(self) -> dict[str, Any]:
        """The component as plain data, for a pipeline's YAML."""
        given = [name for name in ModelParameters.__annotations__ if getattr(self, name) is not None]
        return default_to_dict(self, **{name: getattr(self, name) for name in [*_OWN_ARGUMENTS, *given]})

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "OnelogitRanker":
        """The component of a dictionary that `to_dict` returned."""
        return default_from_dict(cls, data)


_OWN_ARGUMENTS = [*inspect.signature(OnelogitRanker.__init__).parameters][1:-1]
_RUN_ARGUMENTS = [*inspect.signature(OnelogitRanker.run).parameters][1:-1]
_ARGUMENTS = [*_OWN_ARGUMENTS, *ModelParameters.__annotations__]


def _devices(device: object, options: OpenOptions) -> tuple[str | None, OpenOptions]:
    if not isinstance(device, ComponentDevice):
        return plain(device, "device"), options
    if not device.has_multiple_devices:
        return device.to_torch_str(), options
    if "device_map" in options:
        raise InputError("several devices are given twice, as device and as device_map; leave one out")
    return None, {**options, "device_map": plain(device.to_hf())}


def _text(name: str, value: object) -> str | None:
    text = plain(value, name)
    if text is not None and not isinstance(text, str):
        raise InputError(f"{name} must be a string, not {text!r}")
    return text


def _flag(name: str, value: object) -> bool | None:
    flag = plain(value, name)
    return checked_flag(name, bool(flag) if flag in (0, 1) else flag)


def _names(name: str, values: object) -> list[str]:
    names = [] if values is None else plain(values, name)
    if not isinstance(names, list) or not all(isinstance(each, str) for each in names):
        raise InputError(f"{name} must be a list of names, not {names!r}")
    return names


def _secret(name: str, value: object) -> Secret | None:
    if value is None or isinstance(value, Secret):
        return value
    raise InputError(
        f"{name} must be a Secret, not a {type(value).__name__}: pass Secret.from_env_var(...), or "
        "Secret.from_token(...) for a pipeline that is never dumped"
    )


def _with_relevance(document: Document, ranked: Ranked | Kept) -> Document:
    if isinstance(ranked, Kept):
        return replace(document, meta={**document.meta}) if isinstance(document, Document) else document
    return replace(document, score=ranked.score, meta={**document.meta, "relevance_logit": ranked.logit})
