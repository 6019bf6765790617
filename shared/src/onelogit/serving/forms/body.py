"""What the bodies of all forms share: texts, the flags for raw logits, and one sentence for a wrong field."""

import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    PlainValidator,
    ValidationError,
    WithJsonSchema,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core.core_schema import CoreSchema, ValidationInfo
from typing_extensions import TypedDict

from onelogit.contents import ContentDocument, checked_content, is_content
from onelogit.errors import InputError
from onelogit.serving.served_model import ServedModel
from onelogit.serving.work import ScoredWork, ScoringWork
from onelogit.validation import checked_text, checked_top_n, with_whole_characters

_JSON_TYPES = {
    dict: "an object",
    list: "a list",
    str: "a string",
    bool: "a boolean",
    int: "a number",
    float: "a number",
}
_TEXT_SCHEMA = {"type": "string"}


def json_type(value: object) -> str:
    """What a JSON value is, in words."""
    return "null" if value is None else _JSON_TYPES.get(type(value), type(value).__name__)


def _checked_string(value: object, info: ValidationInfo) -> str:
    if not isinstance(value, str):
        raise InputError(f"{info.field_name} must be a string, not {json_type(value)}")
    return checked_text(value, str(info.field_name))


def _checked_query(value: object, info: ValidationInfo) -> str:
    return checked_text(_checked_string(value, info), str(info.field_name), is_blank_allowed=False)


def checked_texts(value: object, name: str, *, allows_objects: bool = False) -> list[str]:
    """A list of texts, whole characters only; `allows_objects` accepts objects whose field `text` has the text.

    Raises:
        InputError: it is anything else, or empty.
    """
    if not isinstance(value, list):
        raise InputError(f"{name} must be a list of strings, not {json_type(value)}")
    if not value:
        raise InputError(f"{name} is empty; it must have at least one text")
    texts = [_text_in(each, f"{name}[{index}]") if allows_objects else each for index, each in enumerate(value)]
    for index, (text, given) in enumerate(zip(texts, value, strict=True)):
        if not isinstance(text, str):
            kind = "an object without a text" if allows_objects and isinstance(given, dict) else json_type(given)
            raise InputError(f"{name}[{index}] must be a string, not {kind}")
    return with_whole_characters(texts, is_logging=False)


def _text_in(value: Any, name: str) -> Any:
    """The text of an object or a content list, as OpenAI and vLLM have it; anything else is returned as it is."""
    if not isinstance(value, dict):
        return value
    content = checked_content(value, name) if "text" not in value and is_content(value) else value.get("text")
    if isinstance(content, ContentDocument) or any(value.get(field) is not None for field in ("image", "image_url")):
        raise InputError(f"{name} has an image, which this server does not read; serve the model with vLLM")
    return content


def _checked_list(value: object, info: ValidationInfo) -> list[str]:
    return checked_texts(value, str(info.field_name))


def _checked_list_or_objects(value: object, info: ValidationInfo) -> list[str]:
    return checked_texts(value, str(info.field_name), allows_objects=True)


def _checked_limit(value: object, info: ValidationInfo) -> int | None:
    return checked_top_n(value, str(info.field_name))


_OBJECT_SCHEMA = {"type": "object", "properties": {"text": _TEXT_SCHEMA}, "required": ["text"]}

Text = Annotated[str, PlainValidator(_checked_string), WithJsonSchema(_TEXT_SCHEMA)]
Query = Annotated[str, PlainValidator(_checked_query), WithJsonSchema(_TEXT_SCHEMA)]
Texts = Annotated[
    list[str], PlainValidator(_checked_list), WithJsonSchema({"type": "array", "items": _TEXT_SCHEMA, "minItems": 1})
]
TextsOrObjects = Annotated[
    list[str],
    PlainValidator(_checked_list_or_objects),
    WithJsonSchema({"type": "array", "items": {"anyOf": [_TEXT_SCHEMA, _OBJECT_SCHEMA]}, "minItems": 1}),
]
Limit = Annotated[
    int | None,
    PlainValidator(_checked_limit),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]}),
]


class Usage(TypedDict):
    """The tokens of all prompts of a request."""

    prompt_tokens: int
    total_tokens: int


class ScoringBody(BaseModel):
    """A request's body. Fields that no form has are ignored, as servers do."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())
    has_plain_errors: ClassVar[bool] = False  # of TEI: a text in place of an object

    model: Text | None = Field(None, description="one of the names in /v1/models; by default the only model")
    raw_logits: bool | None = Field(None, description="true: the score is the raw logit, without the activation")
    use_activation: bool | None = Field(None, description="vLLM's name: false is raw_logits: true")
    raw_scores: bool | None = Field(None, description="the name in TEI and Infinity of raw_logits")

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """The schema with all names of each field; pydantic's own has only the first."""
        schema = handler.resolve_ref_schema(handler(core_schema))
        for field in cls.model_fields.values():
            if not isinstance(field.validation_alias, AliasChoices):
                continue
            first, *others = map(str, field.validation_alias.choices)
            about = {key: value for key, value in schema["properties"][first].items() if key != "title"}
            schema["properties"] |= {other: {**about, "description": f"the same as {first}"} for other in others}
            if field.is_required():
                schema["required"] = [name for name in schema["required"] if name != first]
                schema.setdefault("allOf", []).append({"anyOf": [{"required": [name]} for name in (first, *others)]})
        return schema

    @property
    def is_raw(self) -> bool:
        """Whether the scores of the answer are raw logits."""
        return bool(self.raw_logits or self.raw_scores or self.use_activation is False)

    @abstractmethod
    def work(self) -> ScoringWork:
        """What to score; raises InputError."""

    @abstractmethod
    def answer(self, scored: ScoredWork, served: ServedModel, request_id: str) -> object:
        """The JSON answer; raises LogitError."""


class InstructedBody(ScoringBody):
    """A body of texts, whose prompts may have an instruction."""

    instruction: Text | None = Field(
        None,
        validation_alias=AliasChoices("instruction", "instruct"),
        description='what "relevant" means; by default the model\'s own instruction, "" for none',
    )
    max_tokens_per_doc: Limit = Field(None, description="cut each document to its first tokens")


def usage_of(scored: ScoredWork) -> Usage:
    """The tokens of a request."""
    return {"prompt_tokens": scored.prompt_tokens, "total_tokens": scored.prompt_tokens}


class ListFields(TypedDict):
    """What vLLM's answers in the order of the request have beside their data."""

    id: str
    object: str
    created: int
    model: str
    usage: Usage


def list_fields(scored: ScoredWork, served: ServedModel, request_id: str) -> ListFields:
    """The fields beside the data of an answer in the order of the request."""
    return {
        "id": request_id,
        "object": "list",
        "created": created_now(),
        "model": served.name,
        "usage": usage_of(scored),
    }


def created_now() -> int:
    """The time of an answer, in seconds since 1970."""
    return int(time.time())


def validated(kind: type[ScoringBody], content: object) -> ScoringBody:
    """A body of the given form.

    Raises:
        InputError: a field is missing or wrong; one sentence about the first of them, which never quotes a text.
    """
    if not isinstance(content, Mapping):
        raise InputError(f"the body must be a JSON object, not {json_type(content)}")
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise InputError(_sentence(error.errors(include_input=False, include_url=False))) from None


def _sentence(errors: Sequence[Any]) -> str:
    error = errors[0]
    field = ".".join(map(str, error["loc"][:1]))
    if error["type"] == "missing":
        return f"the field {field!r} is missing"
    reason = error.get("ctx", {}).get("error")
    return str(reason) if isinstance(reason, InputError) else f"{field}: {error['msg'][:1].lower()}{error['msg'][1:]}"
