"""The figures of a study: Optuna's own plots in this project's dress, and sentences where there is nothing to draw.

All of it runs in a process of its own (see `renderer`), on plain values. Each figure has a cap on its trials, since some of
Optuna's plots grow with the square of their number. Colours are mid-tones that hold on white and on near-black alike; what
must differ between the two (text, grid) is set in the browser.

NB: two of Optuna's plots are drawn here. Its optimization history takes a trial's number for its place in the list, and
raises where trials are left out. Its parallel coordinates use a trace of Plotly's that compiles code at run time, which
the page's Content-Security-Policy forbids, and cannot follow a parameter that exists in some trials only.
"""

import json
import logging
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import optuna
import plotly.graph_objects as go
from optuna import visualization
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

log = logging.getLogger(__name__)

MOST_TRIALS = 1000
MOST_TRIALS_OF_RANK = 300
MOST_LINES = 60
MOST_STEPS = 200
MOST_BYTES = 2_000_000
LEAST_TRIALS_FOR_IMPORTANCES = 4

ACCENT = "#6366f1"
GOOD = "#10a37f"
MUTED = "#8b95a7"
WARM = "#e5484d"
AMBER = "#e59f0a"
STATE_COLORS = {"COMPLETE": GOOD, "PRUNED": AMBER, "FAIL": WARM, "RUNNING": ACCENT, "WAITING": MUTED}
AGES = [[0.0, "#aab4c8"], [0.5, "#8187ee"], [1.0, "#4f46e5"]]
RANKS = [[0.0, "#10a37f"], [0.5, "#a8b0bf"], [1.0, "#e5484d"]]

TEMPLATE = go.layout.Template(
    layout={
        "font": {"family": "Inter, system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 12},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "colorway": [ACCENT, GOOD, AMBER, WARM, "#0ea5e9", "#d946ef"],
        "margin": {"l": 56, "r": 16, "t": 12, "b": 48},
        "hovermode": "closest",
        "xaxis": {"zeroline": False, "automargin": True, "title": {"standoff": 8}},
        "yaxis": {"zeroline": False, "automargin": True, "title": {"standoff": 8}},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom"},
    }
)


@dataclass(frozen=True)
class Subject:
    """What is drawn: a study's trials that count, and what they were judged by."""

    trials: tuple[FrozenTrial, ...]
    directions: tuple[StudyDirection, ...] = (StudyDirection.MINIMIZE,)
    metric: str = "objective"

    @property
    def complete(self) -> tuple[FrozenTrial, ...]:
        """Trials with a finite value: infinite ones cannot be drawn."""
        return tuple(
            trial for trial in self.trials if trial.state is TrialState.COMPLETE and math.isfinite(first_value(trial))
        )

    @property
    def params(self) -> list[str]:
        """Names of the parameters of complete trials, as first met."""
        return list(dict.fromkeys(name for trial in self.complete for name in trial.params))

    def best_first(self) -> list[FrozenTrial]:
        """Complete trials from best to worst; of equals the earlier one first."""
        sign = -1 if self.directions[0] is StudyDirection.MAXIMIZE else 1
        return sorted(self.complete, key=lambda trial: (sign * first_value(trial), trial.number))


@dataclass(frozen=True)
class Drawing:
    """A figure, or the words in its place."""

    figure: go.Figure | None = None
    words: str | None = None
    note: str | None = None
    """What the reader should know about the figure, such as that it shows a part of the trials."""
    min_width: int = 0
    """Pixels below which the figure is scrolled instead of squeezed."""


@dataclass(frozen=True)
class Chart:
    """A kind of figure."""

    title: str
    caption: str
    draw: Callable[[Subject], Drawing]


def first_value(trial: FrozenTrial) -> float:
    """The value of a complete trial under the first objective."""
    return float(trial.values[0]) if trial.values else math.nan


def render(subject: Subject) -> dict[str, str]:
    """All figures of a study, each as the JSON that the page expects."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return {key: _as_json(key, chart, subject) for key, chart in CHARTS.items()}


def _as_json(key: str, chart: Chart, subject: Subject) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            drawing = chart.draw(subject)
    except TimeoutError:
        raise
    except Exception:  # one figure that cannot be drawn must not take the others with it
        log.exception("the chart %s could not be drawn", key)
        drawing = Drawing(words="This chart could not be drawn; the charts server's log says why.")
    figure = drawing.figure.to_json() if drawing.figure else "null"
    if len(figure) > MOST_BYTES:
        figure, drawing = "null", Drawing(words="This chart is too large to be shown in a browser.")
    rest = {"words": drawing.words, "note": drawing.note, "minWidth": drawing.min_width}
    return f'{{"figure": {figure}, {json.dumps(rest)[1:]}'


# What each chart shows


def _optimization_history(subject: Subject) -> Drawing:
    if not subject.complete:
        return Drawing(words=nothing_complete(subject))
    shown = _sample(subject, MOST_TRIALS)
    numbers = [trial.number for trial in shown.complete]
    values = [first_value(trial) for trial in shown.complete]
    better = max if subject.directions[0] is StudyDirection.MAXIMIZE else min
    figure = go.Figure(
        [
            go.Scatter(
                x=numbers,
                y=values,
                mode="markers",
                name="Trial",
                marker={"color": ACCENT, "size": 7, "opacity": 0.6},
                hovertemplate="Trial %{x}: %{y:.4g}<extra></extra>",
            ),
            go.Scatter(
                x=numbers,
                y=list(accumulate(values, better)),
                mode="lines",
                name="Best so far",
                line={"color": GOOD, "width": 2.5, "shape": "hv"},
                hoverinfo="skip",
            ),
        ]
    )
    figure.update_xaxes(title_text="Trial")
    figure.update_yaxes(title_text=subject.metric)
    return Drawing(_dress(figure), note=_part(shown, subject))


def _param_importances(subject: Subject) -> Drawing:
    if words := _without_params(subject):
        return Drawing(words=words)
    shares = importances(subject)
    if not shares:
        missing = LEAST_TRIALS_FOR_IMPORTANCES - len(subject.complete)
        if missing > 0:
            return Drawing(words=f"{_count(missing, 'more complete trial')} until importances can be told.")
        return Drawing(words="All complete trials have the same value, so no parameter stands out.")
    ordered = sorted(shares.items(), key=lambda item: item[1])
    figure = go.Figure(
        go.Bar(
            x=[share for _, share in ordered],
            y=[name for name, _ in ordered],
            orientation="h",
            text=[f"{share:.0%}" if share >= 0.01 else "< 1%" for _, share in ordered],  # noqa: PLR2004 - below it rounds to 0
            textposition="outside",
            cliponaxis=False,
            marker={"color": [share for _, share in ordered], "colorscale": AGES, "cmin": 0, "cornerradius": 4},
            hovertemplate="%{y}: %{x:.1%}<extra></extra>",
        )
    )
    figure.update_xaxes(tickformat=".0%", range=[0, max(shares.values()) * 1.15], title_text="Share of the difference")
    figure.update_yaxes(type="category")
    figure.update_layout(bargap=0.35)
    return Drawing(_dress(figure))


def _parallel_coordinate(subject: Subject) -> Drawing:
    if words := _without_params(subject):
        return Drawing(words=words)
    shown = _sample(subject, MOST_TRIALS)
    axes = [_value_axis(shown), *(_param_axis(shown, name) for name in shown.params)]
    figure = go.Figure([_lines(group, axes, style) for group, style in _by_rank(shown)])
    figure.update_layout(
        showlegend=False,
        margin={"l": 36, "r": 48, "t": 34, "b": 16},
        shapes=[
            {"type": "line", "x0": at, "x1": at, "y0": 0, "y1": 1, "name": "axis", "line": {"width": 1}}
            for at in range(len(axes))
        ],
        annotations=[note for at, axis in enumerate(axes) for note in _axis_notes(at, axis)],
    )
    figure.update_xaxes(visible=False, range=[-0.15, len(axes) - 0.75])
    figure.update_yaxes(visible=False, range=[-0.06, 1.04])
    return Drawing(_dress(figure), note=_part(shown, subject), min_width=110 * len(axes))


def _slice(subject: Subject) -> Drawing:
    if words := _without_params(subject):
        return Drawing(words=words)
    shown = _sample(subject, MOST_TRIALS)
    figure = visualization.plot_slice(_View(shown), target=_target(shown), target_name=shown.metric)
    figure.update_traces(
        marker={"colorscale": AGES, "size": 7, "opacity": 0.85, "line": {"width": 0}, "colorbar": _color_bar("Trial")},
        selector={"type": "scatter"},
    )
    return Drawing(_dress(figure), note=_part(shown, subject), min_width=160 * len(shown.params) + 60)


def _intermediate_values(subject: Subject) -> Drawing:
    reported = [trial for trial in subject.trials if _finite_steps(trial)]
    if not reported:
        return Drawing(words="No trial has reported a value while it ran.")
    best = [trial for trial in subject.best_first() if trial in reported][: MOST_LINES // 2]
    latest = [trial for trial in reversed(reported) if trial not in best][: MOST_LINES - len(best)]
    shown = sorted([*best, *latest], key=lambda trial: trial.number)
    # The best one is drawn last, above all others.
    shown.sort(key=lambda trial: trial is (best[0] if best else None))
    figure = go.Figure([_steps(trial, is_best=bool(best) and trial is best[0]) for trial in shown])
    figure.update_layout(showlegend=False)
    figure.update_xaxes(title_text="Step")
    figure.update_yaxes(title_text=subject.metric)
    part = f"Shows {len(shown)} of {len(reported)} trials: the best and the latest."
    return Drawing(_dress(figure), note=part if len(shown) < len(reported) else None)


def _timeline(subject: Subject) -> Drawing:
    started = tuple(trial for trial in subject.trials if trial.datetime_start)
    if not started:
        return Drawing(words="No trial has started yet.")
    shown = replace(subject, trials=started[-MOST_TRIALS:])
    figure = visualization.plot_timeline(_View(shown))
    for trace in figure.data:
        state = str(trace.name)
        trace.update(marker={"color": STATE_COLORS.get(state.upper(), MUTED), "line": {"width": 0}})
    figure.update_xaxes(title_text="Time (UTC)")
    figure.update_layout(bargap=0.15)
    note = f"Shows the latest {MOST_TRIALS} of {len(started)} trials." if len(started) > MOST_TRIALS else None
    return Drawing(_dress(figure), note=note)


def _rank(subject: Subject) -> Drawing:
    if words := _without_params(subject):
        return Drawing(words=words)
    together = [name for name in _most_important(subject) if _is_everywhere(name, subject)][:2]
    if len(together) < 2:  # noqa: PLR2004 - a plane has two
        return Drawing(words="This chart compares two parameters, and fewer than two are part of every trial.")
    shown = _sample(subject, MOST_TRIALS_OF_RANK)
    figure = visualization.plot_rank(_View(shown), params=together, target=_target(shown), target_name=shown.metric)
    ranks = {trial.number: at / max(1, len(shown.complete) - 1) for at, trial in enumerate(shown.best_first())}
    figure.data = figure.data[:1]
    ordered = shown.complete
    figure.update_traces(
        marker={
            "color": [ranks[trial.number] for trial in ordered],
            "colorscale": RANKS,
            "cmin": 0,
            "cmax": 1,
            "size": 9,
            "opacity": 0.85,
            "line": {"width": 0},
            "colorbar": _color_bar("Rank") | {"tickvals": [0, 1], "ticktext": ["best", "worst"]},
            "showscale": True,
        }
    )
    return Drawing(_dress(figure), note=_part(shown, subject))


CHARTS: dict[str, Chart] = {
    "optimization-history": Chart(
        "Optimization history", "The value of each trial, and the best so far.", _optimization_history
    ),
    "param-importances": Chart(
        "Parameter importances", "How much each parameter decides about the value (PED-ANOVA).", _param_importances
    ),
    "parallel-coordinate": Chart(
        "Parallel coordinates", "Each line is a trial; the best are the strongest.", _parallel_coordinate
    ),
    "slice": Chart("Slice", "The value over each parameter; later trials are darker.", _slice),
    "intermediate-values": Chart(
        "Intermediate values", "Learning curves; where an amber one ends, the trial was pruned.", _intermediate_values
    ),
    "timeline": Chart("Timeline", "When each trial ran, and how it ended.", _timeline),
    "rank": Chart("Rank", "Trials over the two most important parameters, coloured by rank.", _rank),
}
"""All charts; the first four are those that have a link of their own in a study's status."""


# Values


class _View(optuna.study.Study):
    """A study of given trials; in a copy through Optuna's API the trials would be numbered anew."""

    def __init__(self, subject: Subject) -> None:
        storage = InMemoryStorage()
        storage.create_new_study(subject.directions, "view")
        super().__init__("view", storage)
        self._shown = subject.trials

    def get_trials(self, deepcopy: bool = True, states: Any = None) -> list[FrozenTrial]:  # noqa: ARG002, FBT001, FBT002
        return [trial for trial in self._shown if states is None or trial.state in states]


def importances(subject: Subject) -> dict[str, float]:
    """Share of each parameter in what makes trials differ; empty while that cannot be told."""
    complete = subject.complete
    if len(complete) < LEAST_TRIALS_FOR_IMPORTANCES or len({first_value(trial) for trial in complete}) < 2:  # noqa: PLR2004
        return {}
    view = _View(subject)
    return dict(get_param_importances(view, evaluator=PedAnovaImportanceEvaluator(), target=_target(subject)))


def nothing_complete(subject: Subject) -> str:
    """Why there is no value to show."""
    states = [trial.state for trial in subject.trials]
    ended = [state for state in states if state.is_finished()]
    if not ended and TrialState.RUNNING in states:
        return f"{_count(states.count(TrialState.RUNNING), 'trial')} running, none complete yet."
    if not ended:
        return "No trial has run yet."
    if TrialState.COMPLETE in ended:
        return "No complete trial has a finite value."
    if all(state is TrialState.PRUNED for state in ended):
        return f"No trial has completed: {_count(len(ended), 'trial')} ended, and all were pruned."
    if all(state is TrialState.FAIL for state in ended):
        return f"No trial has completed: {_count(len(ended), 'trial')} ended, and all failed."
    return f"No trial has completed: {_count(len(ended), 'trial')} ended, all of them pruned or failed."


def _without_params(subject: Subject) -> str | None:
    if not subject.complete:
        return nothing_complete(subject)
    return None if subject.params else "The complete trials have no parameters."


def _target(subject: Subject) -> Callable[[FrozenTrial], float] | None:
    return first_value if len(subject.directions) > 1 else None


def _sample(subject: Subject, most: int) -> Subject:
    """The trials, or the best half and an even choice of the others, in their order."""
    finite = subject.complete
    if len(finite) <= most:
        return replace(subject, trials=finite)
    ranked = subject.best_first()
    best, others = ranked[: most // 2], sorted(ranked[most // 2 :], key=lambda trial: trial.number)
    room = most - len(best)
    chosen = [*best, *(others[at * len(others) // room] for at in range(room))]
    return replace(subject, trials=tuple(sorted(chosen, key=lambda trial: trial.number)))


def _part(shown: Subject, subject: Subject) -> str | None:
    of, all_ = len(shown.complete), len(subject.complete)
    return f"Shows {of} of {all_} complete trials: the best, and an even choice of the others." if of < all_ else None


def _most_important(subject: Subject) -> list[str]:
    shares = importances(subject)
    return sorted(subject.params, key=lambda name: -shares.get(name, 0.0))


def _is_everywhere(name: str, subject: Subject) -> bool:
    return all(name in trial.params for trial in subject.complete)


def _finite_steps(trial: FrozenTrial) -> list[tuple[int, float]]:
    return [(step, value) for step, value in sorted(trial.intermediate_values.items()) if math.isfinite(value)]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


# Parallel coordinates


@dataclass(frozen=True)
class _Axis:
    name: str
    place: Callable[[FrozenTrial], float | None]
    """Height of a trial on the axis, from 0 to 1; None where it has no such parameter."""
    ticks: Sequence[tuple[float, str]]


def _value_axis(subject: Subject) -> _Axis:
    values = [first_value(trial) for trial in subject.complete]
    low, high = min(values), max(values)
    return _Axis(subject.metric, lambda trial: _between(first_value(trial), low, high), _range_ticks(low, high))


def _param_axis(subject: Subject, name: str) -> _Axis:
    having = [trial for trial in subject.complete if name in trial.params]
    distribution = having[-1].distributions[name]
    if isinstance(distribution, CategoricalDistribution):
        return _choices_axis(name, having)
    numbers = [float(trial.params[name]) for trial in having]
    is_log = isinstance(distribution, FloatDistribution | IntDistribution) and distribution.log and min(numbers) > 0
    scale = math.log if is_log else float
    low, high = scale(min(numbers)), scale(max(numbers))

    def place(trial: FrozenTrial) -> float | None:
        return _between(scale(trial.params[name]), low, high) if name in trial.params else None

    return _Axis(name, place, _range_ticks(min(numbers), max(numbers)))


def _choices_axis(name: str, having: list[FrozenTrial]) -> _Axis:
    choices = sorted({_choice(trial.params[name]) for trial in having}, key=_natural)
    at = {choice: _between(float(rank), 0.0, len(choices) - 1.0) for rank, choice in enumerate(choices)}

    def place(trial: FrozenTrial) -> float | None:
        return at[_choice(trial.params[name])] if name in trial.params else None

    return _Axis(name, place, [(height, _short(choice, 14)) for choice, height in at.items()])


def _choice(value: object) -> str:
    return "none" if value is None else str(value)


def _natural(text: str) -> tuple[int, float, str]:
    """Numbers before words, and in their order."""
    try:
        return 0, float(text), text
    except ValueError:
        return 1, 0.0, text


def _between(value: float, low: float, high: float) -> float:
    return (value - low) / (high - low) if high > low else 0.5


def _range_ticks(low: float, high: float) -> list[tuple[float, str]]:
    return [(0.5, f"{low:.3g}")] if low == high else [(0.0, f"{low:.3g}"), (1.0, f"{high:.3g}")]


def _by_rank(subject: Subject) -> list[tuple[list[FrozenTrial], dict[str, Any]]]:
    """Trials in groups, worst first so that the best lie on top, each with its line."""
    ranked = subject.best_first()
    cuts = [0, 1, *(max(1, math.ceil(len(ranked) * share)) for share in (0.1, 0.3, 0.6, 1.0))]
    styles = [
        {"color": GOOD, "width": 3},
        {"color": "rgba(79, 70, 229, 0.75)", "width": 1.8},
        {"color": "rgba(99, 102, 241, 0.5)", "width": 1.4},
        {"color": "rgba(129, 140, 200, 0.38)", "width": 1.1},
        {"color": "rgba(139, 149, 167, 0.28)", "width": 1},
    ]
    groups = [(ranked[start:end], style) for start, end, style in zip(cuts[:-1], cuts[1:], styles, strict=True)]
    return [(group, style) for group, style in reversed(groups) if group]


def _lines(trials: list[FrozenTrial], axes: list[_Axis], style: dict[str, Any]) -> go.Scatter:
    """One trace for many trials: a gap (None) ends each line."""
    across = [*range(len(axes)), None]
    return go.Scatter(
        x=across * len(trials),
        y=[height for trial in trials for height in (*(axis.place(trial) for axis in axes), None)],
        mode="lines+markers",
        line=style,
        marker={"size": 5 if style["width"] > 2 else 3},  # noqa: PLR2004 - the best one
        text=[words for trial in trials for words in [_describe(trial, axes[0].name)] * len(across)],
        hovertemplate="%{text}<extra></extra>",
    )


def _describe(trial: FrozenTrial, metric: str) -> str:
    lines = [f"{_markup(_short(name))}: {_markup(_number(value))}" for name, value in trial.params.items()]
    return "<br>".join([f"<b>Trial {trial.number}</b>", f"{_markup(metric)}: {first_value(trial):.4g}", *lines])


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else _short(_choice(value))


def _axis_notes(at: int, axis: _Axis) -> list[dict[str, Any]]:
    plain = {"showarrow": False, "x": at}
    name = {"text": f"<b>{_markup(_short(axis.name, 16))}</b>", "y": 1, "yanchor": "bottom", "yshift": 8}
    ticks = [
        {"text": _markup(label), "y": height, "xanchor": "left", "xshift": 5, "name": "tick", "font": {"size": 11}}
        for height, label in axis.ticks[:12]
    ]
    return [plain | name, *(plain | tick for tick in ticks)]


# Dress


def _steps(trial: FrozenTrial, *, is_best: bool) -> go.Scatter:
    points = _finite_steps(trial)
    stride = max(1, math.ceil(len(points) / MOST_STEPS))
    points = [*points[:-1:stride], points[-1]]
    color = GOOD if is_best else STATE_COLORS[trial.state.name] if trial.state is not TrialState.COMPLETE else ACCENT
    return go.Scatter(
        x=[step for step, _ in points],
        y=[value for _, value in points],
        mode="lines+markers" if len(points) == 1 else "lines",
        line={"color": color, "width": 3 if is_best else 1.3},
        opacity=1 if is_best else 0.5,
        name=f"Trial {trial.number}" + (" (best)" if is_best else ""),
        hovertemplate=f"Trial {trial.number}, {trial.state.name.lower()}<br>step %{{x}}: %{{y:.4g}}<extra></extra>",
    )


def _color_bar(title: str) -> dict[str, Any]:
    return {"title": {"text": title, "side": "right"}, "thickness": 8, "outlinewidth": 0, "len": 0.9, "x": 1.02}


def _dress(figure: go.Figure) -> go.Figure:
    """Replace Optuna's looks by ours: the card has the title, and names are shown as they are.

    NB: Plotly reads HTML-like markup in every text; names come from people, so theirs are escaped.
    """
    figure.update_layout(template=TEMPLATE, title=None, width=None, height=None, autosize=True)
    for axis in (*figure.select_xaxes(), *figure.select_yaxes()):
        if axis.title.text:
            axis.title.text = _markup(_short(axis.title.text))
    return figure


def _markup(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _short(text: str, most: int = 40) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
