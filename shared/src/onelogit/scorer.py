"""Scorer: pairs of texts -> logits; encode and forward in one step, with what they share."""

import logging
from collections.abc import Sequence

from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from onelogit.convert import position_limit
from onelogit.document_cache import DocumentCache
from onelogit.encode import Encoder, Rows
from onelogit.errors import InputError, OnelogitError
from onelogit.forward import Forward, token_rows
from onelogit.inputs import check_text, checked_count, checked_max_tokens
from onelogit.recipes import Recipe
from onelogit.scores import check_logits

logger = logging.getLogger(__name__)


class Scorer:
    """A classifier with what writes its prompts. Safe to share between threads.

    Args:
        classifier: a one-logit sequence classifier.
        tokenizer: with a fast backend; it is not changed.
        recipe: the prompt.
        instruction: replaces the recipe's default instruction; "" for none.
        max_tokens: longest prompt; None for the recipe's, or the model's where that is shorter.
        batch_tokens: most tokens in one forward pass; None for as many as the free memory allows.
        document_cache_bytes: of keys and values kept between calls; 0 for none.
        document_cache_host_bytes: of those that no longer fit the device, in the CPU's memory; 0 for none.
        allow_control_tokens: read control tokens spelled out in a text as such.

    Raises:
        InputError: a limit out of its range, or an instruction for a family that takes none.
        RecipeError: the recipe does not fit the tokenizer.
    """

    def __init__(
        self,
        classifier: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        recipe: Recipe,
        *,
        instruction: str | None,
        max_tokens: int | None,
        batch_tokens: int | None,
        document_cache_bytes: int,
        document_cache_host_bytes: int,
        allow_control_tokens: bool,
    ) -> None:
        self.tokenizer = tokenizer
        self.max_tokens = checked_max_tokens(max_tokens, recipe, position_limit(classifier))
        self.device = str(classifier.device)
        self._family = recipe.family
        self._encoder = Encoder(
            tokenizer,
            recipe.chat_template,
            self.max_tokens,
            adds_special_tokens=recipe.adds_special_tokens,
            allow_control_tokens=allow_control_tokens,
        )
        instruction = recipe.default_instruction if instruction is None else instruction
        self.instruction = None if instruction is None else self._checked(instruction)
        cache = DocumentCache(document_cache_bytes, document_cache_host_bytes) if document_cache_bytes else None
        self._forward: Forward | None = Forward(classifier, checked_count("batch_tokens", batch_tokens), cache)

    @property
    def classifier(self) -> PreTrainedModel:
        """The classifier.

        Raises:
            OnelogitError: it was let go.
        """
        return self._open_forward().classifier

    @property
    def is_closed(self) -> bool:
        """Whether the classifier was let go."""
        return self._forward is None

    def close(self) -> None:
        """Let go of the classifier."""
        self._forward = None

    def rows(self, pairs: Sequence[tuple[str, str]], instruction: str | None = None) -> Rows:
        """The rows of token ids that the classifier reads.

        Args:
            pairs: queries and documents, as `inputs.checked_pairs` lets them through.
            instruction: None for the scorer's own, "" for none.

        Raises:
            InputError: a query leaves no room for a document, or the family takes no instruction.
        """
        return self._encoder.rows(pairs, self.instruction if instruction is None else self._checked(instruction))

    def logits(
        self, pairs: Sequence[tuple[str, str]], instruction: str | None = None, *, progress: bool = False
    ) -> list[float]:
        """The logit of each pair, in the given order.

        Raises:
            InputError: as `rows`.
            LogitError: the model gave NaN or an infinite number.
        """
        forward = self._open_forward()
        rows = self.rows(pairs, instruction)
        if rows.truncated_count:
            cut = "%d of %d documents were cut at their end to fit max_tokens=%d"
            logger.warning(cut, rows.truncated_count, len(pairs), self.max_tokens)
        with tqdm(total=len(pairs), desc="reranking", unit="pair", disable=not progress) as bar:
            logits = forward.logits(token_rows(rows), bar.update)
        check_logits(logits)
        return logits

    def _open_forward(self) -> Forward:
        if self._forward is None:
            raise OnelogitError("this reranker is closed; load it again")
        return self._forward

    def _checked(self, instruction: str) -> str:
        check_text(instruction, "the instruction")
        if instruction and not self._encoder.takes_instruction():
            raise InputError(f"the family {self._family} takes no instruction, but got {instruction!r}")
        return instruction
