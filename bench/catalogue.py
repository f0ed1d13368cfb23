"""The benchmarks, in the order in which the document tells of them, and what each of them is."""

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, Protocol, cast

import plotly.graph_objects as go

from bench.aim import Aim

NAMES = (
    "overhead",
    "first-trial",
    "api-cost",
    "many-studies",
    "many-workers",
    "charts",
    "utilisation",
    "pruning",
    "importances",
    "storms",
)
"""A module has an underscore where its name has a hyphen."""

Figures = dict[str, Any]
"""What was measured, as JSON knows it."""


class Bench(Protocol):
    """A module of this package that measures something. It may have `draw` too, see :func:`drawings`."""

    TITLE: str
    ABOUT: str
    """A paragraph of Markdown: what is measured, and how."""

    def measure(self, *, longer: bool, say: Callable[[str], None]) -> Figures:
        """Measure. It ends by itself: within ten minutes on two cores, unless `longer`; `say` takes lines of progress."""

    def tell(self, figures: Figures) -> Iterator[str]:
        """The figures in lines of Markdown. Pure."""

    def aims(self, figures: Figures) -> list[Aim]:
        """What was aimed at beside what was measured. Pure."""


def bench(name: str) -> Bench:
    """A benchmark by its name.

    Raises:
        ModuleNotFoundError: there is none of that name.
    """
    return cast("Bench", import_module(f"bench.{name.replace('-', '_')}"))


def drawings(bench: Bench, figures: Figures) -> dict[str, go.Figure]:
    """The figures that a benchmark draws, by name; most draw none."""
    draw: Callable[[Figures], dict[str, go.Figure]] | None = getattr(bench, "draw", None)
    return draw(figures) if draw else {}
