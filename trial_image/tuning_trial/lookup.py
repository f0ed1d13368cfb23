"""Modules and classes by their paths, and what a person may have meant where there is none."""

import functools
import pkgutil
import sys
from importlib import import_module
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import optuna

from tuning_trial.errors import InvalidConfigError, nearest


def find_class(class_path: str) -> object:
    """What a `package.module.Class` names.

    Raises:
        InvalidConfigError: there is no such module, or nothing of that name in it; with the nearest name that there is.
        Exception: whatever the module raises when it is imported.
    """
    module_name, _, name = class_path.rpartition(".")
    if not module_name:
        raise InvalidConfigError(f"{class_path} is no full path: write package.module.{class_path}")
    module = find_module(module_name)
    if not hasattr(module, name):
        classes = [key for key, item in vars(module).items() if isinstance(item, type)]
        raise InvalidConfigError(f"{module_name} has no {name}{nearest(name, classes)}")
    return getattr(module, name)


def fault(class_path: str) -> str | None:
    """Why there is no such class, in words; None when it is there, or is not for a reason of the module's own."""
    try:
        find_class(class_path)
    except InvalidConfigError as error:
        return str(error)
    except Exception:  # noqa: BLE001 - whoever asks has an exception at hand that says it
        return None
    return None


def find_module(name: str) -> ModuleType:
    """Import a module.

    Raises:
        InvalidConfigError: there is none of that name; with the nearest that there is.
        Exception: whatever the module raises when it is imported.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if not f"{name}.".startswith(f"{missing}."):
            raise  # it is a module that theirs imports
        raise InvalidConfigError(
            f"there is no module {missing!r}{nearest(missing, _modules_beside(missing))}"
        ) from error


def _modules_beside(missing: str) -> list[str]:
    package = missing.rpartition(".")[0]
    folders = getattr(sys.modules[package], "__path__", []) if package else None
    return [f"{package}.{module.name}".lstrip(".") for module in pkgutil.iter_modules(folders)]


_optimize = optuna.Study.optimize


@functools.wraps(_optimize)
def _optimize_unless_importing(study: optuna.Study, *arguments: Any, **options: Any) -> None:
    """Refuse what a script does at its end, while it is imported for its objective: it would be there for all of its trials.

    Raises:
        InvalidConfigError: with the line.
    """
    frame: FrameType | None = sys._getframe()  # noqa: SLF001
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_globals.get("__name__") != "__main__":
            where = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
            raise InvalidConfigError(
                f'{where} calls study.optimize when it is imported: put it under if __name__ == "__main__":'
            )
        frame = frame.f_back
    _optimize(study, *arguments, **options)


optuna.Study.optimize = _optimize_unless_importing  # type: ignore[assignment, method-assign]
