"""The base of every model of the resource: camelCase outside, snake_case inside, and words for Kubernetes' schema.

The models are the only place where the resource is described. What pydantic cannot say in JSON schema (CEL rules, list
types, structural ``oneOf``) is written beside the field with :func:`kubernetes`, so that a reader finds the rule where it
applies, and `tuning_api.crd` only has to translate.
"""

from collections.abc import Iterable
from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationInfo, field_validator
from pydantic.alias_generators import to_camel

MAX_LIST_ITEMS = 64
"""Lists need a bound, or the API server refuses the CEL rules over them for their estimated cost."""


class Schema(BaseModel):
    """A part of the resource. Unknown fields are refused, as `kubectl apply` does with strict field validation."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )

    @field_validator("*", mode="before")
    @classmethod
    def _is_of_its_json_type(cls, value: Any, info: ValidationInfo) -> Any:
        """Pydantic would read "5" as 5 and "on" as true; the API server refuses both."""
        annotation = cls.model_fields[info.field_name or ""].annotation
        kinds = get_args(annotation) or (annotation,)
        if bool in kinds and not isinstance(value, bool | None):
            raise ValueError(f"must be true or false, and {value!r} is neither")
        if (int in kinds or float in kinds) and isinstance(value, str | bool):
            raise ValueError(f"must be a number, and {value!r} is none")
        return value

    def to_document(self) -> dict[str, Any]:
        """The camelCase document as a person would write it: JSON types only, without what was left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def rule(expression: str, message: str, *, field_path: str | None = None, reason: str | None = None) -> dict[str, str]:
    """One CEL validation rule with the sentence that a person reads when it is broken (KEP-2876)."""
    optional = {"fieldPath": field_path, "reason": reason}
    return {"rule": expression, "message": message} | {key: value for key, value in optional.items() if value}


def kubernetes(
    *, rules: Iterable[dict[str, str]] = (), list_map_keys: Iterable[str] = (), any_fields: bool = False
) -> dict[str, Any]:
    """The ``x-kubernetes-*`` words of a field or model, for ``json_schema_extra``."""
    words: dict[str, Any] = {}
    if rules := list(rules):
        words["x-kubernetes-validations"] = rules
    if list_map_keys := list(list_map_keys):
        words |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list_map_keys}
    if any_fields:
        words["x-kubernetes-preserve-unknown-fields"] = True
    return words


IMMUTABLE = "self == oldSelf"

Name = Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
"""The name of a Kubernetes object (RFC 1123 label)."""

Duration = Annotated[str, StringConstraints(min_length=2, max_length=32, pattern=r"^([0-9]+[dhms])+$")]
"""A length of time: ``90s``, ``20m``, ``1h30m``, ``2d``."""

Scalar = str | int | float | bool | None
"""What a categorical choice or a parameter's value may be: what Optuna can store in a database."""

Document = Annotated[dict[str, Any], Field(json_schema_extra=kubernetes(any_fields=True))]
"""Free-form YAML that somebody else checks (LightningCLI, the Job API)."""

_SECONDS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}


def seconds(duration: str) -> int:
    """Translate a :data:`Duration` to seconds: ``1h30m`` is 5400."""
    total, digits = 0, ""
    for character in duration:
        if character.isdigit():
            digits += character
        else:
            total += int(digits) * _SECONDS[character]
            digits = ""
    return total
