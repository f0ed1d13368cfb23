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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import accumulate, combinations
from typing import Any

import optuna
import plotly.graph_objects as go
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from tuning_operator.charts.drawing import (
    ACCENT,
    BELOW_LEGEND,
    BEST_TO_WORST,
    FAINT_TO_STRONG,
    GOOD,
    INFEASIBLE,
    STATE_COLORS,
    Drawing,
    Scale,
    dressed,
    hover,
    panel_domain,
    plain,
)
from tuning_operator.charts.parallel import headings, parallel_coordinates, width_of
from tuning_operator.charts.subject import Subject, value_of
from tuning_operator.charts.wording import LABELS, counted, duration, told_apart
from tuning_operator.importances import LEAST_TRIALS, Share
from tuning_operator.model import utc

log = logging.getLogger(__name__)

MOST_TRIALS = 1000
MOST_POINTS = 3000
MOST_LINES = 60
MOST_STEPS = 200
MOST_BYTES = 2_000_000
WIDTH_OF_SLICE = 150
GAP_OF_PANELS = 0.16
GAP_OF_PLANES = 0.42
HEIGHT_OF_ROW = 195
HEIGHT_OF_BAR = 20
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
    return {key: _as_json(key, chart, subject) for key, chart in charts_of(subject.directions).items()}


def in_words(words: str, subject: Subject) -> dict[str, str]:
    """All figures of a study, where the same sentence has to stand for each."""
    return dict.fromkeys(charts_of(subject.directions), _document(Drawing(words=words)))


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
    rest = {
        "words": drawing.words,
        "note": drawing.note,
        "minWidth": drawing.min_width,
        "minHeight": drawing.min_height,
    }
    return f'{{"figure": {figure}, {json.dumps(rest)[1:]}'


# What each chart shows


def _optimization_history(subject: Subject) -> Drawing:
    if not subject.complete:
        return Drawing(words=subject.why_nothing_is_complete())
    sample = subject.sample(MOST_TRIALS)
    rows = len(subject.metrics)
    numbers = [trial.number for trial in sample.complete]
    figure = dressed(
        *(trace for objective in range(rows) for trace in _history(sample, objective)),
        margin=BELOW_LEGEND,
        xaxis=_numbers(numbers[0], numbers[-1]) | {"anchor": _row(rows - 1, "y")},
        **_rows(subject.metrics),
    )
    return Drawing(figure, note=_part(sample, subject), min_height=_height(rows))


def _history(subject: Subject, objective: int) -> list[go.Scatter]:
    """The values under one objective, the best of them so far, and the trials that are best of all."""
    numbers = [trial.number for trial in subject.feasible]
    values = [value_of(trial, objective) for trial in subject.feasible]
    best = "On the front" if subject.has_front else "Best"
    traces = [
        _markers(subject, subject.feasible, numbers, values, name="Trial", marker=_DOTS),
        go.Scatter(
            x=numbers,
            y=list(accumulate(values, max if subject.is_maximized(objective) else min)),
            mode="lines",
            name="Best so far",
            line={"color": GOOD, "width": 2.5, "shape": "hv"},
            hoverinfo="skip",
        ),
        go.Scatter(
            x=[trial.number for trial in subject.best],
            y=[value_of(trial, objective) for trial in subject.best],
            mode="markers",
            name=best,
            marker={"color": GOOD, "size": 9 if subject.has_front else 13, "symbol": "star"},
            hoverinfo="skip",
        ),
        *_crosses(subject, [value_of(trial, objective) for trial in subject.infeasible]),
    ]
    for trace in traces:
        trace.update(yaxis=_row(objective, "y"), showlegend=objective == 0, legendgroup=trace.name)
    return [trace for trace in traces if trace.x]


def _crosses(subject: Subject, values: list[float]) -> list[go.Scatter]:
    """Trials that break a constraint, over their numbers."""
    numbers = [trial.number for trial in subject.infeasible]
    return [_markers(subject, subject.infeasible, numbers, values, name="Infeasible", marker=INFEASIBLE)]


def _pareto_front(subject: Subject) -> Drawing:
    """Every pair of objectives in a plane of its own: a third dimension would need another kind of figure."""
    if not subject.complete:
        return Drawing(words=subject.why_nothing_is_complete())
    sample = subject.sample(MOST_TRIALS)
    planes = list(combinations(range(len(subject.metrics)), 2))
    figure = dressed(
        *(trace for place, plane in enumerate(planes) for trace in _plane(sample, plane, place)),
        margin=BELOW_LEGEND,
        **{
            f"xaxis{place}": {"title": {"text": _aim(subject, across)}, "anchor": f"y{place}", "nticks": 6}
            for place, (across, _) in enumerate(planes, start=1)
        },
        **{
            f"yaxis{place}": {
                "title": {"text": _aim(subject, up)},
                "domain": panel_domain(len(planes) + 1 - place, of=len(planes), gap=GAP_OF_PLANES),
                "anchor": f"x{place}",
                "nticks": 6,
            }
            for place, (_, up) in enumerate(planes, start=1)
        },
    )
    return Drawing(figure, note=_part(sample, subject), min_height=_height(len(subject.metrics)))


def _plane(subject: Subject, plane: tuple[int, int], place: int) -> list[go.Scatter]:
    """The trials of two objectives. With two alone the front is a line; its steps are what no trial has passed."""
    on_front = {trial.number for trial in subject.best}
    dominated = [trial for trial in subject.feasible if trial.number not in on_front]
    is_line = len(subject.metrics) == 2  # noqa: PLR2004 - see above
    traces = [
        _in_plane(subject, dominated, plane, name="Dominated", marker=_DOTS),
        _in_plane(subject, subject.infeasible, plane, name="Infeasible", marker=INFEASIBLE),
        _in_plane(subject, subject.best, plane, name="Pareto front", marker={"color": GOOD, "size": 10}).update(
            mode="lines+markers" if is_line else "markers", line={"color": GOOD, "width": 1.5, "shape": "hv"}
        ),
    ]
    for trace in traces:
        axes = {"xaxis": _row(place, "x"), "yaxis": _row(place, "y")}
        trace.update(**axes, showlegend=place == 0, legendgroup=trace.name)
    return [trace for trace in traces if trace.x]


def _in_plane(
    subject: Subject, trials: Sequence[FrozenTrial], plane: tuple[int, int], *, name: str, marker: dict[str, Any]
) -> go.Scatter:
    across, up = ([value_of(trial, objective) for trial in trials] for objective in plane)
    return _markers(subject, trials, across, up, name=name, marker=marker, params=list(subject.params))


def _aim(subject: Subject, objective: int) -> str:
    """An objective, and where it is better."""
    return f"{plain(subject.metrics[objective], 20)} {'↑' if subject.is_maximized(objective) else '↓'}"


def _param_importances(subject: Subject) -> Drawing:
    if words := _without_importances(subject):
        return Drawing(words=words)
    shares = list(reversed(subject.importances.shares.items()))
    largest = max(share.high for _, share in shares)
    labels = told_apart([name for name, _ in shares], 24)
    places = list(range(len(shares)))
    figure = dressed(
        go.Bar(
            x=[share.value for _, share in shares],
            y=places,
            orientation="h",
            marker={
                "color": [share.value for _, share in shares],
                "colorscale": FAINT_TO_STRONG,
                "cmin": 0,
                "cmax": shares[-1][1].value,
                "cornerradius": 4,
            },
            error_x={
                "type": "data",
                "array": [share.high - share.value for _, share in shares],
                "arrayminus": [share.value - share.low for _, share in shares],
                "color": "rgba(139, 149, 167, 0.75)",
                "thickness": 1.2,
                "width": 3,
            },
            hovertext=[f"{plain(name, 100)}: {share.value:.1%} ({_between(share)})" for name, share in shares],
            hovertemplate="%{hovertext}<extra></extra>",
        ),
        go.Scatter(
            x=[share.high for _, share in shares],
            y=places,
            mode="text",
            text=[f"  {share.value:.0%}" if share.value >= PERCENT else "  &lt; 1%" for _, share in shares],
            textposition="middle right",
            cliponaxis=False,
            hoverinfo="skip",
        ),
        showlegend=False,
        bargap=0.35,
        xaxis={
            "tickformat": ".0%",
            "range": [0, largest * 1.15],
            "title": {"text": "Share of what makes trials differ"},
        },
        yaxis={
            "tickmode": "array",
            "tickvals": places,
            "ticktext": [plain(labels[name]) for name, _ in shares],
            "showgrid": False,
        },
    )
    return Drawing(figure, note=subject.importances.doubt, min_height=HEIGHT_OF_BAR * len(shares) + 90)


def _between(share: Share) -> str:
    return f"{share.low:.0%} to {share.high:.0%} in eight of ten halves of the trials"


def _without_importances(subject: Subject) -> str | None:
    if not subject.complete:
        return subject.why_nothing_is_complete()
    if not any(trial.params for trial in subject.trials):
        return "The trials have no parameters."
    missing = LEAST_TRIALS - len(subject.judged)
    if missing > 0:
        return f"{counted(missing, 'more trial')} with a value until importances can be told."
    if len(set(subject.judged)) == 1:
        return "All trials have the same value, so no parameter stands out."
    return None if subject.importances.shares else "Importances cannot be told of so many parameters."


def _parallel_coordinate(subject: Subject) -> Drawing:
    if words := _without_params(subject):
        return Drawing(words=words)
    axes = len(subject.params) + len(subject.metrics)
    sample = subject.sample(_most_trials(axes))
    labels = headings(sample)
    note = _notes(sample, subject, "Dotted lines")
    return Drawing(parallel_coordinates(sample, labels), note=note, min_width=width_of(labels))


def _slice(subject: Subject) -> Drawing:
    if words := _without_params(subject):
        return Drawing(words=words)
    rows = len(subject.metrics)
    sample = subject.sample(_most_trials(len(subject.params) * rows))
    scales = [Scale.of(name, sample.complete) for name in sample.params]
    labels = told_apart(sample.params, 18)
    figure = dressed(
        *(
            panel
            for objective in range(rows)
            for place, scale in enumerate(scales, start=1)
            for panel in _panels(sample, scale, place, objective)
        ),
        showlegend=False,
        **_rows(sample.metrics),
        **{
            f"xaxis{place}": scale.axis(labels[scale.name])
            | {"domain": panel_domain(place, of=len(scales), gap=GAP_OF_PANELS), "anchor": _row(rows - 1, "y")}
            for place, scale in enumerate(scales, start=1)
        },
    )
    width = WIDTH_OF_SLICE * len(scales) + 60
    return Drawing(figure, note=_notes(sample, subject, "Crosses"), min_width=width, min_height=_height(rows))


def _panels(subject: Subject, scale: Scale, place: int, objective: int) -> list[go.Scatter]:
    feasible = [trial for trial in subject.feasible if scale.name in trial.params]
    infeasible = [trial for trial in subject.infeasible if scale.name in trial.params]
    numbers = [trial.number for trial in feasible]
    dots = {"color": numbers, "colorscale": FAINT_TO_STRONG, "size": 7, "opacity": 0.8}
    return [
        go.Scatter(
            x=[scale.at(trial) for trial in trials],
            y=[value_of(trial, objective) for trial in trials],
            xaxis=f"x{place}",
            yaxis=_row(objective, "y"),
            mode="markers",
            text=[hover(trial, subject.metrics, (scale.name, trial.params[scale.name])) for trial in trials],
            hovertemplate="%{text}<extra></extra>",
            marker=marker,
        )
        for trials, marker in ((feasible, dots), (infeasible, INFEASIBLE))
        if trials
    ]


def _intermediate_values(subject: Subject) -> Drawing:
    reported = [trial for trial in subject.trials if _finite_steps(trial)]
    if not reported:
        return Drawing(words="No trial has reported a finite value while it ran.")
    best = [trial for trial in subject.best if _finite_steps(trial)]
    good = [trial for trial in subject.ranked if _finite_steps(trial)][: MOST_LINES // 2]
    chosen = {trial.number for trial in good}
    latest = [trial for trial in reversed(reported) if trial.number not in chosen][: MOST_LINES - len(good)]
    others = [trial for trial in (*good, *latest) if trial not in best]
    # The best one is drawn last, above all others.
    lines = [*(_learning_curve(trial) for trial in sorted(others, key=_order)), *map(_best_curve, best)]
    named: set[str] = set()
    for line in lines:
        line.showlegend = line.name not in named
        named.add(line.name)
    figure = dressed(
        *lines,
        margin=BELOW_LEGEND,
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
        margin=BELOW_LEGEND | {"b": 66},
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
        text=[hover(trial, subject.metrics, words) for trial, words in zip(trials, said, strict=True)],
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
    by_importance = sorted(subject.params, key=lambda name: -_importance(subject, name))
    together = [name for name in by_importance if all(name in trial.params for trial in subject.complete)][:2]
    if len(together) < 2:  # noqa: PLR2004 - a plane has two
        return Drawing(words="This chart compares two parameters, and fewer than two are part of every trial.")
    sample = subject.sample(MOST_TRIALS)
    across, up = (Scale.of(name, sample.complete) for name in together)
    ranks = {trial.number: rank for rank, trial in enumerate(sample.ranked)}
    last = max(1, len(ranks) - 1)
    markers = _markers(
        sample,
        sample.complete,
        [across.at(trial) for trial in sample.complete],
        [up.at(trial) for trial in sample.complete],
        params=together,
        marker={
            "color": [round(ranks[trial.number] / last, 3) for trial in sample.complete],
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
    labels = told_apart(together, 40)
    figure = dressed(markers, xaxis=across.axis(labels[across.name]), yaxis=up.axis(labels[up.name]))
    return Drawing(figure, note=_part(sample, subject))


def _importance(subject: Subject, name: str) -> float:
    share = subject.importances.shares.get(name)
    return share.value if share else 0.0


CHARTS: dict[str, Chart] = {
    "optimization-history": Chart(
        "Optimization history", "The value of each trial, and the best so far.", _optimization_history
    ),
    "param-importances": Chart(
        "Parameter importances",
        "What makes trials differ; a whisker says how sure that is.",
        _param_importances,
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
"""The charts of a study with one objective; the first four are those that have a link of their own in a study's status."""

CHARTS_OF_SEVERAL: dict[str, Chart] = {
    "pareto-front": Chart(
        "Pareto front",
        "Green: no other trial is as good everywhere and better somewhere. ↑ more is better, ↓ less.",
        _pareto_front,
    ),
    "optimization-history": Chart(
        "Optimization history",
        "The values of each trial, and the best so far of each objective.",
        _optimization_history,
    ),
    "param-importances": Chart(
        "Parameter importances",
        "What makes trials differ under the first objective; a whisker says how sure that is.",
        _param_importances,
    ),
    "timeline": CHARTS["timeline"],
    "parallel-coordinate": Chart(
        "Parallel coordinates",
        "Each line is a trial; those of the Pareto front are green.",
        _parallel_coordinate,
        grows=True,
    ),
    "slice": Chart(
        "Slice", "The value of each objective over each parameter; later trials are stronger.", _slice, grows=True
    ),
}
"""Those of a study with several: nothing is reported while its trials run, and there is no rank."""


def charts_of(directions: Sequence[StudyDirection]) -> dict[str, Chart]:
    """The charts that say something about a study."""
    return CHARTS_OF_SEVERAL if len(directions) > 1 else CHARTS


# What they have in common

_DOTS = {"color": ACCENT, "size": 7, "opacity": 0.55}


def _markers(
    subject: Subject,
    trials: Sequence[FrozenTrial],
    x: list[Any],
    y: list[Any],
    *,
    marker: dict[str, Any],
    name: str | None = None,
    params: list[str] | None = None,
) -> go.Scatter:
    """A marker for each of the trials, which says the trial under the pointer."""
    said = ([(param, trial.params[param]) for param in params or [] if param in trial.params] for trial in trials)
    return go.Scatter(
        x=x,
        y=y,
        mode="markers",
        name=name,
        marker=marker,
        text=[hover(trial, subject.metrics, *more) for trial, more in zip(trials, said, strict=True)],
        hovertemplate="%{text}<extra></extra>",
    )


def _rows(metrics: Sequence[str]) -> dict[str, Any]:
    """A value axis for each objective, one above the other, the first on top."""
    if len(metrics) == 1:
        return {"yaxis": {"title": {"text": plain(metrics[0])}}}
    places = range(len(metrics), 0, -1)
    return {
        f"yaxis{row}": {
            "title": {"text": plain(metric, 26)},
            "domain": panel_domain(place, of=len(metrics), gap=GAP_OF_PANELS),
            "nticks": 5,
        }
        for row, (metric, place) in enumerate(zip(metrics, places, strict=True), start=1)
    }


def _row(place: int, axis: str) -> str:
    """Plotly's name of an axis, of those that are counted from 0."""
    return axis if place == 0 else f"{axis}{place + 1}"


def _height(rows: int) -> int:
    return 0 if rows == 1 else HEIGHT_OF_ROW * rows + 60


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


def _notes(sample: Subject, subject: Subject, marks: str) -> str | None:
    """What to know about a figure without a legend."""
    broken = f"{marks} are trials that break a constraint." if sample.infeasible else None
    return " ".join(filter(None, (_part(sample, subject), broken))) or None


def _finite_steps(trial: FrozenTrial) -> list[tuple[int, float]]:
    return [(step, value) for step, value in sorted(trial.intermediate_values.items()) if math.isfinite(value)]
