"""A server's logits for the sample prompts of an export -> the most likely mistake in its setup, if they are wrong."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from onelogit.errors import CheckpointError, InputError, ServerError
from onelogit.io.nested_json import parsed_json
from onelogit.prompts.encoder import Encoder
from onelogit.ranking import to_score

PROBE_FILE = "reranker_probe.json"
PROBE_PAIRS = (
    ("What is the capital of China?", "The capital of China is Beijing."),
    ("What is the capital of China?", "Bananas are yellow."),
    ("대한민국의 수도는 어디인가?", "서울은 대한민국의 수도이다."),
)

_UNINITIALISED = 1e4  # above the logits of any trained head; a random head in vLLM gave 1e22
_SIGMOID_TOLERANCE = 0.01


class Probe(NamedTuple):
    """A prompt with its correct logit."""

    query: str
    document: str
    token_ids: Sequence[int]
    logit: float


class ProbeFile(NamedTuple):
    """The content of `reranker_probe.json`.

    Attributes:
        instruction: of the prompts, or None.
        tolerance: the largest difference from a correct server's logits.
    """

    instruction: str | None
    tolerance: float
    probes: list[Probe]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        return [(probe.query, probe.document) for probe in self.probes]

    @property
    def logits(self) -> list[float]:
        return [probe.logit for probe in self.probes]


def read_probe(texts: Mapping[str, str], folder: object) -> ProbeFile:
    """The probe of an exported folder, from the texts of its small files; error messages name the folder.

    Raises:
        InputError: the folder has no probe.
        CheckpointError: the probe is damaged.
    """
    if PROBE_FILE not in texts:
        raise InputError(
            f"{folder} has no {PROBE_FILE}; name the folder that `onelogit convert` wrote and that the server serves"
        )
    try:
        content = parsed_json(texts[PROBE_FILE])
        probes = [Probe(*(each[name] for name in Probe._fields)) for each in content["prompts"]]
        instruction, tolerance = content["instruction"], float(content["tolerance"])
        read = ProbeFile(instruction, tolerance, [each._replace(logit=float(each.logit)) for each in probes])
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise CheckpointError(f"{PROBE_FILE} in {folder} is damaged: {error!r}") from error
    if not _is_complete(read):
        raise CheckpointError(f"{PROBE_FILE} in {folder} is damaged; convert the model again")
    return read


def _is_complete(probe: ProbeFile) -> bool:
    """Whether there are prompts, and all values are of their types and finite."""
    texts = [text for each in probe.probes for text in (each.query, each.document)]
    rows = [each.token_ids for each in probe.probes]
    return (
        bool(probe.probes)
        and all(isinstance(text, str) for text in texts)
        and isinstance(probe.instruction, str | None)
        and all(isinstance(ids, list) and ids and all(type(id) is int for id in ids) for ids in rows)
        and all(math.isfinite(number) for number in (probe.tolerance, *probe.logits))
    )


def without_truncated(probe: ProbeFile, max_tokens: int) -> ProbeFile:
    """The probe without the prompts that have more than `max_tokens` tokens.

    Raises:
        InputError: no prompt is left.
    """
    kept = [each for each in probe.probes if len(each.token_ids) <= max_tokens]
    if not kept:
        shortest = min(len(each.token_ids) for each in probe.probes)
        raise InputError(
            f"max_tokens={max_tokens} truncates all prompts of {PROBE_FILE}; the shortest has {shortest} tokens"
        )
    return probe._replace(probes=kept)


def largest_difference(probe: ProbeFile, answered: Sequence[float]) -> float:
    """The largest absolute difference between the server's logits and the correct ones."""
    return max(abs(logit - answer) for logit, answer in zip(probe.logits, answered, strict=True))


def wrong_prompts(probe: ProbeFile, bos_id: int | None, plain: Sequence[list[int]]) -> dict[str, list[list[int]]]:
    """The rows that a server with a wrong prompt would read, by a description of the mistake."""
    wrong = {"the server writes no prompt around query and document; serve the model's chat template": [*plain]}
    if bos_id is not None:
        wrong["the server puts a second BOS token before the prompt; set use_sep_token to false in the config"] = [
            [bos_id, *each.token_ids] for each in probe.probes
        ]
    return wrong


def long_pairs(probe: ProbeFile, encoder: Encoder) -> list[tuple[str, str]]:
    """Pairs whose prompts have nearly `max_tokens` tokens, and whose documents differ only at their ends."""
    words = encoder.max_tokens
    while words:
        pairs = [(probe.probes[0].query, f"{'word ' * words}{each.document}") for each in probe.probes]
        rows = encoder.rows(pairs, probe.instruction)
        if len(rows) == len(pairs) and not any(row.is_truncated for row in rows):
            return pairs
        words = words * 7 // 8
    return []


def diagnose(probe: ProbeFile, answered: Sequence[float], wrong: Mapping[str, Sequence[float]]) -> ServerError:
    """An error with the most likely reason for a server's wrong logits.

    Args:
        probe: with the correct logits.
        answered: the server's logits.
        wrong: the server's logits for `wrong_prompts`, by description; empty if it does not accept token ids.
    """
    pairs = zip(answered, probe.logits, strict=True)
    shown = ", ".join(f"{answer:.4g} instead of {logit:.4g}" for answer, logit in pairs)
    return ServerError(f"the server's logits are wrong ({shown}): {_reason(probe, answered, wrong)}")


def _reason(probe: ProbeFile, answered: Sequence[float], wrong: Mapping[str, Sequence[float]]) -> str:
    sigmoids = [to_score(logit, "sigmoid") for logit in probe.logits]
    if _are_close(answered, sigmoids, _SIGMOID_TOLERANCE):
        return "they are sigmoids, so its activation is on. Turn it off, or pass raw_logits=False"
    if any(abs(each) > _UNINITIALISED for each in answered) or len(set(answered)) == 1 < len(answered):
        return "its head is not initialised. Serve the converted folder instead of the original model"
    for reason, logits in wrong.items():
        if _are_close(answered, logits, probe.tolerance):
            return reason
    if all(-1.0 <= each <= 1.0 for each in answered):
        return "they may be cosines of embeddings. Serve the converted folder as a classifier (vLLM: --runner pooling)"
    return "the server serves another model, or writes another prompt"


def _are_close(logits: Sequence[float], others: Sequence[float], tolerance: float) -> bool:
    return all(math.isclose(a, b, rel_tol=0.0, abs_tol=tolerance) for a, b in zip(logits, others, strict=True))
