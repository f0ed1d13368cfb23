"""How far a study is, as a person wants to see it: a function of its rows and of the last status. Pure."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from tuning_api import contract
from tuning_api.contract import Failure, Owner
from tuning_api.schema import Schema, seconds
from tuning_api.spec import StudySpec
from tuning_api.status import ConditionStatus, ConditionType, Phase, Reason, StudyStatus
from tuning_operator.charts.source import StudyData
from tuning_operator.model import utc

Model = TypeVar("Model", bound=Schema)

LEAST_TRIALS = 2
"""Before so many have ended, nobody can tell how long the rest takes."""
_NO_TROUBLE = frozenset({Reason.ENDED, Reason.NOT_YET, Reason.SUSPENDED})


@dataclass(frozen=True)
class TrialView:
    """A trial that runs or has ended."""

    number: int
    state: TrialState
    value: float | None
    """Its result; while it runs, what it last reported."""
    reports: tuple[float, ...]
    epochs: int
    max_epochs: int | None
    seconds: float
    params: Mapping[str, Any]
    worker: str
    failure: Failure | None
    retry_of: int | None


@dataclass(frozen=True)
class Progress:
    """A study at one moment."""

    name: str
    phase: Phase
    message: str
    trouble: str | None
    """Why it does not advance."""
    metric: str
    is_maximized: bool
    total: int
    waiting: int
    retried: int
    workers: int
    elapsed: float
    seconds_left: float | None
    running: tuple[TrialView, ...]
    ended: tuple[TrialView, ...]
    """In the order in which they ended."""

    def count(self, state: TrialState) -> int:
        """Trials that ended so."""
        return sum(trial.state is state for trial in self.ended)

    @property
    def ranked(self) -> tuple[TrialView, ...]:
        """Complete trials from best to worst; of equals the earlier one first."""
        sign = -1 if self.is_maximized else 1
        complete = ((trial.value, trial) for trial in self.ended if trial.state is TrialState.COMPLETE)
        finite = [(sign * value, trial) for value, trial in complete if value is not None and math.isfinite(value)]
        return tuple(trial for _, trial in sorted(finite, key=lambda item: (item[0], item[1].number)))

    @property
    def best(self) -> TrialView | None:
        """The best trial so far."""
        return next(iter(self.ranked), None)


def progress(data: StudyData, *, status: StudyStatus, workers: int, now: datetime) -> Progress:
    """How far a study is.

    Args:
        data: its rows.
        status: as the last pass wrote it.
        workers: those that are alive.
        now: up to when trials have run that still run.
    """
    planned = _max_epochs(data.spec)
    views = [_view(trial, planned=planned, now=now) for trial in _by_end(data.trials)]
    ended = tuple(view for view in views if view.state.is_finished())
    running = tuple(view for view in views if view.state is TrialState.RUNNING)
    total = data.spec.max_trials if data.spec else len(data.trials)
    elapsed = data.clock.elapsed_at(now)
    return Progress(
        name=data.name,
        phase=status.phase or Phase.PENDING,
        message=status.message or "",
        trouble=_trouble(status),
        metric=data.spec.objectives[0].metric if data.spec else "value",
        is_maximized=data.directions[0] is StudyDirection.MAXIMIZE,
        total=total,
        waiting=sum(trial.state is TrialState.WAITING for trial in data.trials),
        retried=data.retried,
        workers=workers,
        elapsed=elapsed,
        seconds_left=_seconds_left(data.spec, ended=ended, running=running, total=total, elapsed=elapsed),
        running=running,
        ended=ended,
    )


def _by_end(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    def key(trial: FrozenTrial) -> tuple[bool, float, int]:
        ended = utc(trial.datetime_complete)
        return ended is None, ended.timestamp() if ended else 0.0, trial.number

    return sorted(trials, key=key)


def _view(trial: FrozenTrial, *, planned: int | None, now: datetime) -> TrialView:
    """NB: user code may write any attribute of its trial: what cannot be read counts as not written."""
    attributes, reports = trial.user_attrs, tuple(value for _, value in sorted(trial.intermediate_values.items()))
    started, ended = utc(trial.datetime_start), utc(trial.datetime_complete)
    result = trial.values[0] if trial.values else None
    epochs, max_epochs = attributes.get(contract.EPOCHS_ATTRIBUTE), attributes.get(contract.MAX_EPOCHS_ATTRIBUTE)
    retry_of = attributes.get(contract.RETRY_OF_ATTRIBUTE)
    owner = _read(Owner, attributes.get(contract.OWNER_ATTRIBUTE))
    return TrialView(
        number=trial.number,
        state=trial.state,
        value=result if result is not None else next(reversed(reports), None),
        reports=reports,
        epochs=epochs if isinstance(epochs, int) else max(trial.intermediate_values, default=-1) + 1,
        max_epochs=max_epochs if isinstance(max_epochs, int) else planned,
        seconds=max(0.0, ((ended or now) - started).total_seconds()) if started else 0.0,
        params=trial.params,
        worker=owner.name if owner else "",
        failure=_read(Failure, attributes.get(contract.FAILURE_ATTRIBUTE)) if trial.state is TrialState.FAIL else None,
        retry_of=retry_of if isinstance(retry_of, int) else None,
    )


def _read(kind: type[Model], value: object) -> Model | None:
    try:
        return kind.model_validate(value)
    except ValueError:
        return None


def _max_epochs(spec: StudySpec | None) -> int | None:
    trainer = (spec.trial.lightning or {}).get("trainer") if spec else None
    epochs = trainer.get("max_epochs") if isinstance(trainer, dict) else None
    return epochs if isinstance(epochs, int) and epochs > 0 else None


def _trouble(status: StudyStatus) -> str | None:
    condition = status.condition(ConditionType.PROGRESSING)
    if condition is None or condition.status is not ConditionStatus.FALSE or condition.reason in _NO_TROUBLE:
        return None
    return condition.message


def _seconds_left(
    spec: StudySpec | None,
    *,
    ended: tuple[TrialView, ...],
    running: tuple[TrialView, ...],
    total: int,
    elapsed: float,
) -> float | None:
    """From what trials have taken so far, and no longer than the study's own timeout."""
    taken = [trial.seconds for trial in ended if trial.state is not TrialState.FAIL]
    if len(taken) < LEAST_TRIALS or not running:
        return None
    started = math.fsum(min(1.0, trial.epochs / trial.max_epochs) for trial in running if trial.max_epochs)
    left = math.fsum(taken) / len(taken) * max(0.0, total - len(ended) - started) / len(running)
    limit = seconds(spec.timeout) - elapsed if spec and spec.timeout else math.inf
    return max(0.0, min(left, limit))
