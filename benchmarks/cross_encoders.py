"""A model in a device's memory -> Sentence Transformers' cross-encoders around it: padded, and with its own unpadding.

They load a tiny stand-in from a folder, by which they are shown what kind of model it is, and get the model itself.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from device_clock import Call
from lineup import Absent, Entrant, Lineup
from shapes import SHAPES
from torch import nn

from checkpoints import declare, random_model


def with_logit_score(lineup: Lineup) -> Entrant:
    """The language model with its LogitScore, as published rerankers of this kind declare themselves."""
    from sentence_transformers import CrossEncoder  # noqa: PLC0415  seconds, and not for who does not measure it

    with tempfile.TemporaryDirectory() as folder:
        write_stand_in(Path(folder), lineup)
        encoder = CrossEncoder(folder, device=str(lineup.device))
    encoder[0].model = lineup.twin()
    return _of_cross_encoder(lineup, encoder)


def head_alone(lineup: Lineup, attention: str = "sdpa") -> Entrant:
    """The backbone, the last token's state, and one row: no product with the vocabulary."""
    from sentence_transformers import CrossEncoder  # noqa: PLC0415
    from sentence_transformers.base.modules import Dense  # noqa: PLC0415
    from sentence_transformers.sentence_transformer.modules import Pooling  # noqa: PLC0415

    model, width = lineup.twin(), lineup.shape.hidden
    model.set_attn_implementation(attention)
    backbone = _backbone(lineup)
    backbone.model = model.model
    row = lineup.head(model).weight.to(lineup.dtype)
    head = {"bias": False, "activation_function": nn.Identity(), "module_output_name": "scores"}
    modules = [backbone, Pooling(width, "lasttoken"), Dense(width, 1, init_weight=row, **head)]
    return _of_cross_encoder(lineup, CrossEncoder(modules=modules, device=str(lineup.device)))


def unpadded(lineup: Lineup) -> Entrant:
    """As its documentation says that padding is left out: by flash_attention_2, with a backbone alone.

    Where the head is transformers' own, of a language model or a classifier, it always pads.

    Source: sentence_transformers 6.2, base/modules/transformer.py, `Transformer._can_flatten_inputs`.
    """
    entrant = head_alone(lineup, "flash_attention_2")
    backbone: Any = entrant.model[0]
    backbone.unpad_inputs = True
    if not backbone.can_flatten_inputs:
        raise Absent("this Sentence Transformers pads here, in spite of unpad_inputs=True")
    return entrant


def _backbone(lineup: Lineup) -> Any:
    from sentence_transformers.base.modules import Transformer  # noqa: PLC0415

    forward = {"method": "forward", "method_output_name": "last_hidden_state"}
    with tempfile.TemporaryDirectory() as folder:
        write_stand_in(Path(folder), lineup)
        return Transformer(
            folder,
            modality_config={"text": forward, "message": {**forward, "format": "flat"}},
            module_output_name="token_embeddings",
            processing_kwargs={"chat_template": {"add_generation_prompt": True}},
        )


def write_stand_in(folder: Path, lineup: Lineup) -> None:
    """A tiny model that says of itself what the large one would; its module then gets the large one instead."""
    random_model(SHAPES["tiny"], 1, is_tied=True).save_pretrained(folder)
    lineup.tokenizer.save_pretrained(folder)
    declare(folder, lineup.shape.family)


def _of_cross_encoder(lineup: Lineup, encoder: Any) -> Entrant:
    prompt, batch = lineup.recipe.default_instruction, lineup.peer_batch

    def score(query: str, documents: Sequence[str]) -> list[float]:
        pairs = [(query, document) for document in documents]
        options = {"prompt": prompt, "batch_size": batch, "show_progress_bar": False}
        return encoder.predict(pairs, activation_fn=nn.Identity(), **options).tolist()

    def tokenised(query: str, documents: Sequence[str]) -> Call:
        order = sorted(range(len(documents)), key=lambda place: -len(documents[place]))  # longest first, as `predict`
        pairs = [(query, documents[place]) for place in order]
        batches = [
            encoder.preprocess(pairs[start : start + batch], prompt=prompt) for start in range(0, len(pairs), batch)
        ]
        _check_rows(batches, lineup.rows(query, [documents[place] for place in order]))
        return lambda: _in_order(_scores(encoder, batches, lineup.device), order)

    return Entrant(score, tokenised, encoder.eval())


def _check_rows(batches: Sequence[dict[str, Any]], rows: Sequence[Sequence[int]]) -> None:
    """That a peer computes what everyone does: its batches, padding aside, are these rows."""
    read = []
    for batch in batches:
        ids, mask = batch["input_ids"], batch.get("attention_mask")
        read += (ids.flatten() if mask is None else ids[mask.bool()]).tolist()
    if read != [id for row in rows for id in row]:
        raise RuntimeError("Sentence Transformers reads other tokens than the chat template gives")


@torch.inference_mode()
def _scores(encoder: Any, batches: Sequence[dict[str, Any]], device: torch.device) -> list[float]:
    scores = []
    for batch in batches:
        near = {name: each.to(device) if isinstance(each, torch.Tensor) else each for name, each in batch.items()}
        scores.append(encoder(near)["scores"].float().flatten())
    return torch.cat(scores).tolist()


def _in_order(scores: Sequence[float], order: Sequence[int]) -> list[float]:
    return [score for _, score in sorted(zip(order, scores, strict=True))]
