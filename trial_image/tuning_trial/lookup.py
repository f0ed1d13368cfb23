"""Modules and classes by their paths, and what a person may have meant where there is none."""

import pkgutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import FrameType, ModuleType

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
        with _refusing_to_optimize():
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


@contextmanager
def _refusing_to_optimize() -> Iterator[None]:
    """Refuse what a script does at its end, while it is imported for its objective: it would be there for all of its trials.

    Raises:
        InvalidConfigError: within it, with the line.
    """
    optimize = optuna.Study.optimize

    def refuse(*_: object, **__: object) -> None:
        place = _line_that_is_imported(sys._getframe())  # noqa: SLF001
        raise InvalidConfigError(
            f'{place} calls study.optimize when it is imported: put it under if __name__ == "__main__":'
        )

    optuna.Study.optimize = refuse  # type: ignore[method-assign]
    try:
        yield
    finally:
        optuna.Study.optimize = optimize  # type: ignore[method-assign]


def _line_that_is_imported(frame: FrameType) -> str:
    """Return file:line of the innermost module that is being imported."""
    found: FrameType | None = frame
    while found is not None and found.f_code.co_name != "<module>":
        found = found.f_back
    return f"{Path(found.f_code.co_filename).name}:{found.f_lineno}" if found else "the module"
