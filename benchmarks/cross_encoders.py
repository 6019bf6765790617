"""A model in a device's memory -> Sentence Transformers' cross-encoders that compute with it, padded and unpadded.

They load a tiny stand-in from a folder, whose metadata tell the kind of model, and then get the model itself.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from gpu_targets import GpuTarget, SharedModel, TargetUnavailable
from shapes import SHAPES, changed
from timing import Compute
from torch import nn

from checkpoints import add_metadata, random_model


def with_logit_score(shared: SharedModel) -> GpuTarget:
    """The language model with a LogitScore, as such rerankers are published."""
    from sentence_transformers import CrossEncoder  # noqa: PLC0415  slow, and not needed for other targets

    with tempfile.TemporaryDirectory() as folder:
        _write_stand_in(Path(folder), shared)
        encoder = CrossEncoder(folder, device=str(shared.device))
    encoder[0].model = shared.copy()
    return _target(shared, encoder)


def head_alone(shared: SharedModel, attention: str = "sdpa") -> GpuTarget:
    """The backbone, the last token's hidden state and the one-logit head: no product with the vocabulary."""
    from sentence_transformers import CrossEncoder  # noqa: PLC0415  as above
    from sentence_transformers.base.modules import Dense, Transformer  # noqa: PLC0415
    from sentence_transformers.sentence_transformer.modules import Pooling  # noqa: PLC0415

    model, width = shared.copy(), shared.config.hidden_size
    model.set_attn_implementation(attention)
    forward = {"method": "forward", "method_output_name": "last_hidden_state"}
    with tempfile.TemporaryDirectory() as folder:
        _write_stand_in(Path(folder), shared)
        backbone = Transformer(
            folder,
            modality_config={"text": forward, "message": {**forward, "format": "flat"}},
            module_output_name="token_embeddings",
            processing_kwargs={"chat_template": {"add_generation_prompt": True}},
        )
    backbone.model = model.model
    weight = shared.head(model).weight.to(shared.dtype)
    head = {"bias": False, "activation_function": nn.Identity(), "module_output_name": "scores"}
    modules = [backbone, Pooling(width, "lasttoken"), Dense(width, 1, init_weight=weight, **head)]
    return _target(shared, CrossEncoder(modules=modules, device=str(shared.device)))


def unpadded(shared: SharedModel) -> GpuTarget:
    """Without padding, as its documentation shows: by flash_attention_2, with the backbone alone.

    With a head of transformers, of a language model or a classifier, it always pads.

    Source: sentence_transformers 6.2, base/modules/transformer.py, `Transformer._can_flatten_inputs`.
    """
    target = head_alone(shared, "flash_attention_2")
    backbone: Any = target.model[0]
    backbone.unpad_inputs = True
    if not backbone.can_flatten_inputs:
        raise TargetUnavailable("this version of Sentence Transformers pads here, despite unpad_inputs=True")
    return target


def _write_stand_in(folder: Path, shared: SharedModel) -> None:
    """Write a tiny model with the metadata of the large one, which replaces it after loading."""
    random_model(changed(SHAPES["tiny"].config, num_hidden_layers=1)).save_pretrained(folder)
    shared.tokenizer.save_pretrained(folder)
    add_metadata(folder, shared.family)


def _target(shared: SharedModel, encoder: Any) -> GpuTarget:
    prompt, size = shared.recipe.default_instruction, shared.peer_batch

    def score(query: str, documents: Sequence[str]) -> list[float]:
        pairs = [(query, document) for document in documents]
        options = {"prompt": prompt, "batch_size": size, "show_progress_bar": False}
        return encoder.predict(pairs, activation_fn=nn.Identity(), **options).tolist()

    def tokenize(query: str, documents: Sequence[str]) -> Compute:
        order = sorted(range(len(documents)), key=lambda index: -len(documents[index]))  # longest first, as `predict`
        pairs = [(query, documents[index]) for index in order]
        batches = [
            encoder.preprocess(pairs[start : start + size], prompt=prompt) for start in range(0, len(pairs), size)
        ]
        _check_rows(batches, shared.rows(query, [documents[index] for index in order]))

        def compute() -> list[float]:
            scores = _scores(encoder, batches, shared.device)
            return [score for _, score in sorted(zip(order, scores, strict=True))]

        return compute

    return GpuTarget(score, tokenize, encoder.eval())


def _check_rows(batches: Sequence[dict[str, Any]], rows: Sequence[Sequence[int]]) -> None:
    """Check that the batches have the same token ids as all targets' rows, apart from padding."""
    ids = []
    for batch in batches:
        mask = batch.get("attention_mask")
        ids += (batch["input_ids"].flatten() if mask is None else batch["input_ids"][mask.bool()]).tolist()
    if ids != [id for row in rows for id in row]:
        raise RuntimeError("Sentence Transformers' token ids differ from those of the chat template")


@torch.inference_mode()
def _scores(encoder: Any, batches: Sequence[dict[str, Any]], device: torch.device) -> list[float]:
    scores = []
    for batch in batches:
        on_device = {name: each.to(device) if isinstance(each, torch.Tensor) else each for name, each in batch.items()}
        scores.append(encoder(on_device)["scores"].float().flatten())
    return torch.cat(scores).tolist()
