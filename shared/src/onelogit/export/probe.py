"""A server's answers to the prompts that an export carries -> nothing to say, or what is wrong with the server."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from onelogit.errors import CheckpointError, InputError, ServerError
from onelogit.prompts.encoder import Encoder
from onelogit.ranking import to_score

PROBE_FILE = "reranker_probe.json"

_UNINITIALISED = 1e4  # no trained head gives so much; a random one in vLLM was seen to give 1e22
_SIGMOID_TOLERANCE = 0.01


class ProbeFile(NamedTuple):
    """What an export says about itself.

    Attributes:
        instruction: of its prompts; None for none.
        tolerance: by how much a sane server's logits may differ.
        pairs: query and document of each prompt.
        rows: the prompts' token ids.
        logits: what they must give.
    """

    instruction: str | None
    tolerance: float
    pairs: list[tuple[str, str]]
    rows: list[list[int]]
    logits: list[float]


def read_probe(texts: Mapping[str, str], folder: object) -> ProbeFile:
    """The probe of an exported folder.

    Args:
        texts: the folder's small files.
        folder: to be named.

    Raises:
        InputError: the folder has none.
        CheckpointError: it is damaged.
    """
    if PROBE_FILE not in texts:
        raise InputError(
            f"{folder} has no {PROBE_FILE}: name the folder that `onelogit convert` wrote, which the server serves"
        )
    try:
        content = json.loads(texts[PROBE_FILE])
        prompts = content["prompts"]
        return ProbeFile(
            content["instruction"],
            float(content["tolerance"]),
            [(each["query"], each["document"]) for each in prompts],
            [each["token_ids"] for each in prompts],
            [float(each["logit"]) for each in prompts],
        )
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{PROBE_FILE} in {folder} is damaged: {error!r}") from error


def without_truncated(probe: ProbeFile, max_tokens: int) -> ProbeFile:
    """Those of its prompts that are not cut.

    Raises:
        InputError: there are none.
    """
    kept = [place for place, row in enumerate(probe.rows) if len(row) <= max_tokens]
    if not kept:
        shortest = min(map(len, probe.rows))
        raise InputError(
            f"max_tokens={max_tokens} cuts all prompts of {PROBE_FILE}; the shortest has {shortest} tokens"
        )
    return probe._replace(
        pairs=[probe.pairs[place] for place in kept],
        rows=[probe.rows[place] for place in kept],
        logits=[probe.logits[place] for place in kept],
    )


def largest_difference(probe: ProbeFile, answered: Sequence[float]) -> float:
    """Between what the server answered and what it must answer."""
    return max(abs(mine - theirs) for mine, theirs in zip(probe.logits, answered, strict=True))


def wrong_prompts(probe: ProbeFile, bos_id: int | None, plain: Sequence[list[int]]) -> dict[str, list[list[int]]]:
    """What a server that writes its prompts wrongly would read, by what is wrong then."""
    wrong = {"it writes no prompt around query and document: serve the model's chat template": [*plain]}
    if bos_id is not None:
        wrong["it puts a second BOS token before the prompt: set use_sep_token to false in the config"] = [
            [bos_id, *row] for row in probe.rows
        ]
    return wrong


def long_pairs(probe: ProbeFile, encoder: Encoder) -> list[tuple[str, str]]:
    """Pairs that nearly fill the longest prompt, and whose documents differ at their ends alone."""
    query, words = probe.pairs[0][0], encoder.max_tokens
    ends = [document for _, document in probe.pairs]
    while words:
        pairs = [(query, f"{'word ' * words}{end}") for end in ends]
        rows = encoder.rows(pairs, probe.instruction)
        if len(rows) == len(pairs) and not any(row.is_truncated for row in rows):
            return pairs
        words = words * 7 // 8
    return []


def diagnose(probe: ProbeFile, answered: Sequence[float], wrong: Mapping[str, Sequence[float]]) -> ServerError:
    """The most likely reason why the answers are not the export's.

    Args:
        probe: what should have come.
        answered: what came.
        wrong: what the same server gives for wrong prompts, by what is wrong then; empty where it cannot be asked.
    """
    shown = ", ".join(f"{mine:.4g} for {theirs:.4g}" for mine, theirs in zip(answered, probe.logits, strict=True))
    return ServerError(f"the server gives {shown}: {_reason(probe, answered, wrong)}")


def _reason(probe: ProbeFile, answered: Sequence[float], wrong: Mapping[str, Sequence[float]]) -> str:
    sigmoids = [to_score(logit, "sigmoid") for logit in probe.logits]
    if _are_close(answered, sigmoids, _SIGMOID_TOLERANCE):
        return "these are sigmoids; its activation is on. Turn it off, or say raw_logits=False"
    if any(abs(each) > _UNINITIALISED for each in answered) or len(set(answered)) == 1 < len(answered):
        return "its head is not initialised. Serve the converted folder, not the original model"
    for reason, logits in wrong.items():
        if _are_close(answered, logits, probe.tolerance):
            return reason
    if all(-1.0 <= each <= 1.0 for each in answered):
        return "these may be cosines of embeddings. Serve the converted folder as a classifier (vLLM: --runner pooling)"
    return "it serves another model, or writes another prompt"


def _are_close(mine: Sequence[float], theirs: Sequence[float], tolerance: float) -> bool:
    return all(math.isclose(a, b, rel_tol=0.0, abs_tol=tolerance) for a, b in zip(mine, theirs, strict=True))
