"""The table of trials, newest first."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from tuning_api import contract
from tuning_api.contract import Failure
from tuning_api.spec import StudySpec
from tuning_operator import feasibility
from tuning_operator.charts.source import StudyData
from tuning_operator.charts.subject import Subject
from tuning_operator.charts.wording import LABELS
from tuning_operator.model import utc

MOST_ROWS = 1000
LETTERS_AT_ONCE = 110
"""Of the cause of a failure: a longer one unfolds."""


@dataclass(frozen=True)
class Row:
    """A trial in the table."""

    number: int
    label: str
    values: list[float | None]
    """One for each of the table's metrics."""
    epochs: str
    epochs_run: int | None
    seconds: float | None
    params: dict[str, Any]
    failure: Failure | None
    is_unexplained: bool
    """It failed, and nobody wrote down why."""
    retry_of: int | None
    is_best: bool
    is_last_report: bool
    """Its value is what it last reported, since it was pruned."""
    broken: list[str]
    """The constraints that it breaks, with by how much."""

    @property
    def unfolds(self) -> bool:
        """Whether its failure has more to say than two lines."""
        return bool(self.failure and (self.failure.details or len(self.failure.message) > LETTERS_AT_ONCE))


@dataclass(frozen=True)
class Table:
    """The trials that have started, the newest of them where there are very many."""

    rows: list[Row]
    metrics: list[str]
    """The objectives, then what constraints are about."""
    names: list[str]
    left_out: int
    has_front: bool = False


def table(data: StudyData, drawn: Subject, *, now: datetime) -> Table:
    """The trials of a study; waiting ones have nothing to show."""
    started = [trial for trial in data.trials if trial.state is not TrialState.WAITING]
    best = {trial.number for trial in drawn.best}
    limited = limited_metrics(data.spec, besides=drawn.metrics)
    rows = [_row(trial, drawn, limited=limited, best=best, now=now) for trial in reversed(started[-MOST_ROWS:])]
    return Table(
        rows,
        metrics=[*drawn.metrics, *limited],
        names=_names(data),
        left_out=len(started) - len(rows),
        has_front=drawn.has_front,
    )


def limited_metrics(spec: StudySpec | None, *, besides: Sequence[str]) -> list[str]:
    """The metrics that constraints are about and that are no objectives."""
    constraints = spec.constraints or [] if spec else []
    return [constraint.metric for constraint in constraints if constraint.metric not in besides]


def limited_value(trial: FrozenTrial, metric: str) -> float | None:
    """The last value of a metric that a constraint is about, of a complete trial."""
    known = trial.user_attrs.get(contract.LIMITED_ATTRIBUTE)
    value = known.get(metric) if isinstance(known, dict) else None
    return value if isinstance(value, int | float) else None


def excesses(trial: FrozenTrial) -> list[str]:
    """The constraints that a complete trial breaks, in words."""
    if trial.state is not TrialState.COMPLETE:
        return []
    return [f"{name} by {excess:.4g}" for name, excess in feasibility.broken(trial).items()]


def epochs(trial: FrozenTrial) -> tuple[int | None, int | None]:
    """Epochs that a trial has trained, and those it would have, had it not been pruned."""
    attributes = trial.user_attrs
    return _whole(attributes.get(contract.EPOCHS_ATTRIBUTE)), _whole(attributes.get(contract.MAX_EPOCHS_ATTRIBUTE))


def seconds(trial: FrozenTrial, *, now: datetime) -> float | None:
    """How long a trial took, or has taken until now."""
    start, end = utc(trial.datetime_start), utc(trial.datetime_complete)
    return max(0.0, ((end or now) - start).total_seconds()) if start else None


def _row(trial: FrozenTrial, drawn: Subject, *, limited: list[str], best: set[int], now: datetime) -> Row:
    trained, planned = epochs(trial)
    failure = _failure(trial)
    return Row(
        number=trial.number,
        label=LABELS[trial.state],
        values=_values(trial, drawn, limited=limited),
        epochs=_of_plan(trained, planned),
        epochs_run=trained,
        seconds=seconds(trial, now=now),
        params=trial.params,
        failure=failure,
        is_unexplained=trial.state is TrialState.FAIL and failure is None,
        retry_of=_whole(trial.user_attrs.get(contract.RETRY_OF_ATTRIBUTE)),
        is_best=trial.number in best,
        is_last_report=trial.state is TrialState.PRUNED,
        broken=excesses(trial),
    )


def _values(trial: FrozenTrial, drawn: Subject, *, limited: list[str]) -> list[float | None]:
    if trial.state is TrialState.PRUNED and trial.intermediate_values and not drawn.has_front:
        last = trial.intermediate_values[max(trial.intermediate_values)]
        return [last if math.isfinite(last) else None, *[None] * len(limited)]
    if trial.state is not TrialState.COMPLETE:
        return [None] * (len(drawn.metrics) + len(limited))
    return [*drawn.values(trial), *(limited_value(trial, metric) for metric in limited)]


def _of_plan(trained: int | None, planned: int | None) -> str:
    if trained is None:
        return ""
    return f"{trained}/{planned}" if planned and trained < planned else str(trained)


def _failure(trial: FrozenTrial) -> Failure | None:
    if trial.state is not TrialState.FAIL:
        return None
    try:
        return Failure.model_validate(trial.user_attrs.get(contract.FAILURE_ATTRIBUTE))
    except ValueError:
        return None


def _whole(value: object) -> int | None:
    """A number that user code may have overwritten: it can write attributes of its trial, too."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _names(data: StudyData) -> list[str]:
    """The parameters: those of the search space in its order, then any other that a trial has."""
    declared = [parameter.name for parameter in data.spec.search_space] if data.spec else []
    return list(dict.fromkeys([*declared, *(name for trial in data.trials for name in trial.params)]))
