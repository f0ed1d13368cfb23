"""Lightning under its other name: `import lightning` gives the classes of `pytorch_lightning` and `lightning_fabric`.

The package `lightning` has the same modules once more, whose classes are others: a Trainer of one refuses a model of the
other. Most projects import `lightning`, and trials train with `pytorch_lightning`, the only one that is installed with
TuningStudy. So the other name leads to the same classes, whether or not that package is there.
"""

import sys
from collections.abc import Sequence
from importlib import import_module, util
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from typing_extensions import override

_NAME = "lightning"
_PARTS = {f"{_NAME}.pytorch": "pytorch_lightning", f"{_NAME}.fabric": "lightning_fabric"}
"""See the package's own `src/lightning`, which is made of the two others."""


def join() -> None:
    """From now on the name means our classes, in this process. NB: what was imported from that package before stays."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def join_unless_installed() -> None:
    """For code that has a Trainer of its own: it trains with the package that it was written with, if that is there."""
    if util.find_spec(_NAME) is None:
        join()


class _Finder(MetaPathFinder):
    @override
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == _NAME:
            return ModuleSpec(fullname, _Top(), is_package=True)
        for name, package in _PARTS.items():
            if f"{fullname}.".startswith(f"{name}."):
                meant = package + fullname.removeprefix(name)
                # As for any module that is not there, None: `lightning.pytorch.no_such_module`.
                return None if util.find_spec(meant) is None else ModuleSpec(fullname, _Same(meant), is_package=True)
        return None


class _Top(Loader):
    """The package's own top, which has what is most used of both."""

    @override
    def exec_module(self, module: ModuleType) -> None:
        def of_both(name: str) -> Any:
            if name.startswith("__") and name != "__version__":
                raise AttributeError(name)
            for package in _PARTS.values():
                if hasattr(found := import_module(package), name):
                    return getattr(found, name)
            raise AttributeError(f"module {_NAME!r} has no attribute {name!r}")

        for name in _PARTS:
            import_module(name)
        module.__getattr__ = of_both  # type: ignore[method-assign]


class _Same(Loader):
    """A module that has two names."""

    def __init__(self, name: str) -> None:
        self._name = name

    @override
    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = import_module(self._name)
        self._spec = module.__spec__
        return module

    @override
    def exec_module(self, module: ModuleType) -> None:
        """It has run. NB: importlib has given it the spec of its other name meanwhile."""
        module.__spec__ = self._spec
