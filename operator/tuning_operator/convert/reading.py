"""Fields of somebody else's document, or a sentence that says where it is not what it should be."""

from typing import Any

from tuning_api.schema import Document


class ConversionError(ValueError):
    """The document cannot be converted; the message names the field and what is wrong there."""


def mapping(node: Document, key: str, *, path: str = "") -> Document:
    """A mapping; empty where the field is absent or null."""
    value = node.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConversionError(f"{below(path, key)}: a mapping is needed, and it is {value!r}")
    return value


def items(node: Document, key: str, *, path: str = "") -> list[Any]:
    """A list; empty where the field is absent or null."""
    value = node.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise ConversionError(f"{below(path, key)}: a list is needed, and it is {value!r}")
    return value


def number(node: Document, key: str, *, path: str = "") -> float:
    """A number, also one that is written as text, as Katib's are."""
    value = node.get(key)
    if value is None:
        raise ConversionError(f"{below(path, key)} is missing")
    return as_number(value, path=below(path, key))


def as_number(value: object, *, path: str) -> float:
    """See `number`."""
    try:
        if isinstance(value, bool):
            raise TypeError  # noqa: TRY301 - true is no 1
        return float(value)  # type: ignore[arg-type]
    except (OverflowError, TypeError, ValueError):
        raise ConversionError(f"{path}: a number is needed, and it is {value!r}") from None


def count(value: object, *, path: str) -> int:
    """A whole number."""
    found = as_number(value, path=path)
    if not found.is_integer():
        raise ConversionError(f"{path}: a whole number is needed, and it is {value!r}")
    return int(found)


def below(path: str, key: str) -> str:
    """The path of a field of a mapping."""
    return f"{path}.{key}" if path else key
