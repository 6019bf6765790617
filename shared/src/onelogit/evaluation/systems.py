"""Models, instructions and templates -> the systems to compare, each with a unique name and an identity."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import chain, count, product
from pathlib import Path

from onelogit.checkpoints.fingerprint import model_label
from onelogit.errors import InputError
from onelogit.evaluation.data.dataset import Dataset, LabelledQuery
from onelogit.io.lines import shortened
from onelogit.model_spec import ModelSpec

DEFAULT_INSTRUCTION = "default"
UNQUANTISED = "none"
FIRST_STAGE, RANDOM_ORDER = "first stage", "random order"  # also rows of the tables; no system gets these names
_FIELD = "@"
_CREDENTIALS = re.compile(r"(?<=//)[^/@\s]+(?=@)")

Identity = dict[str, str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """A model with an instruction and a template.

    Attributes:
        name: unique among the systems, and as short as that allows.
        spec: the model or server, without the instruction; systems with equal specs share a reranker.
        instruction: None for the model's default; "@name" for that field of each query.
        template: file of the chat template; None for the model's own.
    """

    name: str
    spec: ModelSpec
    instruction: str | None = None
    template: Path | None = None

    @property
    def quantization(self) -> str | None:
        """Of a local model; None if its weights are as stored."""
        return self.spec.quantization

    def instruction_for(self, query: LabelledQuery) -> str | None:
        """The instruction to pass with a query; None for the model's default."""
        if self.instruction is None or not self.instruction.startswith(_FIELD):
            return self.instruction
        return query.fields[self.instruction.removeprefix(_FIELD)]

    def identity(self, data_digest: str) -> Identity:
        """Everything that the logits depend on.

        Raises:
            CheckpointError: the model is not found.
            RecipeError: the model has no known recipe.
            InputError: the template cannot be read.
        """
        return {
            "data": data_digest,
            "model": redact_credentials(model_label(self.spec)),
            "server": None if self.spec.url is None else redact_credentials(self.spec.url),
            "template": None if self.template is None else f"{self.template.name}@{_digest(self.template)}",
            "instruction": self.instruction,
        }


def build_systems(
    models: Sequence[str],
    instructions: Sequence[str],
    templates: Sequence[Path],
    spec_of: Callable[[str, Path | None], ModelSpec],
    quantizations: Sequence[str] = (),
) -> list[System]:
    """Each model with each template, quantisation and instruction, in this order.

    Args:
        models: at least one.
        instructions: "default" for the model's default, "" for none, "@name" for that field of each query. If empty,
            each model uses its default.
        templates: Jinja files. If empty, each model uses its own.
        spec_of: returns the spec for a model and a template.
        quantizations: of local models; "none" for exact. If empty, as in the specs.

    Raises:
        InputError: two systems are equal, or a model cannot be quantised.
    """
    systems: list[System] = []
    wanted: Sequence[Path | None] = templates or [None]
    for model, template in product(models, wanted):
        specs = _quantised(spec_of(model, template), quantizations)
        for spec, instruction in product(specs, instructions or [DEFAULT_INSTRUCTION]):
            given = None if instruction == DEFAULT_INSTRUCTION else instruction
            systems.append(System(name="", spec=spec, instruction=given, template=template))
    if quantizations and all(system.spec.url is not None for system in systems):
        raise InputError("--quantization is for models on this machine, and all that are named are on servers")
    for system in systems:
        if systems.count(system) > 1:
            model = redact_credentials(system.spec.name)
            raise InputError(f"{model} is given twice with the same template, quantisation and instruction; remove one")
    return [replace(system, name=name) for system, name in zip(systems, _names(systems), strict=True)]


def _quantised(spec: ModelSpec, quantizations: Sequence[str]) -> list[ModelSpec]:
    """The spec with each quantisation; a server's spec as it is."""
    if spec.url is not None or not quantizations:
        return [spec]
    return [spec.with_quantization(None if name == UNQUANTISED else name) for name in quantizations]


def check_instruction_fields(systems: Sequence[System], dataset: Dataset) -> None:
    """Check that each query has the fields that instructions are taken from.

    Raises:
        InputError: a query lacks the field.
    """
    for instruction in {system.instruction or "": None for system in systems}:
        name = instruction.removeprefix(_FIELD)
        lacking = next((query for query in dataset.queries if name not in query.fields), None)
        if instruction.startswith(_FIELD) and lacking is not None:
            raise InputError(f"--instruction {instruction}: the query {lacking.id!r} has no field {name!r}")


def redact_credentials(text: str) -> str:
    """The text, with the credentials in urls (`//user:password@`) replaced by an ellipsis."""
    return _CREDENTIALS.sub("…", text)


def _names(systems: Sequence[System]) -> Iterator[str]:
    """For each system, the parts that differ between the systems; the model if none differs."""
    models = [system.spec.name for system in systems]
    parts_of_systems = ("template", "quantization", "instruction")
    differs = {part: len({getattr(system, part) for system in systems}) > 1 for part in parts_of_systems}
    differs["model"] = len(set(models)) > 1
    taken = {FIRST_STAGE, RANDOM_ORDER}
    for system in systems:
        parts = []
        if differs["model"] or not any(differs.values()):
            parts.append(_model_name(system.spec.name, models))
        if differs["template"]:
            parts.append("default template" if system.template is None else system.template.stem)
        if differs["quantization"]:
            parts.append(system.quantization or "unquantised")
        if differs["instruction"]:
            parts.append(_instruction_name(system.instruction))
        plain = " · ".join(parts)
        name = next(each for each in chain([plain], (f"{plain} ({n})" for n in count(2))) if each not in taken)
        taken.add(name)
        yield name


def _model_name(model: str, models: Sequence[str]) -> str:
    """The last part of the model's name, or the whole name if another model has the same last part."""
    if "://" in model:
        return redact_credentials(model)
    last_parts = {other: Path(other).absolute().name for other in models}
    is_unique = sum(part == last_parts[model] for part in last_parts.values()) == 1
    return last_parts[model] if is_unique else model


def _instruction_name(instruction: str | None) -> str:
    if instruction is None:
        return f"{DEFAULT_INSTRUCTION} instruction"
    return f"“{shortened(instruction, 48)}”" if instruction else "no instruction"


def _digest(file: Path) -> str:
    try:
        return sha256(file.read_bytes()).hexdigest()[:12]
    except OSError as error:
        raise InputError(f"the template {file} cannot be read: {error.strerror}") from error
