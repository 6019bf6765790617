"""The families' reference logits: the full causal model after the model card's prompt, without batching."""

import torch

from onelogit.prompts.layout import fill
from onelogit.prompts.template import compile_prompt
from onelogit.recipes.recipe import ReadOut, Recipe
from support.tiny import Tiny


def prompt_text(recipe: Recipe, query: str, document: str, instruction: str | None = None) -> str:
    instruction = recipe.default_instruction if instruction is None else instruction
    prompt = compile_prompt(recipe.chat_template, bool(instruction))
    return fill(prompt, {"query": query, "document": document, "instruction": instruction or ""})


def prompt_ids(tiny: Tiny, recipe: Recipe, query: str, document: str) -> list[int]:
    """The token ids as in the family's reference code; some families join separately tokenised segments."""

    def ids(text: str) -> list[int]:
        return tiny.tokenizer(text, add_special_tokens=False)["input_ids"]

    text = prompt_text(recipe, query, document)
    if recipe.family == "bge-reranker-v2-gemma":
        task = text[text.rindex("Given a query A") :]
        bos = tiny.tokenizer.bos_token_id
        return [bos, *ids(f"A: {query}"), *ids("\n"), *ids(f"B: {document}"), *ids("\n"), *ids(task)]
    if recipe.family == "followir":
        return tiny.tokenizer(text.removeprefix("<s>"))["input_ids"]  # which begins with a second one
    if recipe.family == "rankllama":
        return tiny.tokenizer(f"query: {query}", f"document: {document}")["input_ids"]
    if recipe.family == "mxbai-rerank-v2":
        prefix, suffix = text[: text.index("query: ")], text[text.rindex("<|im_end|>") :]
        task = text[text.rindex("You are a search") : text.rindex("<|im_end|>")]
        segments = [prefix, f"query: {query}", "\n", f"document: {document}", "\n", task, suffix]
        return [id for segment in segments for id in ids(segment)]
    return tiny.tokenizer(text)["input_ids"]


@torch.inference_mode()
def causal_logit(tiny: Tiny, read_out: ReadOut, ids: list[int]) -> float:
    """`scale * (logits[true] - logits[false])` after the last token, from the model with its full LM head."""
    logits = tiny.model(input_ids=torch.tensor([ids])).logits[0, -1].float()
    true, false = (_id(tiny, token) for token in (read_out.true, read_out.false))
    value = logits[true] if false is None else logits[true] - logits[false]
    return float(value) * read_out.scale


def _id(tiny: Tiny, token: int | str | None) -> int | None:
    return tiny.tokenizer.encode(token, add_special_tokens=False)[0] if isinstance(token, str) else token
