"""Values for tests, with good defaults: a test names only what it is about."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from tuning_api.contract import Owner
from tuning_api.spec import GROUP, KIND, VERSION, StudySpec
from tuning_api.status import StudyStatus
from tuning_operator.model import (
    Clock,
    Record,
    Snapshot,
    Study,
    StudyKey,
    Trial,
    TrialState,
    Worker,
    WorkerState,
)

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
DIGITS_TRIAL = {
    "lightning": {
        "model": {
            "class_path": "tuning_trial.examples.digits.DigitsClassifier",
            "init_args": {"hidden_dim": "${hidden_dim}"},
        },
        "data": {"class_path": "tuning_trial.examples.digits.DigitsData"},
        "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": "${learning_rate}"}},
        "trainer": {"max_epochs": 2},
    }
}


def a_spec_document(**changes: Any) -> dict[str, Any]:
    """The spec of a small, valid study as a person writes it; camelCase keyword arguments replace fields."""
    return {
        "objectives": [{"metric": "val_acc", "direction": "maximize"}],
        "searchSpace": [
            {"name": "learning_rate", "type": "float", "low": 1e-4, "high": 1e-1, "log": True},
            {"name": "hidden_dim", "type": "categorical", "choices": [8, 16, 32]},
        ],
        "maxTrials": 10,
        "parallelism": 2,
        "trial": DIGITS_TRIAL,
    } | changes


def a_manifest(*, name: str = "digits", namespace: str = "research", **spec: Any) -> dict[str, Any]:
    """A whole manifest."""
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": KIND,
        "metadata": {"name": name, "namespace": namespace},
        "spec": a_spec_document(**spec),
    }


def a_spec(**changes: Any) -> StudySpec:
    """A valid spec."""
    return StudySpec.model_validate(a_spec_document(**changes))


def a_study(*, spec: StudySpec | None = None, status: StudyStatus | None = None, generation: int = 1) -> Study:
    """A study as the API server has it."""
    return Study(
        key=StudyKey("research", "digits"),
        uid="11111111-2222-3333-4444-555555555555",
        generation=generation,
        spec=spec or a_spec(),
        fault=None,
        status=status or StudyStatus(),
    )


def a_trial(number: int, state: str = "COMPLETE", **changes: Any) -> Trial:
    """A trial; one that ended took a minute, one that runs belongs to `pod-<number>`."""
    begun = NOW - timedelta(minutes=60 - number)
    is_over = state in {"COMPLETE", "PRUNED", "FAIL"}
    trial = Trial(
        trial_id=1000 + number,
        number=number,
        state=TrialState(state),
        values=(0.5 + number / 100,) if state == "COMPLETE" else (),
        params={"learning_rate": 0.01, "hidden_dim": 16} if state != "WAITING" else {},
        owner=Owner(id=f"pod-{number}", name=f"digits-{number}") if state != "WAITING" else None,
        started=begun if state != "WAITING" else None,
        ended=begun + timedelta(minutes=1) if is_over else None,
    )
    return replace(trial, **changes)


def trials(*states: str) -> tuple[Trial, ...]:
    """One trial for each state, numbered from 0."""
    return tuple(a_trial(number, state) for number, state in enumerate(states))


def a_worker(index: int = 0, *, owners: tuple[str, ...] = (), **changes: Any) -> Worker:
    """A running worker that owns what `owners` says."""
    worker = Worker(
        name=f"digits-{index}",
        index=index,
        state=WorkerState.ACTIVE,
        running=True,
        live_owners=frozenset(owners),
    )
    return replace(worker, **changes)


def a_snapshot(
    *,
    spec: StudySpec | None = None,
    study: Study | None = None,
    trials: tuple[Trial, ...] = (),
    workers: tuple[Worker, ...] = (),
    clock: Clock | None = None,
    now: datetime = NOW,
) -> Snapshot:
    """What one pass observed."""
    study = study or a_study(spec=spec)
    return Snapshot(
        now=now,
        study=study,
        spec=study.spec or a_spec(),
        record=Record(stored_spec=None, clock=clock or Clock(0, NOW - timedelta(minutes=5)), trials=trials),
        workers=workers,
    )
