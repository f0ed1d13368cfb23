"""A trial's configuration as a function of the study's and of the trial's parameters. Pure.

The worker trains with it; `tuningstudy best --config` prints it.
"""

from collections.abc import Collection, Mapping
from typing import Any

from tuning_api.schema import Scalar
from tuning_api.spec import PLACEHOLDER, placeholders

_LEFT_OUT = object()


class SubstitutionError(ValueError):
    """A placeholder has no value."""


def substitute(config: dict[str, Any], values: Mapping[str, Scalar], *, absent: Collection[str] = ()) -> dict[str, Any]:
    """Replace every `${name}` by the value of that name.

    A string that is nothing but `${name}` becomes the value itself, with its type; within a longer string the value is
    written out. Keys are left alone, and so is the given configuration.

    Args:
        config: What the study says.
        values: The value of each name.
        absent: Names that have no value in this trial, since the condition of their parameter is not met. An argument
            that is such a name is left out, so that its default applies.

    Raises:
        SubstitutionError: a name has no value and is not absent, or an absent one is part of a longer string.
    """
    result = _substitute(config, values, frozenset(absent), "trial.lightning")
    if not isinstance(result, dict):
        raise SubstitutionError("trial.lightning must be a mapping")
    return result


def _substitute(node: object, values: Mapping[str, Scalar], absent: frozenset[str], path: str) -> object:
    match node:
        case str():
            return _substitute_text(node, values, absent, path)
        case dict():
            items = ((key, _substitute(item, values, absent, f"{path}.{key}")) for key, item in node.items())
            return {key: item for key, item in items if item is not _LEFT_OUT}
        case list():
            replaced = (_substitute(item, values, absent, f"{path}[{index}]") for index, item in enumerate(node))
            return [item for item in replaced if item is not _LEFT_OUT]
        case _:
            return node


def _substitute_text(text: str, values: Mapping[str, Scalar], absent: frozenset[str], path: str) -> object:
    whole = PLACEHOLDER.fullmatch(text)
    if whole and whole[1] in absent:
        return _LEFT_OUT
    for name in sorted(placeholders(text) - values.keys()):
        why = "its condition is not met in this trial" if name in absent else "searchSpace has no such parameter"
        raise SubstitutionError(f"{path}: ${{{name}}} has no value, since {why}")
    if whole:
        return values[whole[1]]
    return PLACEHOLDER.sub(lambda match: str(values[match[1]]), text)
