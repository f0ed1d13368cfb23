"""Studies for the charts server: sixty trials of six parameters as a real search leaves them, and every poor relative."""

import math
import random
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial
from tests.support.builders import DIGITS_TRIAL, a_spec
from tests.support.tenancy import UID

from tuning_api import contract
from tuning_api.spec import StudySpec
from tuning_api.status import Condition, ConditionStatus, ConditionType, Phase, Reason, StudyStatus
from tuning_operator.charts.links import namespace_mark
from tuning_operator.charts.source import StudyData
from tuning_operator.model import Clock

BEGIN = datetime(2026, 1, 1, 9, 0, tzinfo=UTC)
NOW = BEGIN + timedelta(hours=1, minutes=12)
EPOCHS = 20

SPACE: dict[str, BaseDistribution] = {
    "learning_rate": FloatDistribution(1e-5, 1e-1, log=True),
    "weight_decay": FloatDistribution(1e-6, 1e-2, log=True),
    "dropout": FloatDistribution(0.0, 0.6),
    "layers": IntDistribution(1, 6),
    "hidden_dim": CategoricalDistribution([32, 64, 128, 256]),
    "activation": CategoricalDistribution(["relu", "gelu", "silu"]),
}


def a_search_spec(**changes: Any) -> StudySpec:
    """The spec of that search."""
    space = [
        {"name": "learning_rate", "type": "float", "low": 1e-5, "high": 1e-1, "log": True},
        {"name": "weight_decay", "type": "float", "low": 1e-6, "high": 1e-2, "log": True},
        {"name": "dropout", "type": "float", "low": 0.0, "high": 0.6},
        {"name": "layers", "type": "int", "low": 1, "high": 6},
        {"name": "hidden_dim", "type": "categorical", "choices": [32, 64, 128, 256]},
        {"name": "activation", "type": "categorical", "choices": ["relu", "gelu", "silu"]},
    ]
    config = {"model": {"class_path": "m.M", "init_args": {item["name"]: f"${{{item['name']}}}" for item in space}}}
    return a_spec(**({"searchSpace": space, "maxTrials": 80, "trial": DIGITS_TRIAL | {"lightning": config}} | changes))


def a_finished_trial(
    number: int,
    state: TrialState = TrialState.COMPLETE,
    *,
    value: float | None = 0.5,
    params: dict[str, Any] | None = None,
    distributions: dict[str, BaseDistribution] | None = None,
    intermediate_values: dict[int, float] | None = None,
    attributes: dict[str, Any] | None = None,
) -> FrozenTrial:
    """A trial that took a minute, started number minutes after the study began; one that runs has no end."""
    trial = create_trial(
        state=state,
        values=[value] if state is TrialState.COMPLETE and value is not None else None,
        params=params or {},
        distributions=distributions or {name: SPACE[name] for name in params or {}},
        intermediate_values=intermediate_values or {},
        user_attrs=attributes or {},
    )
    trial.number, trial._trial_id = number, 1000 + number
    # NB: naive UTC, as Optuna's tables have it.
    begun = (BEGIN + timedelta(minutes=number)).replace(tzinfo=None)
    trial.datetime_start = begun if state is not TrialState.WAITING else None
    trial.datetime_complete = begun + timedelta(seconds=60) if state.is_finished() else None
    return trial


def a_search(count: int = 60, *, running: int = 2, seed: int = 7) -> tuple[FrozenTrial, ...]:
    """Trials that get better: some pruned, a few failed, one retried, some running, two waiting."""
    chance = random.Random(seed)
    trials = [
        _searched(number, chance, focus=min(0.9, number / 45), runs=number >= count - running)
        for number in range(count)
    ]
    return (*trials, *(a_finished_trial(count + extra, TrialState.WAITING) for extra in range(2)))


def _searched(number: int, chance: random.Random, *, focus: float, runs: bool) -> FrozenTrial:
    def near(low: float, high: float, aim: float) -> float:
        free = chance.uniform(low, high)
        return min(high, max(low, free + (aim + chance.gauss(0, 0.06) * (high - low) - free) * focus))

    params = {
        "learning_rate": 10 ** near(-5, -1, -2.6),
        "weight_decay": 10 ** near(-6, -2, -4),
        "dropout": near(0, 0.6, 0.18),
        "layers": round(near(1, 6, 3)),
        "hidden_dim": chance.choice([32, 64, 128, 256] if chance.random() > focus else [128, 256]),
        "activation": chance.choice(["relu", "gelu", "silu"] if chance.random() > focus else ["gelu"]),
    }
    miss = (math.log10(params["learning_rate"]) + 2.6) ** 2 * 0.05 + (params["dropout"] - 0.18) ** 2 * 0.5
    miss += abs(params["layers"] - 3) * 0.012 + (0.03 if params["hidden_dim"] == 32 else 0) + chance.uniform(0, 0.012)
    top = max(0.1, 0.985 - miss)
    curve = {step: top * (1 - math.exp(-(step + 1) / 4)) + chance.gauss(0, 0.004) for step in range(EPOCHS)}
    attributes: dict[str, Any] = {contract.MAX_EPOCHS_ATTRIBUTE: EPOCHS, contract.EPOCHS_ATTRIBUTE: EPOCHS}
    if runs:
        seen = {step: value for step, value in curve.items() if step < 7}
        return _with_length(
            a_finished_trial(number, TrialState.RUNNING, params=params, intermediate_values=seen), chance, epochs=7
        )
    if number in {11, 30}:
        attributes = {contract.FAILURE_ATTRIBUTE: a_failure()}
        return a_finished_trial(number, TrialState.FAIL, params=params, attributes=attributes)
    if number > 5 and top < 0.9:
        epochs = chance.randint(3, 7)
        attributes[contract.EPOCHS_ATTRIBUTE] = epochs
        seen = {step: value for step, value in curve.items() if step < epochs}
        pruned = a_finished_trial(
            number, TrialState.PRUNED, params=params, intermediate_values=seen, attributes=attributes
        )
        return _with_length(pruned, chance, epochs=epochs)
    if number == 24:
        attributes[contract.RETRY_OF_ATTRIBUTE] = 23
    complete = a_finished_trial(number, value=top, params=params, intermediate_values=curve, attributes=attributes)
    return _with_length(complete, chance, epochs=EPOCHS)


def _with_length(trial: FrozenTrial, chance: random.Random, *, epochs: int) -> FrozenTrial:
    if trial.datetime_complete and trial.datetime_start:
        trial.datetime_complete = trial.datetime_start + timedelta(seconds=epochs * chance.uniform(6, 9))
    return trial


def a_failure(message: str = "CUDA out of memory: tried to allocate 2.00 GiB") -> dict[str, Any]:
    """The failure of a trial, as a worker writes it."""
    details = 'Traceback (most recent call last):\n  File "model.py", line 42, in forward\nRuntimeError: ' + message
    return {"reason": "Error", "message": message, "details": details}


def a_status(
    phase: Phase = Phase.RUNNING,
    *,
    message: str = "58 of 80 trials done, 2 workers running",
    trouble: Reason | None = None,
) -> StudyStatus:
    """A status as the operator writes it."""
    progressing = Condition(
        type=ConditionType.PROGRESSING,
        status=ConditionStatus.FALSE if trouble else ConditionStatus.TRUE,
        reason=trouble or Reason.TRIALS_RUNNING,
        message=message,
        last_transition_time=BEGIN,
        observed_generation=1,
    )
    return StudyStatus(phase=phase, message=message, conditions=[progressing])


def a_study_data(trials: Iterable[FrozenTrial] | None = None, **changes: Any) -> StudyData:
    """A study as the source gives it."""
    data = StudyData(
        namespace="research",
        name="digits",
        directions=(StudyDirection.MAXIMIZE,),
        trials=tuple(a_search() if trials is None else trials),
        spec=a_search_spec(),
        status=a_status(),
        clock=Clock(0, BEGIN),
        mark=namespace_mark(UID),
    )
    return replace(data, **changes)


SMALL = {"learning_rate": 0.001, "layers": 3, "activation": "gelu"}


def some(state: TrialState, count: int) -> list[FrozenTrial]:
    """Trials that all ended, or run, alike."""
    return [a_finished_trial(number, state, value=0.5 + number / 100, params=SMALL) for number in range(count)]


def _unlike_any_other() -> list[FrozenTrial]:
    """One of each kind that has ever made a chart fail."""
    params = {"learning_rate": 0.001}
    return [
        a_finished_trial(0, value=math.inf, params=params),
        a_finished_trial(1, value=0.4, params=params, intermediate_values={0: math.nan, 1: 0.4, 2: math.inf}),
        a_finished_trial(2, TrialState.PRUNED, params=params, intermediate_values={0: math.nan}),
        a_finished_trial(3, TrialState.FAIL),
        a_finished_trial(4, value=0.6, params={"learning_rate": 0.01, "layers": 2}, intermediate_values={7: 0.6}),
        a_finished_trial(5, TrialState.RUNNING, params=params),
        a_finished_trial(6, TrialState.WAITING),
    ]


POOR_RELATIVES: dict[str, list[FrozenTrial]] = {
    "no trial": [],
    "only waiting trials": some(TrialState.WAITING, 2),
    "only running trials": some(TrialState.RUNNING, 2),
    "one complete trial": some(TrialState.COMPLETE, 1),
    "only failed trials": some(TrialState.FAIL, 3),
    "only pruned trials": some(TrialState.PRUNED, 3),
    "pruned and failed trials": [*some(TrialState.PRUNED, 2), *some(TrialState.FAIL, 3)[2:]],
    "equal values": [a_finished_trial(number, value=0.5, params=SMALL) for number in range(6)],
    "no parameters": [a_finished_trial(number, value=number / 10) for number in range(6)],
    "infinite values only": [a_finished_trial(number, value=-math.inf, params=SMALL) for number in range(3)],
    "a mixture of oddities": _unlike_any_other(),
}
"""Studies that have little to show, by what they have."""

HOSTILE_NAME = '<img src=x onerror="alert(1)">&'
HOSTILE_VALUE = "<script>alert('value')</script>"


def hostile_trials(count: int = 12) -> list[FrozenTrial]:
    """Trials whose parameters are named, and valued, by somebody who wishes no good."""
    distributions: dict[str, BaseDistribution] = {
        HOSTILE_NAME: CategoricalDistribution([HOSTILE_VALUE, "<b>bold</b>"]),
        "learning_rate": SPACE["learning_rate"],
    }
    trials = [
        a_finished_trial(
            number,
            value=number / 100,
            params={HOSTILE_NAME: [HOSTILE_VALUE, "<b>bold</b>"][number % 2], "learning_rate": 10 ** -(1 + number / 4)},
            distributions=distributions,
            intermediate_values={0: number / 200, 1: number / 100},
        )
        for number in range(count)
    ]
    failure = a_failure("<script>alert('message')</script>") | {"details": "</pre><script>alert('details')</script>"}
    return [*trials, a_finished_trial(count, TrialState.FAIL, attributes={contract.FAILURE_ATTRIBUTE: failure})]


LATENCY = {"metric": "latency", "upper": 24.0}
TWO = [{"metric": "val_acc", "direction": "maximize"}, {"metric": "latency", "direction": "minimize"}]


def a_search_of_two(count: int = 60) -> tuple[FrozenTrial, ...]:
    """The same search by accuracy and latency: larger models are better and slower; nothing is pruned or reported."""
    trials = list(a_search(count))
    for trial in trials:
        if trial.state is TrialState.PRUNED:
            trial.state = TrialState.COMPLETE
            trial.user_attrs[contract.EPOCHS_ATTRIBUTE] = EPOCHS
        if trial.state is TrialState.COMPLETE:
            latency = _latency(trial)
            reached = max(trial.intermediate_values.values()) + (latency - 10) * 0.002
            trial.values = [reached, latency]
        trial.intermediate_values = {}
    return tuple(trials)


def a_constrained_search(count: int = 60) -> tuple[FrozenTrial, ...]:
    """The same search under a bound of the latency, which some complete trials break."""
    trials = a_search(count)
    for trial in trials:
        if trial.state is TrialState.COMPLETE:
            latency = _latency(trial)
            trial.user_attrs[contract.LIMITED_ATTRIBUTE] = {"latency": latency}
            trial.set_constraint("latency <= 24", latency - 24)
    return trials


def _latency(trial: FrozenTrial) -> float:
    """Milliseconds, from the size of the model."""
    return 6.0 + float(trial.params["layers"]) * float(trial.params["hidden_dim"]) / 32


def two_objectives(trials: Iterable[FrozenTrial] | None = None, **changes: Any) -> StudyData:
    """A study of two objectives, which has learned from an earlier one."""
    both = (StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE)
    given = {"spec": a_search_spec(objectives=TWO), "directions": both, "warm_started": {"digits-wide": 37}} | changes
    return a_study_data(a_search_of_two() if trials is None else trials, **given)


def with_a_constraint(trials: Iterable[FrozenTrial] | None = None, **changes: Any) -> StudyData:
    """A study whose trials must keep a bound."""
    given = {"spec": a_search_spec(constraints=[LATENCY])} | changes
    return a_study_data(a_constrained_search() if trials is None else trials, **given)
