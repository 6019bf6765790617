"""A tokenizer, a recipe and the number of embeddings -> an error if prompts need ids that the model has not."""

from collections.abc import Iterable

from transformers import PretrainedConfig, PreTrainedTokenizerFast

from onelogit.errors import CheckpointError, RecipeError
from onelogit.prompts.template import compile_prompt, takes_instruction
from onelogit.recipes.recipe import Recipe


def vocabulary_size(config: PretrainedConfig) -> int | None:
    """The number of embeddings; None if the configuration does not name it."""
    size = getattr(config.get_text_config(), "vocab_size", None)
    return size if isinstance(size, int) else None


def check_vocabulary(
    tokenizer: PreTrainedTokenizerFast, recipe: Recipe, config: PretrainedConfig, *, uses_added_tokens: bool
) -> None:
    """Check that the model has an embedding for each id of a prompt, and a token for each answer.

    More embeddings than tokens are usual, as padding. Added tokens beyond the embeddings are no fault if neither the
    prompt nor a text can contain them.

    Args:
        tokenizer: the checkpoint's own.
        recipe: with token ids.
        config: of the checkpoint.
        uses_added_tokens: whether texts may contain all added tokens.

    Raises:
        CheckpointError: the tokenizer has ids that the model has not.
        RecipeError: an answer's id is not a token.
    """
    vocabulary, size = tokenizer.get_vocab(), vocabulary_size(config)
    answers, count = _answers(recipe), 1 + max(vocabulary.values())
    if outside := [answer for answer in answers if not 0 <= answer < count]:
        raise RecipeError(f"the token id {outside[0]} is outside the vocabulary of {count} tokens")
    if size is None or count <= size:
        return
    added = {} if uses_added_tokens else tokenizer.get_added_vocab()
    in_texts = (id for token, id in vocabulary.items() if token not in added)
    _check_ids(answers, size, tokenizer, "an answer")
    _check_ids(in_texts, size, tokenizer, "a text")
    _check_ids(_constant_ids(tokenizer, recipe), size, tokenizer, "the prompt")


def _answers(recipe: Recipe) -> list[int]:
    ids = () if recipe.read_out is None else (recipe.read_out.true, recipe.read_out.false)
    return [id for id in ids if isinstance(id, int)]


def _constant_ids(tokenizer: PreTrainedTokenizerFast, recipe: Recipe) -> list[int]:
    """The ids of a prompt without its texts, with the special tokens that the tokenizer adds."""
    if recipe.chat_template is None:
        return list(tokenizer("", "")["input_ids"])
    parts = compile_prompt(recipe.chat_template, takes_instruction(recipe.chat_template))
    ids = [id for part in parts for id in tokenizer(part.text, add_special_tokens=False)["input_ids"]]
    return [*(tokenizer("")["input_ids"] if recipe.adds_special_tokens else []), *ids]


def _check_ids(ids: Iterable[int], size: int, tokenizer: PreTrainedTokenizerFast, where: str) -> None:
    largest = max(ids, default=0)
    if largest >= size:
        token = tokenizer.convert_ids_to_tokens(largest)
        raise CheckpointError(
            f"the tokenizer does not fit the model: {where} may have the id {largest} ({token!r}), but the model has "
            f"embeddings for {size} ids; use the tokenizer that the model was trained with"
        )
