"""Several answer tokens -> a classifier with one label for each, as from vLLM's conversion script; not a reranker."""

from pathlib import Path

from onelogit.checkpoints.card import read_licence
from onelogit.checkpoints.head_weights import read_head_rows
from onelogit.checkpoints.hub import ADAPTER_CONFIG, commit_of, find_folder, read_texts, tensor_shapes
from onelogit.checkpoints.loader import load_config, load_tokenizer, pad_token_id
from onelogit.checkpoints.metadata import parse_json
from onelogit.checkpoints.untrusted_files import check_tensors
from onelogit.checkpoints.weights import load_model
from onelogit.conversion.classifier import sequence_classifier
from onelogit.conversion.head import Float32Head
from onelogit.errors import UnsupportedModelError
from onelogit.export.exporter import ExportContents, export
from onelogit.options import LoadOptions
from onelogit.prompts.tokenizer import token_id
from onelogit.recipes.recipe import DEFAULT_MAX_TOKENS, Recipe


def save_labels(
    model: str, tokens: list[str | int], folder: Path, options: LoadOptions, *, is_overwriting: bool = False
) -> None:
    """Write a classifier whose logits are the logits of the given tokens, in their order.

    Args:
        model: hub id or path of a causal model.
        tokens: texts of one token each, or ids; at least two.
        folder: as in `export`.
        options: of loading, such as device and dtype; those of a recipe are ignored.
        is_overwriting: as in `export`.

    Raises:
        RecipeError: a text is not one token, or an id is outside the vocabulary.
        CheckpointError: the model is not found or damaged, or the folder cannot be written.
        UnsupportedModelError: the model is quantised, or transformers has no sequence classifier for its architecture.
    """
    source = find_folder(model, options, with_weights=True)
    if (source / ADAPTER_CONFIG).is_file() and not (source / "config.json").is_file():
        raise UnsupportedModelError(
            f"{model!r} is a PEFT adapter, which is merged only into rerankers; for several labels, merge it with "
            "`merge_and_unload()` of peft, save the result with the tokenizer, and name that folder"
        )
    texts = read_texts(source)
    check_tensors(parse_json(texts, "config.json"), tensor_shapes(source), source)
    config = load_config(source, options)
    tokenizer = load_tokenizer(source, options)
    backend = tokenizer.backend_tokenizer
    ids = [token_id(token, backend, tokenizer.unk_token) for token in tokens]
    rows = read_head_rows(source, ids, is_tied=bool(config.tie_word_embeddings))
    head = Float32Head(rows.weight.float(), None if rows.bias is None else rows.bias.float())
    backbone = load_model(source, config, options, is_backbone=True)
    classifier = sequence_classifier(backbone, head, pad_token_id(tokenizer, config))
    classifier.config.id2label = {index: str(token) for index, token in enumerate(tokens)}
    classifier.config.label2id = {str(token): index for index, token in enumerate(tokens)}
    recipe = Recipe(
        family="several labels",
        chat_template=None,
        read_out=None,
        licence=read_licence(texts),
        source="tokens named by the caller",
    )
    limit = getattr(config, "max_position_embeddings", DEFAULT_MAX_TOKENS)
    contents = ExportContents(
        classifier=classifier,
        tokenizer=tokenizer,
        recipe=recipe,
        source=model,
        source_folder=source,
        max_tokens=limit,
        probes=[],
        commit=commit_of(source),
    )
    export(contents, folder, is_overwriting=is_overwriting)
