"""What a page says about a study, and the HTML of it.

The parts that change while a study runs (its summary, its trials) are rendered here alone: the page contains them, and the
JSON that it asks for every few seconds contains them again. So a page reads well without JavaScript, too.
"""

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from tuning_api import contract
from tuning_api.contract import Failure
from tuning_api.search import ParameterType
from tuning_api.status import ConditionStatus, ConditionType, Phase, Reason
from tuning_operator.charts.figures import CHARTS, Subject, first_value
from tuning_operator.charts.source import StudyData, utc

MOST_ROWS = 1000
_FIXED_COLUMNS = 6
TERMINAL = frozenset({Phase.COMPLETE, Phase.FAILED})
_WORTH_NO_CALL_OUT = frozenset({Reason.ENDED, Reason.NOT_YET})
_SECONDS_OF_MINUTE, _SECONDS_OF_HOUR, _SECONDS_OF_DAY = 60, 3600, 86_400


@dataclass(frozen=True)
class Slice:
    """Trials of one state, as a part of the progress bar."""

    key: str
    label: str
    count: int
    percent: float


@dataclass(frozen=True)
class Fact:
    """A number worth knowing."""

    label: str
    value: str
    detail: str = ""


@dataclass(frozen=True)
class CallOut:
    """What a person should act on."""

    title: str
    message: str
    is_failure: bool


@dataclass(frozen=True)
class Best:
    """The best trial."""

    number: int
    value: str
    params: list[tuple[str, str]]
    yaml: str


@dataclass(frozen=True)
class Summary:
    """The upper part of a page."""

    namespace: str
    name: str
    phase: str
    message: str
    metric: str
    goal: str
    ended: int
    total: int | None
    parts: list[Slice]
    call_out: CallOut | None
    best: Best | None
    no_best: str
    facts: list[Fact]
    is_terminal: bool


@dataclass(frozen=True)
class Row:
    """A trial in the table."""

    number: int
    state: str
    label: str
    value: float | None
    epochs: str
    epochs_run: int | None
    seconds: float | None
    params: dict[str, Any]
    failure: Failure | None
    retry_of: int | None
    is_best: bool


def subject(data: StudyData) -> Subject:
    """What is drawn of a study."""
    return Subject(trials=data.trials, directions=data.directions, metric=_metric(data))


def summary(data: StudyData, *, now: datetime) -> Summary:
    """The upper part of a page, from the trials where they say more than the last status does."""
    phase = data.status.phase or Phase.PENDING
    ended = [trial for trial in data.trials if trial.state.is_finished()]
    counts = data.status.trials
    total = data.spec.max_trials if data.spec else counts.total if counts else None
    return Summary(
        namespace=data.namespace,
        name=data.name,
        phase=phase.value,
        message=data.status.message or "The operator has not reported on this study yet.",
        metric=_metric(data),
        goal="maximize" if data.directions[0] is StudyDirection.MAXIMIZE else "minimize",
        ended=len(ended),
        total=total,
        parts=_parts(data, total=max(total or 0, len(data.trials), 1)),
        call_out=_call_out(data),
        best=_best(data),
        no_best=_no_best(data),
        facts=_facts(data, now=now),
        is_terminal=phase in TERMINAL,
    )


def _metric(data: StudyData) -> str:
    return data.spec.objectives[0].metric if data.spec else "value"


_PARTS = (
    ("complete", "complete", TrialState.COMPLETE),
    ("pruned", "pruned", TrialState.PRUNED),
    ("failed", "failed", TrialState.FAIL),
    ("running", "running", TrialState.RUNNING),
)


def _parts(data: StudyData, *, total: int) -> list[Slice]:
    states = [trial.state for trial in data.trials]
    counted = ((key, label, states.count(state)) for key, label, state in _PARTS)
    return [Slice(key, label, count, 100 * count / total) for key, label, count in counted]


def _call_out(data: StudyData) -> CallOut | None:
    """Why trials do not advance, if a person can do something about it."""
    condition = data.status.condition(ConditionType.PROGRESSING)
    if condition is None or condition.status is not ConditionStatus.FALSE or condition.reason in _WORTH_NO_CALL_OUT:
        return None
    is_failure = data.status.phase is Phase.FAILED or condition.reason is not Reason.SUSPENDED
    return CallOut(title=_words(condition.reason), message=condition.message, is_failure=is_failure)


def _words(reason: Reason) -> str:
    """A reason as a title: TrialsFailing becomes "Trials failing"."""
    spaced = "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in reason.value)
    return spaced.strip().capitalize()


def _best(data: StudyData) -> Best | None:
    ranked = subject(data).best_first()
    if not ranked:
        return None
    trial, metric = ranked[0], _metric(data)
    document = yaml.safe_dump(trial.params, sort_keys=False, allow_unicode=True) if trial.params else ""
    heading = " ".join(f"# trial {trial.number} of {data.name}: {metric} = {first_value(trial):.6g}".split())
    params = [(name, shown(value)) for name, value in trial.params.items()]
    return Best(trial.number, f"{first_value(trial):.4g}", params, f"{heading}\n{document}")


def _no_best(data: StudyData) -> str:
    if any(trial.state is TrialState.RUNNING for trial in data.trials):
        return "The first trials are running; the best one will be shown here."
    if not data.trials:
        return "No trial has run yet; the best one will be shown here."
    return "No trial has completed, so there is no best one."


def _facts(data: StudyData, *, now: datetime) -> list[Fact]:
    elapsed = data.clock.elapsed_at(now)
    compute = math.fsum(seconds for trial in data.trials if (seconds := _seconds(trial, now=now)) is not None)
    at_once = f"{compute / elapsed:.1f} trials at a time" if elapsed >= 1 and compute > 0 else ""
    facts = [
        Fact("Elapsed", duration(elapsed), "wall clock, while not suspended"),
        Fact("Compute time", duration(compute), at_once),
        _saved(data.trials),
    ]
    if data.retried:
        facts.append(Fact("Retried", str(data.retried), "trials that lost their worker and went on elsewhere"))
    return facts


def _saved(trials: Iterable[FrozenTrial]) -> Fact:
    """What pruning saved: the epochs that pruned trials did not train, of all epochs that would have been."""
    plans = [(trial.state, *_epochs(trial)) for trial in trials if trial.state.is_finished()]
    run = sum(epochs or 0 for _, epochs, _ in plans)
    saved = sum(max(0, (most or 0) - (epochs or 0)) for state, epochs, most in plans if state is TrialState.PRUNED)
    if not saved:
        return Fact("Saved by pruning", "0%", f"{run:,} epochs run" if run else "no trial was cut short")
    return Fact("Saved by pruning", f"{saved / (run + saved):.0%}", f"{saved:,} of {run + saved:,} epochs")


def rows(data: StudyData, *, now: datetime) -> list[Row]:
    """The newest trials, newest first; waiting ones have nothing to show."""
    started = [trial for trial in data.trials if trial.state is not TrialState.WAITING]
    ranked = subject(data).best_first()
    best = ranked[0].number if ranked else None
    return [_row(trial, best=best, now=now) for trial in reversed(started[-MOST_ROWS:])]


_STATES = {
    TrialState.COMPLETE: ("complete", "Complete"),
    TrialState.PRUNED: ("pruned", "Pruned"),
    TrialState.FAIL: ("failed", "Failed"),
    TrialState.RUNNING: ("running", "Running"),
    TrialState.WAITING: ("waiting", "Waiting"),
}


def _row(trial: FrozenTrial, *, best: int | None, now: datetime) -> Row:
    state, label = _STATES[trial.state]
    epochs, most = _epochs(trial)
    return Row(
        number=trial.number,
        state=state,
        label=label,
        value=first_value(trial) if trial.state is TrialState.COMPLETE else None,
        epochs="" if epochs is None else f"{epochs}/{most}" if most and epochs < most else str(epochs),
        epochs_run=epochs,
        seconds=_seconds(trial, now=now),
        params=trial.params,
        failure=_failure(trial) if trial.state is TrialState.FAIL else None,
        retry_of=_whole(trial.user_attrs.get(contract.RETRY_OF_ATTRIBUTE)),
        is_best=trial.number == best,
    )


def _failure(trial: FrozenTrial) -> Failure | None:
    try:
        return Failure.model_validate(trial.user_attrs.get(contract.FAILURE_ATTRIBUTE))
    except ValueError:
        return None


def _epochs(trial: FrozenTrial) -> tuple[int | None, int | None]:
    attributes = trial.user_attrs
    return _whole(attributes.get(contract.EPOCHS_ATTRIBUTE)), _whole(attributes.get(contract.MAX_EPOCHS_ATTRIBUTE))


def _whole(value: object) -> int | None:
    """User code may write trial attributes, too."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _seconds(trial: FrozenTrial, *, now: datetime) -> float | None:
    start, end = utc(trial.datetime_start), utc(trial.datetime_complete)
    return max(0.0, ((end or now) - start).total_seconds()) if start else None


def param_names(data: StudyData) -> list[str]:
    """The parameters: those of the search space in its order, then any other that a trial has."""
    declared = [parameter.name for parameter in data.spec.search_space] if data.spec else []
    return list(dict.fromkeys([*declared, *(name for trial in data.trials for name in trial.params)]))


def columns(data: StudyData) -> int:
    """How many columns the table of trials has; a new parameter adds one."""
    return _FIXED_COLUMNS + len(param_names(data))


def search_space(data: StudyData) -> list[tuple[str, str]]:
    """The search space in words."""
    if data.spec is None:
        return []
    words = []
    for parameter in data.spec.search_space:
        if parameter.type is ParameterType.CATEGORICAL:
            said = ", ".join(shown(choice) for choice in parameter.choices or [])
        else:
            scale = ", log" if parameter.log else f", step {parameter.step:g}" if parameter.step else ""
            said = f"{parameter.low:g} to {parameter.high:g}{scale}"
        words.append((parameter.name, said))
    return words


def shown(value: object) -> str:
    """A value as a person reads it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def duration(seconds: float | None) -> str:
    """A span of time in its two largest units. Coarse on purpose: a page that says the same is not sent again."""
    if seconds is None:
        return ""
    if seconds < 10:  # noqa: PLR2004
        return f"{seconds:.1f} s"
    whole = int(seconds)
    if whole < _SECONDS_OF_MINUTE:
        return f"{whole} s"
    if whole < _SECONDS_OF_HOUR:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole < 10 * _SECONDS_OF_MINUTE else "")
    if whole < _SECONDS_OF_DAY:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // _SECONDS_OF_DAY} d {whole % _SECONDS_OF_DAY // 3600} h"


# HTML


@dataclass(frozen=True)
class Live:
    """The parts of a page that change."""

    summary: str
    rows: str
    is_terminal: bool


def live(data: StudyData, *, now: datetime) -> Live:
    """Render the parts of a page that change."""
    facts = summary(data, now=now)
    table = _environment().get_template("rows.html").render(rows=rows(data, now=now), names=param_names(data))
    return Live(_environment().get_template("summary.html").render(study=facts), table, facts.is_terminal)


def study_page(data: StudyData, *, now: datetime, figures_version: str, chart: str | None = None) -> str:
    """The page of a study, or of one of its charts."""
    parts = live(data, now=now)
    template = _environment().get_template("chart.html" if chart else "study.html")
    return template.render(
        study=summary(data, now=now),
        summary=Markup(parts.summary),  # noqa: S704 - rendered above, escaped there
        rows=Markup(parts.rows),  # noqa: S704
        names=param_names(data),
        space=search_space(data),
        charts=CHARTS if chart is None else {chart: CHARTS[chart]},
        chart=chart,
        figures_version=figures_version,
        more_rows=max(0, sum(trial.state is not TrialState.WAITING for trial in data.trials) - MOST_ROWS),
        root="../../../../",
    )


def message_page(*, title: str, message: str, root: str, reload_seconds: int | None = None) -> str:
    """A page with nothing but a sentence; one that may become better asks again by itself."""
    template = _environment().get_template("message.html")
    return template.render(title=title, message=message, root=root, reload_seconds=reload_seconds)


@cache
def static_files() -> dict[str, tuple[str, bytes]]:
    """Content type and content of each static file, under its versioned name: it may be cached for ever."""
    own = {path.name: path.read_bytes() for path in map(Path, _own_files())}
    own["plotly.min.js"] = (files("plotly") / "package_data" / "plotly.min.js").read_bytes()
    return {_versioned(name, content): (_TYPES[Path(name).suffix], content) for name, content in own.items()}


_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


def _own_files() -> list[str]:
    return [str(item) for item in files("tuning_operator.charts").joinpath("static").iterdir() if item.is_file()]


def _versioned(name: str, content: bytes) -> str:
    return f"{hashlib.sha256(content).hexdigest()[:12]}/{name}"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("tuning_operator.charts"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    versioned = {path.partition("/")[2]: path for path in static_files()}
    environment.globals["static"] = lambda name: f"static/{versioned[name]}"
    environment.filters |= {"duration": duration, "shown": shown}
    return environment
