"""What a page says about a study before its charts, from the trials where they say more than the last status does."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import yaml
from optuna.trial import FrozenTrial, TrialState

from tuning_api.contract import ran_out_of_memory
from tuning_api.search import Parameter, ParameterType
from tuning_api.spec import Constraint
from tuning_api.status import ConditionStatus, ConditionType, Phase, Reason
from tuning_operator.charts.source import StudyData
from tuning_operator.charts.subject import Subject
from tuning_operator.charts.table import epochs, seconds
from tuning_operator.charts.wording import counted, duration, shown

_TERMINAL = frozenset({Phase.COMPLETE, Phase.FAILED})
_NO_NEWS = frozenset({Reason.ENDED, Reason.NOT_YET})
_NO_FAULTS = frozenset({Reason.SUSPENDED, Reason.QUEUED_BY_KUEUE, Reason.NO_WORKERS_WANTED})
_LEAST_AT_ONCE = 0.05
MOST_OF_FRONT = 8
"""Trials of a Pareto front that the summary lists; the table marks all of them."""
MOST_PARAMS = 10
"""Parameters of the best trial that are seen at once; the others unfold."""


@dataclass(frozen=True)
class Part:
    """Trials of one state, as a part of the progress bar."""

    key: str
    trials: int
    percent: float


@dataclass(frozen=True)
class Fact:
    """A number worth knowing."""

    label: str
    value: str
    detail: str = ""


@dataclass(frozen=True)
class CallOut:
    """Why the study does not advance."""

    title: str
    message: str
    is_fault: bool


@dataclass(frozen=True)
class Best:
    """The best trial, or the Pareto front."""

    value: str
    detail: str
    lines: list[tuple[str, str]]
    """The parameters; of a front, its trials with their values."""
    folded: list[tuple[str, str]]
    """Parameters that are seen when they are asked for."""
    more: int
    """Trials of the front that are not listed."""
    yaml: str


@dataclass(frozen=True)
class Summary:
    """The upper part of a page."""

    namespace: str
    name: str
    phase: str
    message: str
    goals: list[tuple[str, str]]
    """What is done, with which metric."""
    has_front: bool
    learned_from: str
    ended: int
    total: int | None
    has_values: bool
    """Whether any trial is complete, so that charts have something to show."""
    parts: list[Part]
    call_out: CallOut | None
    best: Best | None
    no_best: str
    facts: list[Fact]
    is_terminal: bool

    @property
    def title(self) -> str:
        """What the browser's tab says."""
        return f"{self.ended}/{self.total} {self.name}" if self.total else self.name


def subject(data: StudyData, *, now: datetime) -> Subject:
    """What is drawn of a study."""
    known = [objective.metric for objective in data.spec.objectives] if data.spec else []
    if len(known) != len(data.directions):
        known = [*known, "value", "second value", "third value"][: len(data.directions)]
    return Subject(trials=data.trials, directions=data.directions, metrics=tuple(known), now=now)


def summary(data: StudyData, drawn: Subject, *, now: datetime) -> Summary:
    """The upper part of a page."""
    phase = data.status.phase or Phase.PENDING
    total = _total(data)
    return Summary(
        namespace=data.namespace,
        name=data.name,
        phase=phase.value,
        message=_message(data, total=total),
        goals=_goals(drawn, data.spec.constraints or [] if data.spec else []),
        has_front=drawn.has_front,
        learned_from=_learned_from(data.warm_started),
        ended=sum(trial.state.is_finished() for trial in data.trials),
        total=total,
        has_values=bool(drawn.complete),
        parts=_parts(data.trials, total=max(total or 0, len(data.trials), 1)),
        call_out=_call_out(data),
        best=_best(drawn, study=data.name),
        no_best=drawn.why_nothing_is_best(),
        facts=_facts(data, drawn, now=now),
        is_terminal=phase in _TERMINAL,
    )


def search_space(data: StudyData) -> list[tuple[str, str]]:
    """The search space in words; empty where the spec cannot be read."""
    return [(parameter.name, _range(parameter)) for parameter in (data.spec.search_space if data.spec else [])]


def _range(parameter: Parameter) -> str:
    if parameter.type is ParameterType.CATEGORICAL:
        return ", ".join(shown(choice) for choice in parameter.choices or [])
    scale = ", log" if parameter.log else f", step {parameter.step:g}" if parameter.step else ""
    return f"{parameter.low:g} to {parameter.high:g}{scale}"


def _total(data: StudyData) -> int | None:
    """The budget: of the spec, or of the last status where this version cannot read the spec."""
    if data.spec:
        return data.spec.most_trials
    return data.status.trials.total if data.status.trials else None


_STATES = {
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
    "running": TrialState.RUNNING,
}


def _message(data: StudyData, *, total: int | None) -> str:
    """The status' sentence, with the count of the rows: it is some seconds older than they are."""
    message = data.status.message or "The operator has not reported on this study yet."
    if total is None:
        return message
    ended = sum(trial.state.is_finished() for trial in data.trials)
    return re.sub(r"^\d+ of \d+ trials done", f"{ended} of {total} trials done", message)


def _parts(trials: Iterable[FrozenTrial], *, total: int) -> list[Part]:
    states = [trial.state for trial in trials]
    return [Part(key, states.count(state), 100 * states.count(state) / total) for key, state in _STATES.items()]


def _call_out(data: StudyData) -> CallOut | None:
    condition = data.status.condition(ConditionType.PROGRESSING)
    if condition is None or condition.status is not ConditionStatus.FALSE or condition.reason in _NO_NEWS:
        return None
    is_fault = condition.reason not in _NO_FAULTS
    return CallOut(title=_as_title(condition.reason), message=condition.message, is_fault=is_fault)


def _as_title(reason: Reason) -> str:
    """A reason in words: TrialsFailing becomes "Trials failing"."""
    spaced = "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in reason.value)
    return spaced.strip().capitalize()


def _goals(drawn: Subject, constraints: Sequence[Constraint]) -> list[tuple[str, str]]:
    aims = ["maximize" if drawn.is_maximized(at) else "minimize" for at in range(len(drawn.metrics))]
    limits = [("keep", _limits(constraint)) for constraint in constraints]
    return [*zip(aims, drawn.metrics, strict=True), *limits]


def _limits(constraint: Constraint) -> str:
    upper = f" ≤ {constraint.upper:g}" if constraint.upper is not None else ""
    lower = f"{constraint.lower:g} ≤ " if constraint.lower is not None else ""
    return f"{lower}{constraint.metric}{upper}"


def _learned_from(warm_started: Mapping[str, int]) -> str:
    taken = [f"{counted(count, 'trial')} of {study}" for study, count in warm_started.items() if count]
    return f"Warm start: learned from {', '.join(taken)}, which are not counted here." if taken else ""


def _best(drawn: Subject, *, study: str) -> Best | None:
    if not drawn.best:
        return None
    yaml_ = "\n".join(_copied(trial, drawn, study=study) for trial in drawn.best)
    if drawn.has_front:
        shown_trials = drawn.best[:MOST_OF_FRONT]
        values = [" · ".join(shown(value) for value in drawn.values(trial)) for trial in shown_trials]
        lines = [(f"trial {trial.number}", words) for trial, words in zip(shown_trials, values, strict=True)]
        detail = "trial that no other one beats" if len(drawn.best) == 1 else "trials, each better in something"
        more = len(drawn.best) - len(shown_trials)
        return Best(str(len(drawn.best)), detail, [("", " · ".join(drawn.metrics)), *lines], [], more, yaml_)
    (trial,) = drawn.best
    params = [(name, shown(value)) for name, value in trial.params.items()]
    value, detail = shown(drawn.values(trial)[0]), f"trial {trial.number}"
    return Best(value, detail, params[:MOST_PARAMS], params[MOST_PARAMS:], 0, yaml_)


def _copied(trial: FrozenTrial, drawn: Subject, *, study: str) -> str:
    """A trial's parameters as YAML; of a front each is a document of its own."""
    values = zip(drawn.metrics, drawn.values(trial), strict=True)
    words = ", ".join(f"{metric} = {value:.6g}" for metric, value in values)
    # NB: a metric's name may hold a line break, which would end the comment.
    comment = " ".join(f"# trial {trial.number} of {study}: {words}".split())
    document = yaml.safe_dump(trial.params, sort_keys=False, allow_unicode=True) if trial.params else ""
    return f"{'---' + chr(10) if drawn.has_front else ''}{comment}\n{document}"


def _facts(data: StudyData, drawn: Subject, *, now: datetime) -> list[Fact]:
    elapsed = data.clock.elapsed_at(now)
    compute = math.fsum(seconds(trial, now=now) or 0.0 for trial in data.trials)
    at_once = compute / elapsed if elapsed >= 1 else 0.0
    facts = [
        Fact("Elapsed", duration(elapsed), "not counting suspensions"),
        Fact("Compute time", duration(compute), f"{at_once:.1f} trials at a time" if at_once > _LEAST_AT_ONCE else ""),
        _saved(data.trials),
    ]
    if drawn.infeasible or (data.spec and data.spec.constraints):
        facts.append(Fact("Infeasible", counted(len(drawn.infeasible), "trial"), "break a constraint, never the best"))
    if misfits := sum(ran_out_of_memory(trial.user_attrs) for trial in data.trials if trial.state is TrialState.FAIL):
        facts.append(Fact("Out of memory", counted(misfits, "trial"), "their parameters do not fit"))
    if data.retried:
        facts.append(Fact("Retried", counted(data.retried, "trial"), "lost their worker, went on elsewhere"))
    return facts


def _saved(trials: Iterable[FrozenTrial]) -> Fact:
    """What pruning saved: the epochs that pruned trials did not train, of all epochs that would have been."""
    plans = [(trial.state, *epochs(trial)) for trial in trials if trial.state.is_finished()]
    run = sum(trained or 0 for _, trained, _ in plans)
    pruned = [(trained or 0, planned or 0) for state, trained, planned in plans if state is TrialState.PRUNED]
    saved = sum(max(0, planned - trained) for trained, planned in pruned)
    if pruned and not saved:
        return Fact("Saved by pruning", "not known", f"{counted(len(pruned), 'trial')} cut short, of unknown length")
    if not saved:
        return Fact("Saved by pruning", "0%", f"{run:,} epochs run" if run else "no trial was cut short")
    return Fact("Saved by pruning", f"{saved / (run + saved):.0%}", f"{saved:,} of {run + saved:,} epochs")
