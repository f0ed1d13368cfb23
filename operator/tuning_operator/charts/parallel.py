"""Parallel coordinates: a vertical axis for the value and for each parameter, and a line across them for each trial.

NB: not Optuna's. Plotly's own trace for them compiles code at run time, which the page's Content-Security-Policy forbids,
and it cannot draw a parameter that exists in some trials only.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import plotly.graph_objects as go
from optuna.trial import FrozenTrial

from tuning_operator.charts.drawing import GOOD, Scale, brief, dressed, hover, plain
from tuning_operator.charts.subject import Subject, value_of
from tuning_operator.charts.wording import shortened, told_apart

WIDTH_OF_AXIS = 76
WIDTH_OF_LETTER = 7.6
"""Pixels, of a bold one on average."""
LETTERS_OF_HEADING = 20
_STYLES = (
    (0.0, {"color": GOOD, "width": 3.2}),
    (0.1, {"color": "rgba(91, 79, 240, 0.75)", "width": 1.8}),
    (0.3, {"color": "rgba(99, 102, 241, 0.5)", "width": 1.4}),
    (0.6, {"color": "rgba(129, 140, 200, 0.38)", "width": 1.1}),
    (1.0, {"color": "rgba(139, 149, 167, 0.28)", "width": 1}),
)
"""The lines of the best trial, of the best tenth, and so on."""
_OF_FRONT = {"color": GOOD, "width": 2}
_DOMINATED = _STYLES[2][1]
_INFEASIBLE = {"color": "rgba(139, 149, 167, 0.55)", "width": 1, "dash": "dot"}


@dataclass(frozen=True)
class _Axis:
    name: str
    height: Callable[[FrozenTrial], float | None]
    """Where a trial crosses the axis, from 0 to 1; None where it has no such parameter."""
    ticks: Sequence[tuple[float, str]]
    said: Callable[[FrozenTrial], list[tuple[str, object]]]
    """What is said about a trial where it crosses."""


def headings(subject: Subject) -> list[str]:
    """What stands above each axis: the objectives', then the parameters'."""
    labels = told_apart(subject.params, LETTERS_OF_HEADING)
    return [
        *(shortened(metric, LETTERS_OF_HEADING) for metric in subject.metrics),
        *(labels[name] for name in subject.params),
    ]


def width_of(labels: Sequence[str]) -> int:
    """Pixels that all axes need: two neighbours' headings stand beside each other, each in the middle of its axis."""
    pairs = pairwise(labels)
    apart = max((len(left) + len(right)) / 2 * WIDTH_OF_LETTER + 10 for left, right in pairs)
    return math.ceil(max(apart, WIDTH_OF_AXIS) * len(labels))


def parallel_coordinates(subject: Subject, labels: Sequence[str]) -> go.Figure:
    """Draw complete trials, at least one, with a label above each axis."""
    objectives = range(len(subject.metrics))
    axes = [
        *(_value_axis(subject, objective) for objective in objectives),
        *(_param_axis(subject, name) for name in subject.params),
    ]
    return dressed(
        *(_lines(group, axes, style, subject.metrics) for group, style in _groups(subject)),
        showlegend=False,
        margin={"l": 32, "r": 52, "t": 34, "b": 14},
        xaxis={"visible": False, "range": [-0.15, len(axes) - 0.75]},
        yaxis={"visible": False, "range": [-0.06, 1.04]},
        shapes=[
            {"type": "line", "x0": at, "x1": at, "y0": 0, "y1": 1, "name": "axis", "line": {"width": 1}}
            for at in range(len(axes))
        ],
        annotations=[note for at, axis in enumerate(axes) for note in _notes(at, axis, labels[at])],
    )


def _value_axis(subject: Subject, objective: int) -> _Axis:
    values = [value_of(trial, objective) for trial in subject.complete]
    low, high = min(values), max(values)

    def height(trial: FrozenTrial) -> float:
        return _share(value_of(trial, objective), low, high)

    return _Axis(subject.metrics[objective], height, _ends(low, high), lambda _: [])


def _param_axis(subject: Subject, name: str) -> _Axis:
    scale = Scale.of(name, subject.complete)

    def said(trial: FrozenTrial) -> list[tuple[str, object]]:
        return [(name, trial.params[name])] if name in trial.params else []

    if scale.choices:
        last = len(scale.choices) - 1
        ticks = [(_share(rank, 0, last), text) for rank, text in scale.ticks()]
        return _Axis(name, lambda trial: _placed(scale.at(trial), float, 0, last), ticks, said)
    values = [at for trial in subject.complete if (at := scale.at(trial)) is not None]
    low, high = min(values), max(values)
    bend = math.log if scale.is_log else float
    return _Axis(name, lambda trial: _placed(scale.at(trial), bend, low, high), _ends(low, high), said)


def _placed(at: float | None, bend: Callable[[float], float], low: float, high: float) -> float | None:
    return None if at is None else _share(bend(at), bend(low), bend(high))


def _share(value: float, low: float, high: float) -> float:
    """A height on an axis, to a hundredth of a pixel: of more digits nobody sees anything, and thousands are sent."""
    return round((value - low) / (high - low), 5) if high > low else 0.5


def _ends(low: float, high: float) -> list[tuple[float, str]]:
    return [(0.5, brief(low))] if low == high else [(0.0, brief(low)), (1.0, brief(high))]


def _groups(subject: Subject) -> list[tuple[Sequence[FrozenTrial], dict[str, Any]]]:
    """Trials with the style of their lines, worst first, so that the best lie on top."""
    feasible = subject.ranked[: len(subject.feasible)]
    best = len(subject.best)
    groups = [(feasible[:best], _OF_FRONT), (feasible[best:], _DOMINATED)] if subject.has_front else _by_rank(feasible)
    return [(group, style) for group, style in reversed([*groups, (subject.infeasible, _INFEASIBLE)]) if group]


def _by_rank(ranked: Sequence[FrozenTrial]) -> list[tuple[Sequence[FrozenTrial], dict[str, Any]]]:
    groups, start = [], 0
    for share, style in _STYLES:
        end = max(1, math.ceil(len(ranked) * share))
        groups.append((ranked[start:end], style))
        start = end
    return groups


def _lines(
    trials: Sequence[FrozenTrial], axes: list[_Axis], style: dict[str, Any], metrics: Sequence[str]
) -> go.Scatter:
    """One trace for many trials: a gap (None) ends each line.

    Dots are for what has no line to it, and for the best: each is an element of its own in the page, all lines are one.
    """
    across = [*range(len(axes)), None]
    heights = [height for trial in trials for height in (*(axis.height(trial) for axis in axes), None)]
    is_best = style["color"] == GOOD
    return go.Scatter(
        x=across * len(trials),
        y=heights,
        text=[
            words for trial in trials for words in (*(hover(trial, metrics, *axis.said(trial)) for axis in axes), "")
        ],
        mode="lines+markers" if is_best or _has_lone_points(heights) else "lines",
        line=style,
        marker={"size": 6 if is_best else 3},
        hovertemplate="%{text}<extra></extra>",
    )


def _has_lone_points(heights: Sequence[float | None]) -> bool:
    """Whether any point has a gap on either side, as of a parameter between two that the trial has not."""
    around = zip([None, *heights], heights, [*heights[1:], None], strict=False)
    return any(at is not None and before is after is None for before, at, after in around)


def _notes(at: int, axis: _Axis, label: str) -> list[dict[str, Any]]:
    common = {"showarrow": False, "x": at}
    name = {"text": f"<b>{plain(label)}</b>", "y": 1, "yanchor": "bottom", "yshift": 10}
    ticks = [
        {"text": label, "y": height, "xanchor": "left", "xshift": 5, "name": "tick", "font": {"size": 11}}
        for height, label in axis.ticks
    ]
    return [common | name, *(common | tick for tick in ticks)]
