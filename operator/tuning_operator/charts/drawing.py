"""How charts look: their colours, their margins, and text that Plotly shows as it is.

Colours are mid-tones that hold on white and on near-black alike; what must differ between the two (text, grid) is set in
the browser. The states' colours differ in lightness too, so that they are told apart without seeing red or green.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from tuning_operator import feasibility
from tuning_operator.charts.subject import value_of
from tuning_operator.charts.wording import shortened, shown
from tuning_operator.importances import as_json

ACCENT = "#6366f1"
GOOD = "#0d9f84"
STATE_COLORS = {
    TrialState.COMPLETE: GOOD,
    TrialState.PRUNED: "#e8a317",
    TrialState.FAIL: "#d9482b",
    TrialState.RUNNING: ACCENT,
}
FAINT_TO_STRONG = [[0.0, "#a9b1c4"], [0.5, "#8a8df0"], [1.0, "#5b4ff0"]]
INFEASIBLE = {"color": "#8b95a7", "symbol": "x-thin-open", "size": 7, "line": {"width": 1.5}}
"""A trial that breaks a constraint: told apart by its form, too."""
BEST_TO_WORST = [[0.0, GOOD], [0.5, "#a3abba"], [1.0, "#e8a317"]]
MOST_TICKS = 12
MOST_DECADES = 4
BELOW_LEGEND = {"t": 48}
"""The margin of a figure with a legend."""
PADDING = 0.06
"""Share of an axis that is left free at either end, so that no marker is cut."""

# NB: the margins have room for the labels of most studies. Where they have not, Plotly draws all of a chart a second time.
TEMPLATE = go.layout.Template(
    layout={
        "font": {"family": "Inter, system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 12},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "colorway": [ACCENT, GOOD, "#e8a317", "#d9482b", "#0ea5e9", "#d946ef"],
        "margin": {"l": 74, "r": 28, "t": 18, "b": 50},
        "hovermode": "closest",
        "xaxis": {"zeroline": False, "automargin": True, "title": {"standoff": 10}},
        "yaxis": {"zeroline": False, "automargin": True, "title": {"standoff": 10}},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom"},
    }
)


@dataclass(frozen=True)
class Drawing:
    """A figure, or the words in its place."""

    figure: go.Figure | None = None
    words: str | None = None
    note: str | None = None
    """What the reader should know about the figure, such as that it shows a part of the trials."""
    min_width: int = 0
    """Pixels below which the figure is scrolled instead of squeezed."""
    min_height: int = 0
    """Pixels that it needs, where that is more than a card has."""


def dressed(*traces: go.Scatter | go.Bar, **layout: Any) -> go.Figure:
    """A figure in this project's dress. Thousands of numbers are sent, and of more than seven digits nobody sees anything."""
    for trace in traces:
        trace.update({axis: [_with_seven_digits(at) for at in trace[axis] or ()] for axis in ("x", "y")})
    return go.Figure(list(traces), layout={"template": TEMPLATE, "autosize": True} | layout)


def _with_seven_digits(at: Any) -> Any:
    """A place on an axis, with as many digits as 32 bits hold; what is no float stays as it is."""
    return float(f"{at:.7g}") if isinstance(at, float) else at


def plain(text: str, most: int = 40) -> str:
    """A text of people's for a figure.

    NB: Plotly reads HTML-like markup in every text, so names and values are escaped wherever they are shown.
    """
    escaped = shortened(text, most).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return escaped.replace("\n", " ")


def hover(trial: FrozenTrial, metrics: Sequence[str], *more: tuple[str, object]) -> str:
    """What is said about a trial under the pointer."""
    is_complete = trial.state is TrialState.COMPLETE
    values = [(metric, value_of(trial, objective)) for objective, metric in enumerate(metrics)] if is_complete else []
    broken = [("breaks", name) for name in feasibility.broken(trial)] if is_complete else []
    lines = [f"{plain(name)}: {plain(shown(item))}" for name, item in (*values, *broken, *more)]
    return "<br>".join([f"<b>Trial {trial.number}</b>", *lines])


def panel_domain(place: int, *, of: int, gap: float) -> list[float]:
    """The part of an axis that a panel takes, of so many in a row; the gap between two is a share of a panel."""
    width = 1 / (of + (of - 1) * gap)
    start = (place - 1) * (1 + gap) * width
    return [start, min(1.0, start + width)]


@dataclass(frozen=True)
class Scale:
    """The values of a parameter as numbers: choices by their rank."""

    name: str
    choices: dict[str, str] | None
    """The label of each choice, by what JSON makes of it: 1 and "1" are two."""
    is_log: bool
    low: float
    high: float

    @classmethod
    def of(cls, name: str, trials: Iterable[FrozenTrial]) -> "Scale":
        """The scale of a parameter that at least one of the trials has: all of its search space."""
        having = [trial for trial in trials if name in trial.params]
        distribution = having[-1].distributions[name]
        if isinstance(distribution, FloatDistribution | IntDistribution):
            values = [float(trial.params[name]) for trial in having]
            low, high = min(distribution.low, *values), max(distribution.high, *values)
            return cls(name, None, distribution.log and low > 0, low, high)
        offered = distribution.choices if isinstance(distribution, CategoricalDistribution) else ()
        met = (trial.params[name] for trial in having)
        choices = {as_json(choice): shown(choice) for choice in (*offered, *met)}
        seen = Counter(choices.values())
        labels = {text: label if seen[label] == 1 else text for text, label in choices.items()}
        return cls(name, labels, is_log=False, low=0, high=len(labels) - 1)

    def at(self, trial: FrozenTrial) -> float | None:
        """Where a trial is; None if it has no such parameter."""
        if self.name not in trial.params:
            return None
        value = trial.params[self.name]
        return float(list(self.choices).index(as_json(value)) if self.choices else value)

    def axis(self, label: str) -> dict[str, Any]:
        """The axis in Plotly's words."""
        axis: dict[str, Any] = {"title": {"text": plain(label)}, "tickangle": 0}
        if self.choices:
            return axis | _ticked(self.ticks()) | {"range": [-0.5, len(self.choices) - 0.5]}
        if self.is_log:
            low, high = math.log10(self.low), math.log10(self.high)
            return axis | _ticked(_decades(low, high)) | {"type": "log", "range": _padded(low, high)}
        return axis | {"range": _padded(self.low, self.high), "nticks": 5}

    def ticks(self) -> list[tuple[float, str]]:
        """Ranks and names of the choices, or of an even part of them where there are many."""
        choices = (self.choices or {}).values()
        stride = max(1, math.ceil(len(choices) / MOST_TICKS))
        return [(float(rank), plain(choice, 14)) for rank, choice in enumerate(choices) if rank % stride == 0]


def _ticked(ticks: list[tuple[float, str]]) -> dict[str, Any]:
    return {"tickmode": "array", "tickvals": [at for at, _ in ticks], "ticktext": [text for _, text in ticks]}


def _decades(low: float, high: float) -> list[tuple[float, str]]:
    """Powers of ten between two exponents, not too many; the two ends where there are fewer than two."""
    exponents = range(math.ceil(low), math.floor(high) + 1)
    if len(exponents) < 2:  # noqa: PLR2004 - one says nothing about the scale
        return [(10**exponent, brief(10**exponent)) for exponent in (low, high)]
    stride = math.ceil(len(exponents) / MOST_DECADES)
    return [(10.0**exponent, _power(exponent)) for exponent in exponents[::stride]]


def _power(exponent: int) -> str:
    return f"{10.0**exponent:g}" if abs(exponent) < 4 else f"1e{exponent}"  # noqa: PLR2004 - longer than its exponent


def brief(value: float) -> str:
    """A number in three digits, without an exponent where it is short."""
    return f"{value:.0f}" if 1000 <= abs(value) < 100_000 else f"{value:.3g}"  # noqa: PLR2004 - as shown above


def _padded(low: float, high: float) -> list[float]:
    room = (high - low) * PADDING or abs(low) * PADDING or 0.5
    return [low - room, high + room]
