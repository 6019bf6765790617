"""A prompt in spans, and the same prompt as a whole -> an error if the tokenizer gives them other ids."""

from collections.abc import Callable, Sequence
from itertools import takewhile

from tokenizers import Tokenizer

from onelogit.errors import RecipeError
from onelogit.prompts.layout import SEAM, Values, fill
from onelogit.prompts.prompt import adds_tokens_to
from onelogit.prompts.template import compile_prompt, takes_instruction
from onelogit.recipes.recipe import Recipe

# Their tokens depend on the text around them.
SAMPLES: tuple[Values, ...] = (
    {"query": "What is it?", "document": "It is 1.\n\nTwo.", "instruction": "Say."},
    {"query": " \n", "document": "\n ", "instruction": "\r\n"},
    {"query": "\u0301'", "document": "\u0338s\u0301", "instruction": "\u0301e"},
    {"query": "", "document": "", "instruction": ""},
)


def check_spans(recipe: Recipe, backend: Tokenizer, bos: str, ids_of: Callable[[Values], Sequence[int]]) -> None:
    """Check for one prompt that its spans give the ids of the whole prompt.

    Args:
        recipe: of the prompt.
        backend: without limits.
        bos: the tokenizer's BOS token; "" for none.
        ids_of: the ids of a prompt that is tokenised in spans.

    Raises:
        RecipeError: they do not.
    """
    values = SAMPLES[0]
    if recipe.chat_template is None:
        whole = backend.encode(values["query"], values["document"]).ids
    else:
        prompt = compile_prompt(recipe.chat_template, takes_instruction(recipe.chat_template))
        if SEAM in prompt:
            return  # the reference code does not tokenise a prompt with seams as a whole either
        text = fill(prompt, values)
        whole = backend.encode(text, add_special_tokens=adds_tokens_to(text, recipe, bos)).ids
    ids = [*ids_of(values)]
    if ids != whole:
        equal = [*takewhile(lambda pair: pair[0] == pair[1], zip(ids, whole, strict=False))]
        start, stop = len(equal), len(equal) + 8
        raise RecipeError(
            "this tokenizer gives other ids for a prompt that is cut at its control tokens: "
            f"from token {start + 1} on, {ids[start:stop]}, not {whole[start:stop]}"
        )
