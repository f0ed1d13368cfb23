"""How far a study is, as a person wants to see it: a function of its rows and of the last status. Pure."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from tuning_api import contract
from tuning_api.contract import Failure, Owner, read_attribute
from tuning_api.schema import seconds
from tuning_api.spec import StudySpec
from tuning_api.status import ConditionStatus, ConditionType, Phase, Reason, StudyStatus
from tuning_operator.charts.source import StudyData
from tuning_operator.charts.subject import Subject
from tuning_operator.charts.summary import subject
from tuning_operator.charts.table import excesses, limited_metrics, limited_value
from tuning_operator.model import utc

LEAST_TRIALS = 2
"""Before so many have ended, nobody can tell how long the rest takes."""
_NO_TROUBLE = frozenset({Reason.ENDED, Reason.NOT_YET, Reason.SUSPENDED})


@dataclass(frozen=True)
class TrialView:
    """A trial that runs or has ended."""

    number: int
    state: TrialState
    values: tuple[float | None, ...]
    """Its results, in the order of `Progress.metrics`; while it runs, what it last reported."""
    broken: tuple[str, ...]
    """The constraints that it breaks, in words."""
    reports: tuple[float, ...]
    epochs: int
    max_epochs: int | None
    seconds: float
    params: Mapping[str, Any]
    worker: str
    failure: Failure | None
    retry_of: int | None

    @property
    def value(self) -> float | None:
        """Its result under the first objective."""
        return self.values[0]


@dataclass(frozen=True)
class Progress:
    """A study at one moment."""

    name: str
    phase: Phase
    message: str
    trouble: str | None
    """Why it does not advance."""
    objectives: tuple[str, ...]
    directions: tuple[str, ...]
    """maximize or minimize, for each objective."""
    limited: tuple[str, ...]
    """Metrics that a constraint is about, besides the objectives."""
    is_constrained: bool
    total: int
    waiting: int
    retried: int
    workers: int
    elapsed: float
    seconds_left: float | None
    running: tuple[TrialView, ...]
    ended: tuple[TrialView, ...]
    """In the order in which they ended."""
    ranked: tuple[TrialView, ...]
    """Complete trials from best to worst; of equals the earlier one first. What breaks a constraint comes last."""
    front: tuple[TrialView, ...]
    """The best trial, if there is one; of several objectives the Pareto front."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """What a trial is told by."""
        return *self.objectives, *self.limited

    @property
    def has_front(self) -> bool:
        """Whether the best are a Pareto front."""
        return len(self.objectives) > 1

    def count(self, state: TrialState) -> int:
        """Trials that ended so."""
        return sum(trial.state is state for trial in self.ended)

    @property
    def best(self) -> TrialView | None:
        """The best trial so far; of a front, the best under the first objective."""
        return next(iter(self.front), None)


def progress(data: StudyData, *, status: StudyStatus, workers: int, now: datetime) -> Progress:
    """How far a study is.

    Args:
        data: its rows.
        status: as the last pass wrote it.
        workers: those that are alive.
        now: up to when trials have run that still run.
    """
    planned, drawn = _max_epochs(data.spec), subject(data, now=now)
    limited = limited_metrics(data.spec, besides=drawn.metrics)
    views = [_view(trial, drawn, limited=limited, planned=planned, now=now) for trial in _by_end(data.trials)]
    by_number = {view.number: view for view in views}
    ended = tuple(view for view in views if view.state.is_finished())
    running = tuple(view for view in views if view.state is TrialState.RUNNING)
    total = data.spec.most_trials if data.spec else len(data.trials)
    elapsed = data.clock.elapsed_at(now)
    return Progress(
        name=data.name,
        phase=status.phase or Phase.PENDING,
        message=status.message or "",
        trouble=_trouble(status),
        objectives=drawn.metrics,
        directions=tuple(direction.name.lower() for direction in data.directions),
        limited=tuple(limited),
        is_constrained=bool(drawn.infeasible or (data.spec and data.spec.constraints)),
        total=total,
        waiting=sum(trial.state is TrialState.WAITING for trial in data.trials),
        retried=data.retried,
        workers=workers,
        elapsed=elapsed,
        seconds_left=_seconds_left(data.spec, ended=ended, running=running, total=total, elapsed=elapsed),
        running=running,
        ended=ended,
        ranked=tuple(by_number[trial.number] for trial in drawn.ranked),
        front=tuple(by_number[trial.number] for trial in drawn.best),
    )


def _by_end(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    def key(trial: FrozenTrial) -> tuple[bool, float, int]:
        ended = utc(trial.datetime_complete)
        return ended is None, ended.timestamp() if ended else 0.0, trial.number

    return sorted(trials, key=key)


def _view(
    trial: FrozenTrial, drawn: Subject, *, limited: Sequence[str], planned: int | None, now: datetime
) -> TrialView:
    """NB: user code may write any attribute of its trial: what cannot be read counts as not written."""
    attributes, reports = trial.user_attrs, tuple(value for _, value in sorted(trial.intermediate_values.items()))
    started, ended = utc(trial.datetime_start), utc(trial.datetime_complete)
    results = drawn.values(trial) if trial.values else (next(reversed(reports), None), *[None] * len(drawn.metrics[1:]))
    epochs, max_epochs = attributes.get(contract.EPOCHS_ATTRIBUTE), attributes.get(contract.MAX_EPOCHS_ATTRIBUTE)
    retry_of = attributes.get(contract.RETRY_OF_ATTRIBUTE)
    owner = read_attribute(Owner, attributes.get(contract.OWNER_ATTRIBUTE))
    return TrialView(
        number=trial.number,
        state=trial.state,
        values=(*results, *(limited_value(trial, metric) for metric in limited)),
        broken=tuple(excesses(trial)),
        reports=reports,
        epochs=epochs if isinstance(epochs, int) else max(trial.intermediate_values, default=-1) + 1,
        max_epochs=max_epochs if isinstance(max_epochs, int) else planned,
        seconds=max(0.0, ((ended or now) - started).total_seconds()) if started else 0.0,
        params=trial.params,
        worker=owner.name if owner else "",
        failure=read_attribute(Failure, attributes.get(contract.FAILURE_ATTRIBUTE))
        if trial.state is TrialState.FAIL
        else None,
        retry_of=retry_of if isinstance(retry_of, int) else None,
    )


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
