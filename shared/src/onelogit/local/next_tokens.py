"""A prompt's row and the whole language-model head -> the likeliest next tokens. A diagnostic; never a relevance."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from tokenizers import Tokenizer
from transformers import PreTrainedModel

from onelogit.checkpoints.head_weights import WholeHead
from onelogit.engine.forward import padded_hidden
from onelogit.prompts.prompt import AnswerToken
from onelogit.prompts.token_rows import TokenRow
from onelogit.prompts.tokenizer import token_text

logger = logging.getLogger(__name__)

SAMPLE_QUERY, SAMPLE_DOCUMENT = "What is the capital of China?", "The capital of China is Beijing."

_LEAST_ANSWER_SHARE = 0.1  # a model asked with the prompt of its training gives nearly all to its answers


class NextToken(NamedTuple):
    """A token that may follow a prompt, with its probability among all tokens, from 0 to 1."""

    text: str
    id: int
    probability: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NextTokens:
    """What a language model would write after a prompt. These probabilities say nothing about relevance.

    Attributes:
        tokens: the likeliest, in descending order.
        answers: the tokens that the logit is read from.
        answer_share: the sum of their probabilities, from 0 to 1. The model was trained to write one of them, so it is
            near 1 after the prompt of its training.
    """

    tokens: tuple[NextToken, ...]
    answers: tuple[AnswerToken, ...]
    answer_share: float

    @property
    def is_prompt_doubtful(self) -> bool:
        """Whether the answers are so unlikely that this is probably not the prompt of the model's training."""
        return self.answer_share < _LEAST_ANSWER_SHARE

    def __str__(self) -> str:
        """The share and the likeliest tokens, in words."""
        answers = " and ".join(repr(answer.text) for answer in self.answers)
        likeliest = ", ".join(f"{token.text!r} {token.probability:.2f}" for token in self.tokens[:3])
        have = "have" if len(self.answers) > 1 else "has"
        return f"{answers} {have} a share of {self.answer_share:.2g} in the next token; the likeliest are {likeliest}"

    def to_json(self) -> dict[str, Any]:
        """All attributes, as data for JSON; `answers` are in the prompt's."""
        tokens = [token._asdict() for token in self.tokens]
        return {
            "next_tokens": tokens,
            "answer_share": self.answer_share,
            "is_prompt_doubtful": self.is_prompt_doubtful,
        }


def warn_if_doubtful(found: NextTokens, model: str) -> None:
    """Log a warning if a model would hardly give one of its answers to the sample prompt."""
    if found.is_prompt_doubtful:
        logger.warning(
            "%s: the recipe's prompt is probably not the one that the model was trained on: after a sample prompt, %s. "
            "To see it, use reranker.prompt(query, document), or the command: onelogit prompt",
            model,
            found,
        )


def find_next_tokens(
    classifier: PreTrainedModel,
    head: WholeHead,
    backend: Tokenizer,
    row: TokenRow,
    answers: Sequence[AnswerToken],
    count: int,
) -> NextTokens:
    """The likeliest tokens after a prompt.

    Args:
        classifier: with the backbone of the head.
        head: of the language model.
        backend: gives the texts of tokens.
        row: the prompt.
        answers: of the recipe.
        count: how many tokens to return, if there are so many.

    Raises:
        CheckpointError: the head can no longer be read.
    """
    hidden = padded_hidden(classifier, [row])[0].float().cpu()
    probabilities = head.logits(hidden).softmax(dim=0)
    likeliest = torch.topk(probabilities, min(count, len(probabilities)))
    pairs = zip(likeliest.indices.tolist(), likeliest.values.tolist(), strict=True)
    return NextTokens(
        tokens=tuple(NextToken(token_text(id, backend), id, probability) for id, probability in pairs),
        answers=tuple(answers),
        answer_share=float(probabilities[[answer.id for answer in answers]].sum()),
    )
