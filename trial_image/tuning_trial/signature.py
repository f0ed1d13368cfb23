"""What a class of Lightning takes and logs, for `tuningstudy init`: read, and never called."""

import ast
import inspect
import math
import textwrap
import typing
from collections.abc import Iterator
from typing import Any, Literal

import pytorch_lightning as pl
from pytorch_lightning.utilities.model_helpers import is_overridden

from tuning_trial import family, lookup
from tuning_trial.errors import InvalidConfigError

family.join()

Document = dict[str, Any]
_VALIDATION = "val"
"""What a name that begins with a variable, such as f"{stage}_acc", begins with in validation."""


def describe(class_path: str) -> Document:
    """A LightningModule or a LightningDataModule in words.

    Returns:
        class_path, kind (model or data), arguments (name, type, required, and default if JSON has it), metrics (names that
        it logs, in the order of the source), and of a model has_optimizer and has_data: whether it makes its own.

    Raises:
        InvalidConfigError: there is no such class, or it is neither.
        Exception: whatever its module raises when it is imported.
    """
    found = lookup.find_class(class_path)
    kind = _kind(found)
    if kind is None or not isinstance(found, type):
        raise InvalidConfigError(f"{class_path} is no LightningModule, and no LightningDataModule")
    description: Document = {"class_path": class_path, "kind": kind, "arguments": list(_arguments(found))}
    if kind == "model":
        description |= {
            "metrics": list(dict.fromkeys(_metrics(found))),
            "has_optimizer": is_overridden("configure_optimizers", found, pl.LightningModule),
            "has_data": is_overridden("train_dataloader", found, pl.LightningModule),
        }
    return description


def in_words(description: Document) -> str:
    """A description for a person."""
    lines = [f"{description['class_path']} ({description['kind']})"]
    for argument in description["arguments"]:
        default = "needed" if argument["required"] else f"default {argument.get('default', 'of another type')!r}"
        lines.append(f"  {argument['name']}: {argument['type'] or 'any type'}, {default}")
    if description.get("metrics"):
        lines.append(f"  logs {', '.join(description['metrics'])}")
    return "\n".join(lines)


def _kind(found: object) -> Literal["model", "data"] | None:
    if not isinstance(found, type):
        return None
    if issubclass(found, pl.LightningModule):
        return "model"
    return "data" if issubclass(found, pl.LightningDataModule) else None


def _arguments(found: type) -> Iterator[Document]:
    """The class's own first; those of its bases as far as it passes `**kwargs` on."""
    seen: set[str] = set()
    for base in _users_classes(found):
        if "__init__" not in vars(base):
            continue
        parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
        for parameter in list(parameters)[1:]:
            if parameter.kind not in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD} and parameter.name not in seen:
                seen.add(parameter.name)
                yield _argument(parameter, hints=_hints(base))
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            return


def _users_classes(found: type) -> Iterator[type]:
    for base in inspect.getmro(found):
        if base in {pl.LightningModule, pl.LightningDataModule}:
            return
        yield base


def _hints(base: type) -> Document:
    try:
        return typing.get_type_hints(vars(base)["__init__"])
    except Exception:  # noqa: BLE001 - a name that only type checkers see; the annotation's text will do
        return {}


def _argument(parameter: inspect.Parameter, *, hints: Document) -> Document:
    annotation = hints.get(parameter.name, parameter.annotation)
    kind = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    described: Document = {
        "name": parameter.name,
        "type": "" if annotation is parameter.empty else kind,
        "required": parameter.default is parameter.empty,
    }
    if not described["required"] and _is_json(parameter.default):
        described["default"] = parameter.default
    return described


def _is_json(value: object) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_json, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_json(item) for key, item in value.items())
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or type(value) in {bool, int, str}


def _metrics(found: type) -> Iterator[str]:
    for base in _users_classes(found):
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
        except (OSError, TypeError, SyntaxError):
            continue  # made at run time: there is no source to read
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
                yield from _logged(node.func.attr, node.args[0])


def _logged(method: str, argument: ast.expr) -> Iterator[str]:
    match method, argument:
        case "log", _:
            yield from _text(argument)
        case "log_dict", ast.Dict(keys=keys):
            for key in keys:
                if key is not None:
                    yield from _text(key)
        case _:
            pass


def _text(node: ast.expr) -> Iterator[str]:
    match node:
        case ast.Constant(value=str(text)):
            yield text
        case ast.JoinedStr(values=[ast.FormattedValue(), ast.Constant(value=str(ending))]):
            yield f"{_VALIDATION}{ending}"
        case _:
            pass
