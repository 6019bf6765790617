"""Pairs of texts -> the logits that a server gives them: what is asked, in which form, and whether it is believed."""

import asyncio
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from numbers import Real
from typing import TYPE_CHECKING, TypeVar, cast

from onelogit.base_reranker import PairLogits, Pairs
from onelogit.checkpoints.load_encoder import load_encoder
from onelogit.checkpoints.resolve import known_recipe
from onelogit.errors import InputError, ServerError
from onelogit.export.probe import (
    ProbeFile,
    diagnose,
    largest_difference,
    long_pairs,
    read_probe,
    without_truncated,
    wrong_prompts,
)
from onelogit.io.progress import RowProgress
from onelogit.options import API_KEY_VARIABLE, ModelSpec, Protocol, RemoteOptions
from onelogit.prompts.encoder import Encoder
from onelogit.ranking import best_logits, to_score
from onelogit.recipes.recipe import Recipe
from onelogit.remote.client import Client, ClientLimits
from onelogit.remote.protocols import PROTOCOLS, ScoreRequest, read
from onelogit.remote.request_builder import RequestBuilder
from onelogit.validation import check_text, checked_choice, checked_count

if TYPE_CHECKING:
    import httpx2

Result = TypeVar("Result")

_PAIRS_A_REQUEST = 32  # as many as TEI takes by default


class RemoteScorer:
    """Pairs of texts -> the logits that a server gives them. See `RemoteReranker`."""

    def __init__(self, spec: ModelSpec, client: "httpx2.AsyncClient | None") -> None:
        options, model = spec.remote_options, spec.model
        self.protocol: Protocol = options.get("protocol") or "vllm-tokens"
        checked_choice("protocol", self.protocol, Protocol)
        self.template = _checked_template(self.protocol, options.get("template"), model)
        self._spec = PROTOCOLS[self.protocol]
        self._raw = options.get("raw_logits") is not False
        self._served_name = options.get("served_name")
        self._model_spec = spec
        self._loaded = load_encoder(spec) if self.template == "client" else None
        if self._loaded is not None:
            self.recipe: Recipe | None = self._loaded.model.recipe
            self.instruction = self._loaded.instruction
        else:  # the server writes the prompts, and has a default instruction of its own
            self.recipe = None if model is None else known_recipe(model)
            self.instruction = self._checked(options.get("instruction"))
        self._asker = RequestBuilder(
            protocol_spec=self._spec,
            encoder=None if self._loaded is None else self._loaded.encoder,
            sends_tokens=self.protocol == "vllm-tokens",
            pairs_a_request=checked_count("pairs_a_request", options.get("pairs_a_request")) or _PAIRS_A_REQUEST,
        )
        self._proved_instructions: set[str] = set()
        api_key = options.get("api_key")
        self.client = Client(
            str(spec.url),
            api_key=os.environ.get(API_KEY_VARIABLE) if api_key is None else api_key,
            headers=options.get("headers"),
            limits=_limits(options),
            client=client,
        )

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self.client.is_closed

    @property
    def max_tokens(self) -> int | None:
        """The longest prompt, in tokens; None if the server writes the prompts."""
        return None if self._loaded is None else self._loaded.encoder.max_tokens

    def close(self) -> None:
        """Let go of the connections. Calls that still wait end with an error."""
        self.client.close()

    def logits(self, pairs: Pairs, instruction: str | None = None, *, progress: bool = False) -> PairLogits:
        """The logit of each pair, in the given order.

        Raises:
            InputError: a query leaves no room for a document, or an instruction would be ignored.
            ServerError: the server is not there, or answers otherwise than asked.
        """
        return _waited(self.client.run(self._score, pairs, instruction, progress))

    async def alogits(self, pairs: Pairs, instruction: str | None = None, *, progress: bool = False) -> PairLogits:
        """`logits`, while the event loop goes on; cancelling it cancels the requests."""
        return await asyncio.wrap_future(self.client.run(self._score, pairs, instruction, progress))

    def check(self) -> float:
        """See `RemoteReranker.check`."""
        loaded = load_encoder(self._model_spec)
        probe = without_truncated(read_probe(loaded.model.texts, self._model_spec.model), loaded.encoder.max_tokens)
        if not self._raw:  # a server that leaves its activation on
            probe = probe._replace(logits=[to_score(logit, "sigmoid") for logit in probe.logits])
        return _waited(self.client.run(self._check, probe, loaded.encoder))

    async def _check(self, probe: ProbeFile, encoder: Encoder) -> float:
        said = probe.instruction if self.template == "client" else None
        answered = (await self._score(probe.pairs, said, progress=False)).logits
        difference = largest_difference(probe, answered)
        if difference > probe.tolerance:
            raise diagnose(probe, answered, await self._answers_to_wrong_prompts(probe, encoder))
        await self._check_length(long_pairs(probe, encoder), said, encoder.max_tokens)
        return difference

    async def _check_length(self, pairs: Pairs, instruction: str | None, max_tokens: int) -> None:
        answered = (await self._score(pairs, instruction, progress=False)).logits
        if len(pairs) > 1 and len(set(answered)) == 1:
            raise ServerError(
                f"{self.client.url} does not read prompts of max_tokens={max_tokens} to their end: it truncates. Let "
                "it take longer ones, or lower max_tokens"
            )

    async def _answers_to_wrong_prompts(self, probe: ProbeFile, encoder: Encoder) -> dict[str, list[float]]:
        """Of a server that takes token ids, too; others cannot be asked."""
        if self.protocol == "vllm-tokens":
            return {}
        protocol_spec = PROTOCOLS["vllm-tokens"]
        plain = [encoder.plain_ids(query + document) for query, document in probe.pairs]
        answers = {}
        for reason, rows in wrong_prompts(probe, encoder.bos_id, plain).items():
            body = protocol_spec.build(ScoreRequest(rows=rows, model=await self._find_served_name()))
            try:
                (answers[reason],) = await self.client.ask_all(
                    protocol_spec.path,
                    [body],
                    lambda _, answer: read(protocol_spec, answer, len(probe.pairs)),
                    lambda _: None,
                )
            except ServerError:
                return {}
        return answers

    async def _score(self, pairs: Pairs, instruction: str | None, progress: bool) -> PairLogits:
        if not pairs:
            return PairLogits([], 0)
        said = self.instruction if instruction is None else self._checked(instruction)
        await self._prove_instruction(said)
        one = ScoreRequest(model=await self._find_served_name(), raw=self._raw)
        asked = await asyncio.to_thread(self._asker.asked, pairs, said, one)
        rows_done = RowProgress(is_shown=progress)
        with rows_done.shown(sum(asked.counts)):
            numbers = await self.client.ask_all(
                self._spec.path,
                asked.bodies,
                lambda place, answer: read(self._spec, answer, asked.counts[place]),
                lambda place: rows_done(asked.counts[place]),
            )
        logits = best_logits([number for each in numbers for number in each], asked.owners)
        return PairLogits(logits, asked.truncated_count)

    async def _find_served_name(self) -> str | None:
        """What the server calls the model: as the caller says, or as the server does; None where it needs no name."""
        if self._served_name is None and self.protocol != "tei":
            self._served_name = self._choose_served_name(await self.client.list_models())
        return self._served_name or None

    def _choose_served_name(self, listed: Sequence[str]) -> str:
        """The name in the server's list; "" if the server lists none. With template="server" the list may lack it."""
        model = self._model_spec.model
        if model is not None and (model in listed or (self.template == "server" and len(listed) != 1)):
            return model
        if len(listed) > 1:
            names = self.client.shown(", ".join(listed[:20]))
            raise InputError(f"{self.client.url} serves {names}: name one as served_name")
        return listed[0] if listed else ""

    async def _prove_instruction(self, instruction: str | None) -> None:
        """Refuse to go on where a server that writes the prompts does not write instructions into them."""
        if self.template != "server" or not instruction or instruction in self._proved_instructions:
            return
        plain = ScoreRequest(query="a", documents=["b"], model=await self._find_served_name(), raw=self._raw)
        asks = [replace(plain, instruction=instruction), plain]
        bodies = [self._spec.build(ask) for ask in asks]
        told, untold = await self.client.ask_all(
            self._spec.path, bodies, lambda _, answer: read(self._spec, answer, 1), lambda _: None
        )
        if told == untold:
            raise InputError(
                f"{self.client.url} gives the same score with and without the instruction: it would be ignored. Serve "
                "the model's chat template, or use template='client' or protocol='vllm-tokens'"
            )
        self._proved_instructions.add(instruction)

    def _checked(self, instruction: str | None) -> str | None:
        if instruction is None:
            return None
        if self._loaded is not None:
            return self._loaded.encoder.checked_instruction(instruction)
        check_text(instruction, "the instruction")
        if instruction and not self._spec.takes_instruction:
            raise InputError(f"the protocol {self.protocol!r} has no place for an instruction; use template='client'")
        return instruction


def _checked_template(protocol: Protocol, template: str | None, model: str | None) -> str:
    """Who writes the prompts: "client" or "server".

    Raises:
        InputError: it is not said, or cannot be.
    """
    if protocol == "vllm-tokens":
        if template == "server":
            raise InputError("protocol='vllm-tokens' sends token ids: its prompts are written here, template='client'")
        template = "client"
    if template not in ("client", "server"):
        raise InputError(
            f"protocol={protocol!r} sends texts: say with template='client' that whole prompts are written here, or "
            f"with template='server' that the server has the model's template, not {template!r}"
        )
    if template == "client" and model is None:
        raise InputError("to write prompts here, the model must be known: name its hub id or folder as model")
    return template


def _limits(options: RemoteOptions) -> ClientLimits:
    timeout_s = options.get("timeout_s")
    is_number = isinstance(timeout_s, Real) and not isinstance(timeout_s, bool)
    if timeout_s is not None and not (is_number and timeout_s > 0):
        raise InputError(f"timeout_s must be a number of seconds above 0, not {timeout_s!r}")
    counts = {name: checked_count(name, cast("Mapping[str, int | None]", options).get(name)) for name in _COUNTS}
    return ClientLimits(
        **{name: value for name, value in {"timeout_s": timeout_s, **counts}.items() if value is not None}  # type: ignore[arg-type]
    )


_COUNTS = ("attempts", "requests_at_once")


def _waited(future: "Future[Result]") -> Result:
    try:
        return future.result()
    finally:
        future.cancel()  # whatever ended the wait: nobody is there for the result
