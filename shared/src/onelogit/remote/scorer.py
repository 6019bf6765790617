"""Pairs of texts -> their logits from a server: builds requests, and checks how the server handles them."""

import asyncio
import logging
import os
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from onelogit.base_reranker import PairLogits, Pairs
from onelogit.checkpoints.load_encoder import load_encoder, writes_prompts
from onelogit.checkpoints.recipe_choice import known_recipe
from onelogit.checkpoints.resolve import resolve_model
from onelogit.endpoint import split_address
from onelogit.errors import CheckpointError, InputError, RecipeError, ServerError
from onelogit.export import probe
from onelogit.io.progress import RowProgress
from onelogit.model_spec import ModelSpec, check_single_activation
from onelogit.options import API_KEY_VARIABLE, DEFAULT_PROTOCOL
from onelogit.prompts.encoder import Encoder
from onelogit.prompts.prompt import Prompt
from onelogit.ranking import best_logits, to_score
from onelogit.recipes.lookup import recipe_of
from onelogit.recipes.recipe import Recipe
from onelogit.remote.client import Client
from onelogit.remote.document_cutter import DocumentCutter
from onelogit.remote.protocols import PROTOCOLS, VLLM_TOKENS, ScoreRequest
from onelogit.remote.request_builder import RequestBuilder
from onelogit.validation import checked_text

if TYPE_CHECKING:
    import httpx2

logger = logging.getLogger(__name__)

_PAIRS_A_REQUEST = 32  # TEI's default limit


class RemoteScorer:
    """Pairs of texts -> their logits from a server. See `RemoteReranker`."""

    def __init__(self, spec: ModelSpec, http: "httpx2.AsyncClient | None") -> None:
        options = spec.options
        protocol = PROTOCOLS[options.get("protocol") or DEFAULT_PROTOCOL]
        address = split_address(str(spec.url), options.get("path"), protocol.path)
        self.protocol = replace(protocol, path=address.path)
        if spec.model is None and writes_prompts(spec):
            raise InputError(
                "prompts need the model's template and tokenizer; pass the model's hub id or folder as model"
            )
        raw_logits = options.get("raw_logits")
        self.is_raw = not protocol.is_always_activated(address.host) if raw_logits is None else raw_logits
        check_single_activation(options.get("activation"), is_raw=self.is_raw)
        self._served_name = options.get("served_name")
        self._spec = spec
        self._loaded = load_encoder(spec) if writes_prompts(spec) else None
        if self._loaded is not None:
            self.recipe: Recipe | None = self._loaded.model.recipe
            self.instruction = self._loaded.encoder.instruction
        else:  # the server writes the prompts, and has its own default instruction
            self.recipe = _served_recipe(spec)
            self.instruction = self._checked_instruction(options.get("instruction"))
        cutter = _document_cutter(spec) if self._loaded is None and spec.model is not None else None
        self._builder = RequestBuilder(
            encoder=None if self._loaded is None else self._loaded.encoder,
            cutter=cutter,
            sends_tokens=self.protocol.sends_tokens,
            pairs_a_request=options.get("pairs_a_request") or _PAIRS_A_REQUEST,
        )
        self._working_instructions: set[str] = set()
        activation = options.get("activation")
        is_as_sent = activation == "identity" or (activation is None and self.recipe is None)
        self._is_activation_known = raw_logits is not None or not self.is_raw or is_as_sent
        self.client = Client(
            address.url,
            api_key=options.get("api_key", os.environ.get(API_KEY_VARIABLE)),
            headers=options.get("headers"),
            http=http,
            length_hint=_length_hint(spec, is_cut=self.max_tokens is not None, can_truncate=protocol.can_truncate),
            **_client_limits(spec),
        )

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self.client.is_closed

    @property
    def max_tokens(self) -> int | None:
        """The longest prompt, in tokens; None if only the server limits it."""
        limited = self._builder.encoder or self._builder.cutter
        return None if limited is None else limited.max_tokens

    @property
    def why_no_images(self) -> str | None:
        """Why documents with images cannot be sent, as the rest of a sentence; None if they can."""
        if not self.protocol.sends_images:
            return (
                f"which protocol={self.protocol.name!r} cannot send; use protocol='rerank' with template='server', and "
                "a server that reads images, such as vLLM"
            )
        if self._loaded is not None:
            return "which prompts that are written here cannot contain; pass template='server'"
        host = urlsplit(self.client.url).hostname or ""
        if self.protocol.is_always_activated(host):
            return f"which {host} does not read in this form; use a server that does, such as vLLM"
        return None

    def describe(self, query: str, document: str, instruction: str | None = None) -> Prompt:
        """The prompt of one pair.

        Raises:
            InputError: the server writes the prompts, or the query leaves no room for a document.
        """
        if self._loaded is None:
            raise InputError("the server writes the prompts, so they are known only there; use template='client'")
        encoder = self._loaded.encoder
        return encoder.describe(query, document, encoder.checked_instruction(instruction))

    def close(self) -> None:
        """Close the connections; running calls raise OnelogitError."""
        self.client.close()

    def logits(self, pairs: Pairs, instruction: str | None = None, *, progress: bool = False) -> PairLogits:
        """The logit of each pair, in the given order.

        Raises:
            InputError: a query leaves no room for a document, or an instruction would be ignored.
            ServerError: the server does not answer, or its response cannot be used.
        """
        return self.client.run(lambda: self._score(pairs, instruction, progress))

    async def alogits(self, pairs: Pairs, instruction: str | None = None, *, progress: bool = False) -> PairLogits:
        """`logits` without blocking the event loop; cancelling it cancels the requests."""
        return await self.client.arun(lambda: self._score(pairs, instruction, progress))

    def check(self) -> float:
        """See `RemoteReranker.check`."""
        if self._spec.model is None:
            raise InputError("check needs an exported model: pass the folder that `onelogit convert` wrote as model")
        loaded = self._loaded or load_encoder(self._spec)
        expected = probe.read_probe(loaded.model.texts, self._spec.model)
        expected = probe.without_truncated(expected, loaded.encoder.max_tokens)
        if not self.is_raw:  # the server applies its activation
            scores = [each._replace(logit=to_score(each.logit, "sigmoid")) for each in expected.probes]
            expected = expected._replace(probes=scores)
        return self.client.run(lambda: self._check(expected, loaded.encoder))

    async def _check(self, expected: probe.ProbeFile, encoder: Encoder) -> float:
        instruction = None if self._loaded is None else expected.instruction
        logits = (await self._score(expected.pairs, instruction)).logits
        difference = probe.largest_difference(expected, logits)
        if difference > expected.tolerance:
            raise probe.diagnose(expected, logits, await self._logits_of_wrong_prompts(expected, encoder))
        # The long pairs differ only at their ends, so a server that truncates them gives all of them the same logit.
        logits = (await self._score(probe.long_pairs(expected, encoder), instruction)).logits
        if len(logits) > 1 and len(set(logits)) == 1:
            raise ServerError(
                f"{self.client.url} truncates prompts of max_tokens={encoder.max_tokens}; raise the server's limit, or "
                "lower max_tokens"
            )
        return difference

    async def _logits_of_wrong_prompts(self, expected: probe.ProbeFile, encoder: Encoder) -> dict[str, list[float]]:
        """The server's logits for `wrong_prompts`; empty if the protocol sends token ids or the server accepts none."""
        if self.protocol.sends_tokens:
            return {}
        plain = [encoder.plain_ids(query + document) for query, document in expected.pairs]
        logits = {}
        for reason, rows in probe.wrong_prompts(expected, encoder.bos_id, plain).items():
            request = ScoreRequest(rows=rows, model=await self._find_served_name())
            try:
                logits[reason] = await self.client.scores(VLLM_TOKENS, [request])
            except ServerError:
                return {}
        return logits

    async def _score(self, pairs: Pairs, instruction: str | None, progress: bool = False) -> PairLogits:
        if not pairs:
            return PairLogits([], 0)
        instruction = self.instruction if instruction is None else self._checked_instruction(instruction)
        await self._check_instruction_is_used(instruction)
        truncate = self._builder.cutter is None and self._spec.options.get("long_documents") == "cut"
        common = ScoreRequest(model=await self._find_served_name(), raw=self.is_raw, truncate=truncate)
        built = await asyncio.to_thread(self._builder.build, pairs, instruction, common)
        rows_done = RowProgress(is_shown=progress)
        with rows_done.shown(len(built.owners)):
            numbers = await self.client.scores(self.protocol, built.requests, rows_done)
        await self._warn_if_activated(built.requests[0], numbers)
        has_chunks = len(numbers) > len(pairs)  # otherwise the numbers, which are checked, are the logits
        logits = best_logits(numbers, built.owners) if has_chunks else numbers
        return PairLogits(logits, built.truncated_count)

    async def _warn_if_activated(self, request: ScoreRequest, numbers: list[float]) -> None:
        """Log a warning, once, if the server seems to apply its activation although logits were asked for.

        Then all numbers lie in [0, 1], and the server gives the same ones if its scores are asked for.
        """
        if self._is_activation_known:
            return
        self._is_activation_known = True
        if not all(0 <= number <= 1 for number in numbers):
            return
        few = replace(request, rows=request.rows[:4], documents=request.documents[:4], raw=False)
        logits = numbers[: few.count]
        try:
            scores = await self.client.scores(self.protocol, [few])
        except ServerError:
            scores = logits
        if _distance(scores, logits) <= _distance(scores, [to_score(logit, "sigmoid") for logit in logits]):
            logger.warning(
                "%s%s sends only numbers from 0 to 1 although logits were asked for: they seem to be scores already, "
                "but are used as logits; pass raw_logits=False (--no-raw-logits) to use them as scores, or "
                "raw_logits=True if they are logits",
                self.client.url,
                self.protocol.path,
            )

    async def _find_served_name(self) -> str | None:
        """The server's name for the model; None if requests need none, or the server lists no models."""
        if self._served_name is None and self.protocol.needs_model_name:
            listed, model = await self.client.list_models(), self._spec.model
            if model in listed or (model is not None and self._loaded is None and len(listed) != 1):
                self._served_name = model
            elif len(listed) > 1:
                names = self.client.redact(", ".join(listed[:20]))
                raise InputError(f"{self.client.url} serves several models: pass one of {names} as served_name")
            else:
                self._served_name = listed[0] if listed else ""
        return self._served_name or None

    async def _check_instruction_is_used(self, instruction: str | None) -> None:
        """Raise InputError if the server ignores an instruction: requests with and without it get the same score."""
        if self._loaded is not None or not instruction or instruction in self._working_instructions:
            return
        plain = ScoreRequest(query="a", documents=["b"], model=await self._find_served_name(), raw=self.is_raw)
        requests = [replace(plain, instruction=instruction), plain]
        with_instruction, without_instruction = await self.client.scores(self.protocol, requests)
        if with_instruction == without_instruction:
            raise InputError(
                f"{self.client.url} returns the same score with and without the instruction, so it would be ignored; "
                f"serve the model's chat template, or use template='client' or protocol={DEFAULT_PROTOCOL!r}"
            )
        self._working_instructions.add(instruction)

    def _checked_instruction(self, instruction: str | None) -> str | None:
        if instruction is None:
            return None
        if self._loaded is not None:
            return self._loaded.encoder.checked_instruction(instruction)
        instruction = checked_text(instruction, "the instruction")
        if instruction and not self.protocol.takes_instruction:
            raise InputError(f"protocol={self.protocol.name!r} cannot send an instruction; use template='client'")
        return instruction


def _served_recipe(spec: ModelSpec) -> Recipe | None:
    """The recipe of the model that a server serves with its own prompts: given, of a local folder, or by the name."""
    given = recipe_of(spec.options.get("recipe"))
    if given is not None or spec.model is None:
        return given
    if spec.folder is not None:
        with suppress(CheckpointError, RecipeError):  # it may be a name that a folder happens to have
            return resolve_model(spec).recipe
    known = known_recipe(spec.model)
    return None if known is None else known.recipe


def _document_cutter(spec: ModelSpec) -> DocumentCutter | None:
    """What cuts the documents for a server that writes the prompts; None if no option asks for it."""
    long_documents = spec.options.get("long_documents")
    if long_documents is None and spec.options.get("max_tokens") is None:
        return None
    try:
        loaded = load_encoder(spec)
    except (CheckpointError, RecipeError) as error:
        raise InputError(
            f"the server writes the prompts, so max_tokens and long_documents need the tokenizer of {spec.model!r} to "
            f"cut documents here: {error}"
        ) from error
    return DocumentCutter(loaded, has_chunks=long_documents == "chunk_max")


def _length_hint(spec: ModelSpec, *, is_cut: bool, can_truncate: bool) -> str:
    if is_cut:
        return "if a prompt is too long for the server, lower max_tokens"
    here = "pass max_tokens" if spec.model is not None else "pass max_tokens, and the model whose tokenizer counts them"
    server = "pass long_documents='cut', or " if can_truncate else ""
    return f"if a text is too long for the server, {server}{here}, to cut documents"


def _distance(first: list[float], second: list[float]) -> float:
    return max(abs(one - other) for one, other in zip(first, second, strict=True))


def _client_limits(spec: ModelSpec) -> dict[str, Any]:
    return {name: spec.options[name] for name in ("timeout_s", "attempts", "requests_at_once") if name in spec.options}
