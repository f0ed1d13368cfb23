"""A trial's configuration as a function of the study's and of the trial's parameters. No library, no file, no clock."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from tuning_api.schema import Scalar
from tuning_api.spec import PLACEHOLDER, placeholders
from tuning_trial.errors import InvalidConfigError

_LEFT_OUT = object()

_ARGUMENTS_OF_FIT = ("ckpt_path", "weights_only")
"""`LightningCLI fit --print_config` writes these; as null they mean nothing, and without the subcommand they are refused."""


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
        InvalidConfigError: a name has no value and is not absent, or an absent one is part of a longer string.
    """
    result = _substitute(config, values, frozenset(absent), "trial.lightning")
    if not isinstance(result, dict):
        raise InvalidConfigError("trial.lightning must be a mapping")
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
        raise InvalidConfigError(f"{path}: ${{{name}}} has no value, since {why}")
    if whole:
        return values[whole[1]]
    return PLACEHOLDER.sub(lambda match: str(values[match[1]]), text)


def with_defaults(config: Mapping[str, Any], *, seed: int, folder: Path) -> dict[str, Any]:
    """Fill in what suits a trial, where the person did not choose.

    No logger, no progress bar and no model summary: nobody looks at them, and the root file system is read-only. What is
    written all the same goes to the trial's folder. Whether checkpoints are written is decided when the callbacks are
    known (`lightning_runner`).

    Raises:
        InvalidConfigError: `trainer` is not a mapping.
    """
    trainer = config.get("trainer") or {}
    if not isinstance(trainer, dict):
        # NB: LightningCLI 2.6 ignores it in silence.
        raise InvalidConfigError("trial.lightning.trainer must be a mapping of the Trainer's arguments")
    defaults = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": str(folder),
    }
    chosen = {key: value for key, value in trainer.items() if not (key in defaults and value is None)}
    kept = {key: value for key, value in config.items() if not (key in _ARGUMENTS_OF_FIT and value is None)}
    return {"seed_everything": seed} | kept | {"trainer": defaults | chosen}


def class_paths(node: object) -> Iterator[str]:
    """Every class that a configuration names with its module, in the order of the text."""
    if isinstance(node, dict):
        for key, item in node.items():
            if key == "class_path" and isinstance(item, str):
                if "." in item and not placeholders(item):
                    yield item
            else:
                yield from class_paths(item)
    elif isinstance(node, list):
        for item in node:
            yield from class_paths(item)
