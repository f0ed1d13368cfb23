"""Any status that the controller can write, made of anything that a pass may meet."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

from hypothesis import strategies as st
from tests.support.builders import NOW, a_snapshot, a_spec, a_study, a_trial, a_worker

from tuning_api.contract import Failure, FailureReason
from tuning_api.status import Charts, Reason
from tuning_operator import decide
from tuning_operator.decide import report
from tuning_operator.model import Clock, Ending, Record, Snapshot, Trial, Trouble, Worker, WorkerState

Document = dict[str, Any]

OBJECTIVES = [
    [{"metric": "val_acc", "direction": "maximize"}],
    [{"metric": "val_loss", "direction": "minimize"}, {"metric": "latency", "direction": "minimize"}],
    [{"metric": name, "direction": "maximize"} for name in ("a", "b", "c")],
]
SPECS = st.builds(
    lambda objectives, stop_when, **changes: a_spec(
        objectives=objectives,
        **({"stopWhen": stop_when} if len(objectives) == 1 and stop_when else {}),
        **{key: value for key, value in changes.items() if value is not None},
    ),
    st.sampled_from(OBJECTIVES),
    st.sampled_from([None, {"target": 0.5}, {"noImprovementTrials": 2}]),
    maxTrials=st.integers(1, 40),
    maxFailedTrials=st.integers(1, 5),
    timeout=st.sampled_from([None, "1m", "9d"]),
    maxComputeSeconds=st.sampled_from([None, 1, 10**9]),
    suspend=st.booleans(),
    parallelism=st.integers(0, 3),
    constraints=st.sampled_from([None, [{"metric": "latency", "upper": 50}]]),
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
FAILURES = st.builds(Failure, reason=st.sampled_from(FailureReason), message=st.text(), details=st.none() | st.text())
TRIALS = st.builds(
    lambda state, **changes: a_trial(0, state, **changes),
    st.sampled_from(["WAITING", "RUNNING", "COMPLETE", "PRUNED", "FAIL"]),
    values=st.lists(st.floats(), max_size=3).map(tuple),
    is_feasible=st.booleans(),
    params=st.dictionaries(st.text(min_size=1), SCALARS, max_size=3),
    failure=st.none() | FAILURES,
    requeued=st.none() | st.sampled_from(Ending).map(str),
    retry_of=st.none() | st.integers(0, 5),
    cancelled=st.booleans(),
    epochs=st.none() | st.integers(0, 10**6),
    max_epochs=st.none() | st.integers(0, 10**6),
)
TROUBLES = st.builds(Trouble, st.sampled_from(Reason), st.text(max_size=300))
WORKERS = st.builds(
    lambda state, running, trouble, number: a_worker(
        number, state=state, running=running, trouble=trouble, owners=(f"pod-{number}",)
    ),
    st.sampled_from(WorkerState),
    st.booleans(),
    st.none() | TROUBLES,
    st.integers(0, 4),
)


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    """Anything that a pass may meet, of which only part makes sense."""
    spec = draw(SPECS)
    rows: tuple[Trial, ...] = tuple(
        replace(trial, number=number, trial_id=number)
        for number, trial in enumerate(draw(st.lists(TRIALS, max_size=30)))
    )
    workers: tuple[Worker, ...] = tuple(draw(st.lists(WORKERS, max_size=3)))
    now = NOW + timedelta(seconds=draw(st.integers(-1000, 10**6)))
    study = a_study(spec=spec, generation=draw(st.integers(1, 10**6)))
    record = Record(
        stored_spec=None,
        clock=Clock(draw(st.floats(0, 10**6)), draw(st.none() | st.just(NOW))),
        trials=rows,
        importances=draw(st.dictionaries(st.text(), st.floats(0, 1), max_size=3)),
        warm_started=draw(st.dictionaries(st.text(), st.integers(0, 10**6), max_size=2)),
    )
    return replace(a_snapshot(study=study, workers=workers, now=now), record=record)


@st.composite
def statuses(draw: st.DrawFn) -> tuple[Document, Document]:
    """The status of a study that was observed, and then of the same study when it is at fault."""
    snapshot, refusal = draw(snapshots()), draw(st.none() | TROUBLES)
    charts = Charts(report="https://charts.example/") if draw(st.booleans()) else None
    status = report.status(snapshot, decide.plan(snapshot), charts=charts, refusal=refusal)
    study = replace(snapshot.study, status=status)
    fault = report.status_of_fault(study, draw(TROUBLES), charts=charts, now=snapshot.now)
    return status.to_document(), fault.to_document()
