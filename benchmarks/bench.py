"""What all parts of a run share: the checkpoint, the texts, the loaded contestants, and how much is asked of them."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from contestants import CARD, COMPILED, CONVERTED, ONELOGIT, SENTENCE_TRANSFORMERS, VLLM, Settings, missing
from counting import count_work, prompt_rows
from measure import Call
from processes import Contestant
from texts import Texts
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerFast

from checkpoints import Checkpoint
from onelogit.prompts.encoder import Encoder

FAR = 100_000  # where in the corpus, gone through again and again, the texts stand that only warm up


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much is asked.

    Attributes:
        documents: in a call, where nothing else is said.
        rounds: calls, each with other texts.
        checked: documents of which the causal model in float32 gives the truth.
        callers: at once.
        documents_a_caller: of each of them.
        growth: documents in a call, from few to many.
        peer_documents: most documents in a call that peers are asked for, too.
        lengths: of documents, in tokens.
        length_documents: in each of those calls.
    """

    documents: int = 48
    rounds: int = 5
    checked: int = 8
    callers: int = 16
    documents_a_caller: int = 5
    growth: tuple[int, ...] = (10, 30, 100, 300, 1000)
    peer_documents: int = 100
    lengths: tuple[int, ...] = (32, 64, 128, 256, 512, 1024)
    length_documents: int = 16


QUICK = Sizes(
    documents=6,
    rounds=2,
    checked=3,
    callers=3,
    documents_a_caller=2,
    growth=(2, 8),
    peer_documents=8,
    lengths=(16, 64),
    length_documents=3,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A run.

    Attributes:
        checkpoint: of the family that the shape belongs to.
        texts: one measurement of cold calls each; the largest corpus is used for everything else.
        peers: names of the contestants besides onelogit.
    """

    checkpoint: Checkpoint
    texts: Sequence[Texts]
    settings: Settings
    sizes: Sizes
    peers: Sequence[str] = (COMPILED, SENTENCE_TRANSFORMERS, CONVERTED, CARD, VLLM)
    _loaded: dict[tuple[str, str], Contestant] = field(default_factory=dict)

    @property
    def largest(self) -> Texts:
        """The texts with the most documents."""
        return max(self.texts, key=lambda each: len(each.corpus))

    def present(self, checkpoint: Checkpoint, names: Sequence[str]) -> list[str]:
        """Those that can take part; of the others it is said why not."""
        reasons = {name: missing(name, checkpoint, self.settings) for name in names}
        for name, reason in reasons.items():
            if reason is not None:
                print(f"  without {name}: {reason}")
        return [name for name, reason in reasons.items() if reason is None]

    def ready(self, checkpoint: Checkpoint, names: Sequence[str]) -> list[Contestant]:
        """Those that can take part, loaded and warm; each is loaded once in a run."""
        return [self._ready(checkpoint, name) for name in self.present(checkpoint, names)]

    def contestants(self, checkpoint: Checkpoint) -> list[Contestant]:
        """onelogit, and the peers beside it."""
        return self.ready(checkpoint, [ONELOGIT, *self.peers])

    def tokenizer(self, checkpoint: Checkpoint) -> PreTrainedTokenizerFast:
        """The checkpoint's own."""
        return AutoTokenizer.from_pretrained(checkpoint.folder)

    def call(self, checkpoint: Checkpoint, query: str, documents: Sequence[str]) -> Call:
        """The call, with what it asks for."""
        rows = prompt_rows(self.tokenizer(checkpoint), checkpoint.recipe, query, documents)
        return Call(query, documents, count_work(rows, AutoConfig.from_pretrained(checkpoint.folder)))

    def calls(self, checkpoint: Checkpoint, texts: Texts, count: int, rounds: int) -> list[Call]:
        """Calls that share no text, so that nothing can be known from the one before."""
        return [
            self.call(checkpoint, texts.query(turn), texts.documents(turn * count, count)) for turn in range(rounds)
        ]

    def close(self) -> None:
        """End the contestants' processes."""
        for contestant in self._loaded.values():
            contestant.close()

    def _ready(self, checkpoint: Checkpoint, name: str) -> Contestant:
        key = (str(checkpoint.folder), name)
        if key not in self._loaded:
            self._loaded[key] = Contestant(name, checkpoint, self.settings)
            for documents in (8, 1):
                self._loaded[key].score("warm up", self.largest.documents(FAR, documents))
        return self._loaded[key]


def encoding(checkpoint: Checkpoint, calls: Sequence[Call], seconds: float) -> dict[str, Any]:
    """How long onelogit's tokenisation takes by itself, and as a share of a call's time in seconds."""
    recipe = checkpoint.recipe
    tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder)
    encoder = Encoder.for_recipe(recipe, tokenizer, {})
    encoder.rows([("warm up", "warm up")], recipe.default_instruction)
    taken = []
    for call in calls:
        start = time.perf_counter()
        encoder.rows([(call.query, document) for document in call.documents], recipe.default_instruction)
        taken.append(time.perf_counter() - start)
    median = statistics.median(taken)
    return {"seconds": median, "share_of_call": median / seconds}
