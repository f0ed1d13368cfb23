"""The charts of a study: the four of the status first. Each is a figure, or a sentence where there is nothing to draw.

All of it runs in a process of its own (see `renderer`), on plain values. Each figure has a cap on its points, since a
browser draws thousands of them and not more.

NB: Optuna's own plots are not used. They label axes with people's names unescaped, and Plotly would read those as markup;
they raise where trials are left out; and they are blank where a study has nothing to show yet.
"""

import json
import logging
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from itertools import accumulate
from typing import Any

import optuna
import plotly.graph_objects as go
from optuna.trial import FrozenTrial, TrialState

from tuning_operator.charts.drawing import (
    ACCENT,
    BEST_TO_WORST,
    FAINT_TO_STRONG,
    GOOD,
    STATE_COLORS,
    Drawing,
    Scale,
    dressed,
    hover,
    plain,
)
from tuning_operator.charts.parallel import WIDTH_OF_AXIS, parallel_coordinates
from tuning_operator.charts.subject import Subject, first_value
from tuning_operator.charts.wording import LABELS, counted, duration
from tuning_operator.importances import LEAST_TRIALS
from tuning_operator.model import utc

log = logging.getLogger(__name__)

MOST_TRIALS = 1000
MOST_POINTS = 8000
MOST_LINES = 60
MOST_STEPS = 200
MOST_BYTES = 2_000_000
WIDTH_OF_SLICE = 150
GAP_OF_PANELS = 0.16
LEAST_NUMBERS = 10
PERCENT = 0.01


@dataclass(frozen=True)
class Chart:
    """A kind of figure."""

    title: str
    caption: str
    draw: Callable[[Subject], Drawing]
    grows: bool = False
    """Each parameter makes it wider."""


def render(subject: Subject) -> dict[str, str]:
    """All figures of a study, each as the JSON that the page expects."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return {key: _as_json(key, chart, subject) for key, chart in CHARTS.items()}


def in_words(words: str) -> dict[str, str]:
    """All figures of a study, where the same sentence has to stand for each."""
    return dict.fromkeys(CHARTS, _document(Drawing(words=words)))


def _as_json(key: str, chart: Chart, subject: Subject) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            document = _document(chart.draw(subject))
    except TimeoutError:
        raise
    except Exception:  # one figure that cannot be drawn must not take the others with it
        log.exception("the chart %s could not be drawn", key)
        return _document(Drawing(words="This chart could not be drawn; the charts server's log says why."))
    if len(document) > MOST_BYTES:
        return _document(Drawing(words="This chart is too large to be shown in a browser."))
    return document


def _document(drawing: Drawing) -> str:
    figure = drawing.figure.to_json() if drawing.figure else "null"
    rest = {"words": drawing.words, "note": drawing.note, "minWidth": drawing.min_width}
    return f'{{"figure": {figure}, {json.dumps(rest)[1:]}'


# What each chart shows


def _optimization_history(subject: Subject) -> Drawing:
    if not subject.complete:
        return Drawing(words=subject.why_nothing_is_complete())
    sample = subject.sample(MOST_TRIALS)
    numbers = [trial.number for trial in sample.complete]
    values = [first_value(trial) for trial in sample.complete]
    best = sample.ranked[0]
    figure = dressed(
        _markers(sample, numbers, values, name="Trial", marker={"color": ACCENT, "size": 7, "opacity": 0.55}),
        go.Scatter(
            x=numbers,
            y=list(accumulate(values, max if subject.is_maximized else min)),
            mode="lines",
            name="Best so far",
            line={"color": GOOD, "width": 2.5, "shape": "hv"},
            hoverinfo="skip",
        ),
        go.Scatter(
            x=[best.number],
            y=[first_value(best)],
            mode="markers",
            name="Best",
            marker={"color": GOOD, "size": 13, "symbol": "star"},
            hoverinfo="skip",
        ),
        xaxis=_numbers(numbers[0], numbers[-1]),
        yaxis={"title": {"text": plain(subject.metric)}},
    )
    return Drawing(figure, note=_part(sample, subject))


def _param_importances(subject: Subject) -> Drawing:
    if words := _without_params(subject) or _without_importances(subject):
        return Drawing(words=words)
    shares = sorted(subject.importances.items(), key=lambda item: item[1])
    places = list(range(len(shares)))
    figure = dressed(
        go.Bar(
            x=[share for _, share in shares],
            y=places,
            orientation="h",
            text=[f"{share:.0%}" if share >= PERCENT else "&lt; 1%" for _, share in shares],
            textposition="outside",
            cliponaxis=False,
            marker={
                "color": [share for _, share in shares],
                "colorscale": FAINT_TO_STRONG,
                "cmin": 0,
                "cmax": shares[-1][1],
                "cornerradius": 4,
            },
            hovertext=[f"{plain(name)}: {share:.1%}" for name, share in shares],
            hovertemplate="%{hovertext}<extra></extra>",
        ),
        bargap=0.35,
        xaxis={
            "tickformat": ".0%",
            "range": [0, shares[-1][1] * 1.15],
            "title": {"text": "Share of what makes trials differ"},
        },
        yaxis={
            "tickmode": "array",
            "tickvals": places,
            "ticktext": [plain(name, 24) for name, _ in shares],
            "showgrid": False,
        },
    )
    return Drawing(figure)


def _without_importances(subject: Subject) -> str | None:
    missing = LEAST_TRIALS - len(subject.complete)
    if missing > 0:
        return f"{counted(missing, 'more complete trial')} until importances can be told."
    return "All complete trials have the same value, so no parameter stands out." if subject.is_flat else None


def _parallel_coordinate(subject: Subject) -> Drawing:
    if words := _without_params(subject):
        return Drawing(words=words)
    axes = len(subject.params) + 1
    sample = subject.sample(_most_trials(axes))
    return Drawing(parallel_coordinates(sample), note=_part(sample, subject), min_width=WIDTH_OF_AXIS * axes)


def _slice(subject: Subject) -> Drawing:
    if words := _without_params(subject):
        return Drawing(words=words)
    sample = subject.sample(_most_trials(len(subject.params)))
    scales = [Scale.of(name, sample.complete) for name in sample.params]
    figure = dressed(
        *(_panel(sample, scale, place) for place, scale in enumerate(scales, start=1)),
        showlegend=False,
        yaxis={"title": {"text": plain(sample.metric)}},
        **{
            f"xaxis{place}": scale.axis() | {"domain": _domain(place, of=len(scales))}
            for place, scale in enumerate(scales, start=1)
        },
    )
    return Drawing(figure, note=_part(sample, subject), min_width=WIDTH_OF_SLICE * len(scales) + 60)


def _domain(place: int, *, of: int) -> list[float]:
    """The part of the width that a panel takes, of panels beside each other."""
    width = 1 / (of + (of - 1) * GAP_OF_PANELS)
    start = (place - 1) * (1 + GAP_OF_PANELS) * width
    return [start, min(1.0, start + width)]


def _panel(subject: Subject, scale: Scale, place: int) -> go.Scatter:
    having = [trial for trial in subject.complete if scale.name in trial.params]
    return go.Scatter(
        x=[scale.at(trial) for trial in having],
        y=[first_value(trial) for trial in having],
        xaxis=f"x{place}",
        mode="markers",
        text=[hover(trial, subject.metric, (scale.name, trial.params[scale.name])) for trial in having],
        hovertemplate="%{text}<extra></extra>",
        marker={"color": [trial.number for trial in having], "colorscale": FAINT_TO_STRONG, "size": 7, "opacity": 0.8},
    )


def _intermediate_values(subject: Subject) -> Drawing:
    reported = [trial for trial in subject.trials if _finite_steps(trial)]
    if not reported:
        return Drawing(words="No trial has reported a finite value while it ran.")
    best = [trial for trial in subject.ranked if _finite_steps(trial)][: MOST_LINES // 2]
    chosen = {trial.number for trial in best}
    latest = [trial for trial in reversed(reported) if trial.number not in chosen][: MOST_LINES - len(best)]
    # The best one is drawn last, above all others.
    lines = [
        *(_learning_curve(trial) for trial in sorted([*best[1:], *latest], key=_order)),
        *map(_best_curve, best[:1]),
    ]
    named: set[str] = set()
    for line in lines:
        line.showlegend = line.name not in named
        named.add(line.name)
    figure = dressed(
        *lines,
        xaxis={"title": {"text": "Step"}},
        yaxis={"title": {"text": plain(subject.metric)}},
    )
    part = f"Shows {len(lines)} of {len(reported)} trials: the best and the latest."
    return Drawing(figure, note=part if len(lines) < len(reported) else None)


def _order(trial: FrozenTrial) -> tuple[bool, int]:
    """Pruned trials lie on top of complete ones: they are short, and would be hidden."""
    return trial.state is TrialState.PRUNED, trial.number


def _best_curve(trial: FrozenTrial) -> go.Scatter:
    curve = _learning_curve(trial)
    return curve.update(name="Best", legendgroup="Best", opacity=1, line={"color": GOOD, "width": 3.5})


def _learning_curve(trial: FrozenTrial) -> go.Scatter:
    """A trial's reported values; a dot marks where it was pruned, or its only step."""
    points = _finite_steps(trial)
    stride = max(1, math.ceil(len(points) / MOST_STEPS))
    points = [*points[:-1:stride], points[-1]]
    label, color = LABELS[trial.state], STATE_COLORS[trial.state]
    has_dot = trial.state is TrialState.PRUNED or len(points) == 1
    return go.Scatter(
        x=[step for step, _ in points],
        y=[value for _, value in points],
        mode="lines+markers" if has_dot else "lines",
        marker={"size": [0] * (len(points) - 1) + [6], "color": color, "line": {"width": 0}} if has_dot else None,
        line={"color": color, "width": 1.3},
        opacity=0.35 if trial.state is TrialState.COMPLETE else 0.8,
        name=label,
        legendgroup=label,
        hovertemplate=f"<b>Trial {trial.number}</b>, {label.lower()}<br>step %{{x}}: %{{y:.4g}}<extra></extra>",
    )


def _timeline(subject: Subject) -> Drawing:
    started = [trial for trial in subject.trials if trial.datetime_start]
    if not started:
        return Drawing(words="No trial has started yet.")
    shown = started[-MOST_TRIALS:]
    states = [state for state in STATE_COLORS if any(trial.state is state for trial in shown)]
    figure = dressed(
        *(_bars(subject, [trial for trial in shown if trial.state is state], state) for state in states),
        barmode="overlay",
        xaxis={"type": "date", "title": {"text": "Time (UTC)"}},
        yaxis=_numbers(shown[0].number, shown[-1].number),
    )
    note = f"Shows the latest {len(shown)} of {len(started)} trials." if len(shown) < len(started) else None
    return Drawing(figure, note=note)


def _bars(subject: Subject, trials: list[FrozenTrial], state: TrialState) -> go.Bar:
    lengths = [_length(trial, subject) for trial in trials]
    said = [(LABELS[state], duration(length.total_seconds())) for length in lengths]
    return go.Bar(
        base=[trial.datetime_start for trial in trials],
        x=[length / timedelta(milliseconds=1) for length in lengths],
        y=[trial.number for trial in trials],
        orientation="h",
        width=0.8,
        name=LABELS[state],
        marker={"color": STATE_COLORS[state], "line": {"width": 0}, "pattern": _pattern(state)},
        text=[hover(trial, subject.metric, words) for trial, words in zip(trials, said, strict=True)],
        textposition="none",
        hovertemplate="%{text}<extra></extra>",
    )


def _pattern(state: TrialState) -> dict[str, Any]:
    """Failures are hatched, for those who cannot tell their colour."""
    hatched = {
        "shape": "/",
        "fillmode": "overlay",
        "fgcolor": "#ffffff",
        "fgopacity": 0.55,
        "solidity": 0.25,
        "size": 7,
    }
    return hatched if state is TrialState.FAIL else {}


def _length(trial: FrozenTrial, subject: Subject) -> timedelta:
    start, end = utc(trial.datetime_start), utc(trial.datetime_complete) or subject.now
    return max(end - start, timedelta(0)) if start else timedelta(0)


def _rank(subject: Subject) -> Drawing:
    if words := _without_params(subject):
        return Drawing(words=words)
    by_importance = sorted(subject.params, key=lambda name: -subject.importances.get(name, 0.0))
    together = [name for name in by_importance if all(name in trial.params for trial in subject.complete)][:2]
    if len(together) < 2:  # noqa: PLR2004 - a plane has two
        return Drawing(words="This chart compares two parameters, and fewer than two are part of every trial.")
    sample = subject.sample(MOST_TRIALS)
    across, up = (Scale.of(name, sample.complete) for name in together)
    ranks = {trial.number: rank for rank, trial in enumerate(sample.ranked)}
    last = max(1, len(ranks) - 1)
    markers = _markers(
        sample,
        [across.at(trial) for trial in sample.complete],
        [up.at(trial) for trial in sample.complete],
        params=together,
        marker={
            "color": [ranks[trial.number] / last for trial in sample.complete],
            "colorscale": BEST_TO_WORST,
            "cmin": 0,
            "cmax": 1,
            "size": 9,
            "opacity": 0.85,
            "colorbar": {
                "thickness": 8,
                "outlinewidth": 0,
                "len": 0.9,
                "x": 1.02,
                "tickvals": [0, 1],
                "ticktext": ["best", "worst"],
            },
        },
    )
    return Drawing(dressed(markers, xaxis=across.axis(), yaxis=up.axis()), note=_part(sample, subject))


CHARTS: dict[str, Chart] = {
    "optimization-history": Chart(
        "Optimization history", "The value of each trial, and the best so far.", _optimization_history
    ),
    "param-importances": Chart(
        "Parameter importances", "How much each parameter decides about the value (PED-ANOVA).", _param_importances
    ),
    "parallel-coordinate": Chart(
        "Parallel coordinates", "Each line is a trial; the best are the strongest.", _parallel_coordinate, grows=True
    ),
    "slice": Chart("Slice", "The value over each parameter; later trials are stronger.", _slice, grows=True),
    "intermediate-values": Chart(
        "Intermediate values", "Learning curves; a dot marks where a trial was pruned.", _intermediate_values
    ),
    "timeline": Chart("Timeline", "When each trial ran, and how it ended.", _timeline),
    "rank": Chart("Rank", "Trials over the two most important parameters, coloured by rank.", _rank),
}
"""All charts; the first four are those that have a link of their own in a study's status."""


# What they have in common


def _markers(
    subject: Subject,
    x: list[Any],
    y: list[Any],
    *,
    marker: dict[str, Any],
    name: str | None = None,
    params: list[str] | None = None,
) -> go.Scatter:
    """A marker for each complete trial, which says the trial under the pointer."""
    said = ([(param, trial.params[param]) for param in params or []] for trial in subject.complete)
    return go.Scatter(
        x=x,
        y=y,
        mode="markers",
        name=name,
        marker=marker,
        text=[hover(trial, subject.metric, *more) for trial, more in zip(subject.complete, said, strict=True)],
        hovertemplate="%{text}<extra></extra>",
    )


def _numbers(first: int, last: int) -> dict[str, Any]:
    """An axis of trials' numbers, not too short: one trial alone would be stretched over all of it."""
    upper = max(last, first + LEAST_NUMBERS - 1)
    room = 0.7 + (upper - first) * 0.02
    return {"title": {"text": "Trial"}, "tickformat": "d", "range": [first - room, upper + room]}


def _without_params(subject: Subject) -> str | None:
    if not subject.complete:
        return subject.why_nothing_is_complete()
    return None if subject.params else "The complete trials have no parameters."


def _most_trials(places: int) -> int:
    """So many trials that all their points can be drawn."""
    return min(MOST_TRIALS, MOST_POINTS // places)


def _part(sample: Subject, subject: Subject) -> str | None:
    of, all_ = len(sample.complete), len(subject.complete)
    return f"Shows {of} of {all_} complete trials: the best, and an even choice of the others." if of < all_ else None


def _finite_steps(trial: FrozenTrial) -> list[tuple[int, float]]:
    return [(step, value) for step, value in sorted(trial.intermediate_values.items()) if math.isfinite(value)]
