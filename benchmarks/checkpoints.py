"""Random weights in a real model's shape -> a folder with the same metadata as the family's published models.

Speed and memory do not depend on the values of weights, so nothing has to be downloaded. The tokenizer is onelogit's
small one unless a folder with a real one is named.

    python benchmarks/checkpoints.py --shape qwen3-0.6b --layers 8 --tokenizer DIR --output DIR
"""

import argparse
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from shapes import SHAPES, Shape, changed
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from onelogit import DEMO_MODEL, Recipe, Reranker
from onelogit.recipes.families import FAMILIES

# With the usual 0.02, attention over random weights would treat all tokens, and so all documents, alike: logits would
# hardly differ, and an error in a prompt would go unnoticed.
QUERY_KEY_STD = 0.08


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomCheckpoint:
    """A language model with random weights in a folder, as its family publishes it.

    The family's recipe has its answers as token ids; an encoder has none. All targets compute in the named dtype.
    """

    folder: Path
    recipe: Recipe | None
    dtype: str = "bfloat16"

    @property
    def converted(self) -> Path:
        """The folder of the one-logit classifier made of it, which the first access writes."""
        folder = self.folder.with_name(f"{self.folder.name}-converted")
        if not folder.exists():
            with Reranker.load(self.folder, device="cpu", recipe=self.recipe) as reranker:
                reranker.save(folder)
        return folder


def write_checkpoint(
    folder: Path, shape: Shape, *, layers: int | None = None, tokenizer: Path | None = None, is_tied: bool = True
) -> RandomCheckpoint:
    """Write the language model, in bfloat16, with its metadata.

    Args:
        folder: a new or empty one.
        shape: of `SHAPES`.
        layers: None for the number of the shape.
        tokenizer: a folder with a tokenizer; None for onelogit's small one.
        is_tied: whether the embeddings are also the language-model head.
    """
    layers = shape.config.num_hidden_layers if layers is None else layers
    model = random_model(changed(shape.config, num_hidden_layers=layers, tie_word_embeddings=is_tied))
    model.save_pretrained(folder, max_shard_size="1GB")
    AutoTokenizer.from_pretrained(DEMO_MODEL if tokenizer is None else tokenizer).save_pretrained(folder)
    return add_metadata(folder, shape.family)


def write_encoder(
    folder: Path, shape: Shape, *, layers: int | None = None, tokenizer: Path | None = None
) -> RandomCheckpoint:
    """Write a cross-encoder of one of `ENCODER_SHAPES`, in bfloat16; the arguments are those of `write_checkpoint`."""
    given = AutoTokenizer.from_pretrained(DEMO_MODEL if tokenizer is None else tokenizer)
    joining = pair_tokenizer(given)
    layers = shape.config.num_hidden_layers if layers is None else layers
    torch.manual_seed(0)
    config = changed(shape.config, num_hidden_layers=layers, vocab_size=len(joining))
    AutoModelForSequenceClassification.from_config(config).to(torch.bfloat16).save_pretrained(folder)
    joining.save_pretrained(folder)
    return RandomCheckpoint(folder=folder, recipe=None)


def pair_tokenizer(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The tokenizer, but joining pairs as XLM-RoBERTa's does: `<s> query </s></s> document </s>`."""
    backend = tokenizer.backend_tokenizer
    backend.add_special_tokens(["<s>", "</s>"])
    backend.post_processor = TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[(token, backend.token_to_id(token)) for token in ("<s>", "</s>")],
    )
    special = {"pad_token": tokenizer.pad_token or tokenizer.eos_token, "cls_token": "<s>", "sep_token": "</s>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, model_input_names=["input_ids", "attention_mask"], **special
    )


def random_model(config: PretrainedConfig, device: str = "cpu") -> PreTrainedModel:
    """A model with weights from a fixed seed, created on the device; a type of device always gets the same ones."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    model.to(torch.bfloat16).to_empty(device=device)
    model = model.eval()
    torch.manual_seed(0)
    for name, weight in model.named_parameters():
        if name.endswith("norm.weight"):
            weight.data.fill_(1)
        else:
            weight.data.normal_(0, QUERY_KEY_STD if "q_proj" in name or "k_proj" in name else 0.02)
    model.tie_weights()
    model.model.rotary_emb = type(model.model.rotary_emb)(config).to(device)  # its buffers are empty after "meta"
    return model


def add_metadata(folder: Path, family: str) -> RandomCheckpoint:
    """Add a family's metadata to a folder: those of onelogit's small model with other answers, prompts and template."""
    checkpoint = open_checkpoint(folder, family)
    recipe = checkpoint.recipe
    prompts = {"query": recipe.default_instruction} if recipe.default_instruction else {}
    changes: dict[str, dict[str, object]] = {
        "1_LogitScore/config.json": {"true_token_id": recipe.read_out.true, "false_token_id": recipe.read_out.false},
        "config_sentence_transformers.json": {
            "activation_fn": "torch.nn.modules.linear.Identity",
            "prompts": prompts,
            "default_prompt_name": "query" if prompts else None,
        },
    }
    for name in ("modules.json", "sentence_bert_config.json"):
        shutil.copy(Path(DEMO_MODEL, name), folder)
    (folder / "1_LogitScore").mkdir(exist_ok=True)
    for name, changed_fields in changes.items():
        fields = json.loads(Path(DEMO_MODEL, name).read_text(encoding="utf-8")) | changed_fields
        (folder / name).write_text(json.dumps(fields, indent=2), encoding="utf-8")
    (folder / "chat_template.jinja").write_text(recipe.chat_template, encoding="utf-8")
    return checkpoint


def open_checkpoint(folder: Path, family: str, dtype: str = "bfloat16") -> RandomCheckpoint:
    """A checkpoint that was written before."""
    recipe = recipe_with_ids(AutoTokenizer.from_pretrained(folder), family)
    return RandomCheckpoint(folder=folder, recipe=recipe, dtype=dtype)


def recipe_with_ids(tokenizer: PreTrainedTokenizerFast, family: str) -> Recipe:
    """A family's recipe. If a small tokenizer splits an answer, its first token is used."""
    recipe = next(recipe for recipe in FAMILIES if recipe.family == family)
    true, false = (
        tokenizer.encode(answer, add_special_tokens=False)[0] if isinstance(answer, str) else answer
        for answer in (recipe.read_out.true, recipe.read_out.false)
    )
    return replace(recipe, read_out=replace(recipe.read_out, true=true, false=false))


def sibling(checkpoint: RandomCheckpoint, family: str) -> RandomCheckpoint:
    """The same weights, linked instead of copied, with another family's metadata."""
    folder = checkpoint.folder.with_name(f"{checkpoint.folder.name}-{family}")
    if folder.exists():
        return open_checkpoint(folder, family, checkpoint.dtype)
    folder.mkdir()
    for file in checkpoint.folder.iterdir():
        if file.suffix == ".safetensors":
            (folder / file.name).symlink_to(file.resolve())
        elif file.is_file():
            (folder / file.name).write_bytes(file.read_bytes())
    return replace(add_metadata(folder, family), dtype=checkpoint.dtype)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="qwen3-0.6b")
    parser.add_argument("--layers", type=int)
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    checkpoint = write_checkpoint(
        options.output, SHAPES[options.shape], layers=options.layers, tokenizer=options.tokenizer
    )
    print(f"language model: {checkpoint.folder}\nclassifier:     {checkpoint.converted}")


if __name__ == "__main__":
    main()
