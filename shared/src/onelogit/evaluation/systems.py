"""Models, instructions and templates, as they are named -> contestants, each with a name and an identity of its own."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import chain, count, product
from pathlib import Path

from onelogit.checkpoints.fingerprint import model_label
from onelogit.errors import InputError
from onelogit.evaluation.data.dataset import DataSet, JudgedQuery
from onelogit.io.text_files import shortened
from onelogit.options import OpenOptions, is_url

OWN = "default"
FIRST, RANDOM = "first stage", "random order"  # what else stands in tables; no contestant is called so
_FIELD = "@"
_SECRET = re.compile(r"(?<=//)[^/@\s]+(?=@)")

Identity = dict[str, str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """One way to rank, to be measured beside others.

    Attributes:
        name: unlike any other's, as short as that allows.
        model: hub id, folder, or address of a server.
        options: of its reranker, without the instruction; the same object for those that share the reranker.
        instruction: in place of the model's own, which None stands for; "@name" for that field of each query.
        template: the file of its chat template; None for the model's own.
    """

    name: str
    model: str
    options: OpenOptions
    instruction: str | None = None
    template: Path | None = None

    @property
    def server(self) -> str | None:
        """The address of the server that scores; None for a model of this process."""
        return self.model if is_url(self.model) else self.options.get("url")

    def instruction_for(self, query: JudgedQuery) -> str | None:
        """What is asked of the model beside the query; None for the model's own instruction."""
        if self.instruction is None or not self.instruction.startswith(_FIELD):
            return self.instruction
        return query.fields[self.instruction.removeprefix(_FIELD)]

    def identity(self, data_digest: str) -> Identity:
        """All that its logits depend on.

        Raises:
            CheckpointError: the model is not found.
            RecipeError: it is not known how it reranks.
            InputError: the template cannot be read.
        """
        return {
            "data": data_digest,
            "model": without_secret(model_label(self.model, self.options)),
            "server": None if self.server is None else without_secret(self.server),
            "template": None if self.template is None else f"{self.template.name}@{_digest(self.template)}",
            "instruction": self.instruction,
        }


def systems(
    models: Sequence[str],
    instructions: Sequence[str],
    templates: Sequence[Path],
    options_of: Callable[[str, Path | None], OpenOptions],
) -> list[System]:
    """Each model with each template and each instruction, in this order.

    Args:
        models: at least one.
        instructions: "default" stands for the model's own, as none at all does; "" for no instruction; "@name" for
            that field of each query.
        templates: files in jinja; none at all for the model's own.
        options_of: gives the options of a model's reranker with a template.

    Raises:
        InputError: two of them are the same.
    """
    given = [None if instruction == OWN else instruction for instruction in instructions or [OWN]]
    made: list[System] = []
    wanted: Sequence[Path | None] = [*templates] or [None]
    for model, template in product(models, wanted):
        options = options_of(model, template)
        made += (
            System(name="", model=model, options=options, instruction=instruction, template=template)
            for instruction in given
        )
    parts = [(one.model, one.template, one.instruction) for one in made]
    for place, part in enumerate(parts):
        if part in parts[:place]:
            raise InputError(f"{_shown(made[place])} is named twice; leave one out")
    return [replace(one, name=name) for one, name in zip(made, _names(made), strict=True)]


def check_fields(made: Sequence[System], data: DataSet) -> None:
    """Refuse instructions from a field that a query lacks.

    Raises:
        InputError: naming the field and the query.
    """
    for one in made:
        name = (one.instruction or "").removeprefix(_FIELD)
        if one.instruction is not None and one.instruction.startswith(_FIELD):
            lacking = next((query for query in data.queries if name not in query.fields), None)
            if lacking is not None:
                raise InputError(f"--instruction {one.instruction}: the query {lacking.id!r} has no field {name!r}")


def without_secret(text: str) -> str:
    """The text, with what stands in front of an @ in an address left out: it may be a password."""
    return _SECRET.sub("…", text)


def _names(made: Sequence[System]) -> Iterator[str]:
    """Of each whatever is not the same for all; the model where nothing else is left."""
    parts_of_name = ("model", "template", "instruction")
    has_several = {part: len({getattr(one, part) for one in made}) > 1 for part in parts_of_name}
    taken = {FIRST, RANDOM}
    for one in made:
        parts = []
        if has_several["model"] or not any(has_several.values()):
            parts.append(_model_name(one.model, [other.model for other in made]))
        if has_several["template"]:
            parts.append("own template" if one.template is None else one.template.stem)
        if has_several["instruction"]:
            parts.append(_instruction_name(one.instruction))
        plain = " · ".join(parts)
        numbered = (f"{plain} ({number})" for number in count(2))
        name = next(name for name in chain([plain], numbered) if name not in taken)
        taken.add(name)
        yield name


def _model_name(model: str, models: Sequence[str]) -> str:
    """The last part of the model's name, or all of it where another ends the same."""
    if "://" in model:
        return without_secret(model)
    ends = {other: Path(other).absolute().name for other in models}
    is_alone = sum(end == ends[model] for end in ends.values()) == 1
    return ends[model] if is_alone else model


def _instruction_name(instruction: str | None) -> str:
    if instruction is None:
        return "own instruction"
    return f"“{shortened(instruction, 48)}”" if instruction else "no instruction"


def _shown(one: System) -> str:
    return f"{without_secret(one.model)} with the same template and instruction"


def _digest(file: Path) -> str:
    try:
        return sha256(file.read_bytes()).hexdigest()[:12]
    except OSError as error:
        raise InputError(f"the template {file} cannot be read: {error.strerror}") from error
