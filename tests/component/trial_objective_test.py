"""Plain Optuna objectives through a real worker, on Postgres with the namespace's own role: whatever one does."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import FrozenTrial, TrialState
from tests.support import trial_objectives
from tests.support.postgres import PostgresServer
from tests.support.trial_worker import TrialStudy, WorkerProcess, a_spec, run, running, wait_for_file

from tuning_api.contract import Env
from tuning_api.spec import StudySpec

MODULE = "tests.support.trial_objectives"
TRAINERS = "tests.support.trial_trainers"
COMPLETE, PRUNED, FAIL, RUNNING = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING
NOT_ITS_TO_CALL = "RuntimeError: an objective runs one trial and cannot call trial.study."

SCENARIOS: dict[str, tuple[TrialState, str, str]] = {
    "is good": (COMPLETE, "", ""),
    "prunes itself": (PRUNED, "", ""),
    "raises": (FAIL, "Error", "ValueError: no such column: price (tests/support/trial_objectives.py:"),
    "returns nothing": (FAIL, "InvalidValue", "the objective returned None as val_acc, which is no number"),
    "returns text": (FAIL, "InvalidValue", "the objective returned '0.9' as val_acc, which is no number"),
    "returns two values": (FAIL, "InvalidValue", "the objective returned (0.1, 0.2), and should return one value"),
    "is not a number": (FAIL, "NotFinite", "the objective returned nan as val_acc"),
    "is infinite": (FAIL, "NotFinite", "the objective returned -inf as val_acc"),
    "calls sys.exit": (FAIL, "Error", "SystemExit: bye (tests/support/trial_objectives.py:"),
    "segfaults": (FAIL, "Crashed", "the trial's process was ended by SIGSEGV (Segmentation fault)"),
    "takes for ever": (FAIL, "TimedOut", "the trial took longer than trial.timeout, 4s"),
    "calls optimize": (FAIL, "Error", f"{NOT_ITS_TO_CALL}optimize: the operator creates trials"),
    "enqueues": (FAIL, "Error", f"{NOT_ITS_TO_CALL}enqueue_trial: list known good points in spec.enqueue"),
    "changes the study": (FAIL, "Error", f"{NOT_ITS_TO_CALL}set_user_attr: use trial.set_user_attr"),
    "changes it by force": (FAIL, "Error", "the database refused it (permission denied for table "),
    "suggests otherwise": (FAIL, "Error", "ValueError: Cannot set different distribution kind to the same parameter"),
    "notes predictions": (
        FAIL,
        "Error",
        "RowRefusedError: trial attribute predictions has 5000000 bytes, and may have 65536: save it as a file in",
    ),
    "reports far away": (FAIL, "Error", "RowRefusedError: integer out of range"),
    "logs to a service": (COMPLETE, "", ""),
    "exits slowly": (COMPLETE, "", ""),
    "leaves a process": (COMPLETE, "", ""),
    "is good again": (COMPLETE, "", ""),
}


_OF_TRIAL = ("timeout", "progressTimeout", "isolation", "checkpoints")


def an_objective(path: str, *, space: list[dict[str, Any]] | None = None, **changes: Any) -> StudySpec:
    """A study of an objective; what belongs into trial is found by its name."""
    trial = {name: changes.pop(name) for name in _OF_TRIAL if name in changes}
    return a_spec(searchSpace=space or [], trial={"gpus": 0, "objective": path} | trial, **changes)


def failure(trial: FrozenTrial) -> dict[str, Any]:
    found: dict[str, Any] = trial.user_attrs.get("tuningstudy:failure", {"reason": "", "message": ""})
    return found


@pytest.fixture(scope="module")
def scenarios(
    postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, FrozenTrial], str]:
    """One worker that meets everything that an objective can do."""
    folder = tmp_path_factory.mktemp("objectives")
    os.environ["FOLDER"] = str(folder)
    study = TrialStudy(postgres_server, an_objective(f"{MODULE}:scenario", timeout="4s"))
    for name in SCENARIOS:
        study.add(scenario=name, quality=0.5)
    exit_code, log = run(study.environment(folder), folder, grace=1.0)
    assert exit_code == 0, log
    assert list((folder / "scratch").iterdir()) == []
    return dict(zip(SCENARIOS, study.trials(), strict=True)), log


def test_an_objective_that_reports_does_not_stand_still(postgres_server: PostgresServer, tmp_path: Path) -> None:
    """Twelve seconds with a report every three, and ten minutes without one."""
    study = TrialStudy(postgres_server, an_objective(f"{MODULE}:scenario", progressTimeout="8s"))
    for name in ("reports slowly", "takes for ever"):
        study.add(scenario=name, quality=0.5)
    exit_code, log = run(study.environment(tmp_path), tmp_path, grace=1.0)
    assert exit_code == 0, log
    slow, stalled = study.trials()
    assert (slow.state, stalled.state, failure(stalled)["reason"]) == (COMPLETE, FAIL, "Stalled")


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_trial_ends_with_its_reason_and_the_worker_goes_on(
    scenarios: tuple[dict[str, FrozenTrial], str], name: str
) -> None:
    """As under study.optimize, but for a value that is not finite; and no trial is ever created by an objective."""
    assert trial_objectives.SCENARIOS.keys() - SCENARIOS.keys() == {"reports slowly"}, "which has a test of its own"
    trials, log = scenarios
    state, reason, message = SCENARIOS[name]
    assert (trials[name].state, failure(trials[name])["reason"]) == (state, reason), log
    assert message in failure(trials[name])["message"]


def test_what_an_objective_leaves_for_its_end_is_written(
    scenarios: tuple[dict[str, FrozenTrial], str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Exit handlers run, and what they left gets a SIGTERM; those that never end are ended, and cost no result."""
    trials, log = scenarios
    folder = tmp_path_factory.getbasetemp() / "objectives0"
    numbers = {name: trial.number for name, trial in trials.items()}
    assert (folder / f"service-{numbers['logs to a service']}").read_text() == "the last line"
    assert (folder / f"left-{numbers['leaves a process']}").read_text() == "the last line\n"
    assert f"trial {numbers['exits slowly']}: its exit handlers did not end within 1 s, and are ended" in log
    assert f"trial {numbers['leaves a process']}: what it left running is asked to end: bash (" in log


def test_what_an_objective_reports_and_notes_is_recorded(scenarios: tuple[dict[str, FrozenTrial], str]) -> None:
    """Its epochs are the steps that it reported; a pruned trial has its last report as its value, as in Optuna."""
    trials, log = scenarios
    good, pruned, crashed = trials["is good again"], trials["prunes itself"], trials["segfaults"]
    assert (good.value, good.intermediate_values) == (0.5, {0: 0.5, 1: 0.5, 2: 0.5})
    assert good.params == {"scenario": "is good again", "quality": 0.5}
    assert (good.user_attrs["tuningstudy:epochs"], crashed.user_attrs["tuningstudy:epochs"]) == (3, 3)
    assert "tuningstudy:maxEpochs" not in good.user_attrs
    assert good.user_attrs["folder"].endswith(f"digits-trial-{good.number}")
    assert pruned.value == 0.5
    assert f"trial {good.number} complete: val_acc=0.5 (3 epochs, " in log


def test_parameters_may_be_in_the_spec_in_the_code_or_in_both(postgres_server: PostgresServer, tmp_path: Path) -> None:
    """The spec's come first and hold for the code too, whose own are drawn by themselves: not as copies of the others."""
    space = [{"name": "x", "type": "float", "low": 0.2, "high": 0.3}]
    study = TrialStudy(postgres_server, an_objective(f"{MODULE}:half_in_the_code", space=space))
    study.add(4)
    exit_code, log = run(study.environment(tmp_path), tmp_path)
    assert exit_code == 0, log
    trials = study.trials()
    assert [trial.state for trial in trials] == [COMPLETE] * 4, [failure(trial) for trial in trials]
    assert all(0.2 <= trial.params["x"] <= 0.3 for trial in trials)
    assert len({trial.params["y"] for trial in trials}) == 4
    assert all(abs((trial.params["x"] - 0.2) * 10 - trial.params["y"]) > 1e-6 for trial in trials)


@pytest.mark.parametrize(
    ("name", "isolation"), [("quadratic", "process"), ("two_classifiers", "fork"), ("torch_loop", "fork")]
)
def test_objectives_of_the_known_kinds_run_unchanged(
    name: str, isolation: str, postgres_server: PostgresServer, tmp_path: Path
) -> None:
    """A formula, scikit-learn with parameters that depend on others, a training loop of PyTorch; with a learning sampler."""
    sampler = {"type": "tpe", "seed": 1, "nStartupTrials": 2}
    study = TrialStudy(postgres_server, an_objective(f"{MODULE}:{name}", isolation=isolation, sampler=sampler))
    study.add(4)
    exit_code, log = run(study.environment(tmp_path), tmp_path)
    assert exit_code == 0, log
    trials = study.trials()
    assert [trial.state for trial in trials] == [COMPLETE] * 4, [failure(trial) for trial in trials]
    assert len({str(trial.params) for trial in trials}) == 4


def test_bad_trials_are_pruned(postgres_server: PostgresServer, tmp_path: Path) -> None:
    """The study's pruner answers trial.should_prune."""
    pruner = {"type": "median", "nStartupTrials": 2, "nWarmupSteps": 1}
    study = TrialStudy(postgres_server, an_objective(f"{MODULE}:scenario", pruner=pruner))
    for quality in (0.6, 0.7, 0.2, 0.9):
        study.add(scenario="is good", quality=quality)
    assert run(study.environment(tmp_path), tmp_path)[0] == 0
    trials = study.trials()
    assert [trial.state for trial in trials] == [COMPLETE, COMPLETE, PRUNED, COMPLETE]
    assert sorted(trials[2].intermediate_values) == [0, 1]


def test_two_objectives_take_two_values(postgres_server: PostgresServer, tmp_path: Path) -> None:
    """A sequence, in their order."""
    objectives = [{"metric": "a", "direction": "minimize"}, {"metric": "b", "direction": "maximize"}]
    study = TrialStudy(postgres_server, an_objective(f"{MODULE}:two_values", objectives=objectives, pruner=None))
    study.add(x=0.25)
    assert run(study.environment(tmp_path), tmp_path)[0] == 0
    assert study.trials()[0].values == [0.25, 0.75]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (f"{MODULE}:quadratics", "has no function 'quadratics' (did you mean 'quadratic'?)"),
        ("no_such_module_of_theirs:objective", "trial.objective: there is no module 'no_such_module_of_theirs'"),
    ],
)
def test_an_objective_that_is_not_there_fails_its_trials_in_words(
    path: str, message: str, postgres_server: PostgresServer, tmp_path: Path
) -> None:
    """And the study stops at maxFailedTrials, as for a class that is not there."""
    study = TrialStudy(postgres_server, an_objective(path))
    study.add()
    exit_code, log = run(study.environment(tmp_path), tmp_path)
    assert exit_code == 0, log
    (trial,) = study.trials()
    assert failure(trial)["reason"] == "InvalidConfig"
    assert message in failure(trial)["message"]


def kill(worker: WorkerProcess) -> None:
    worker.kill()


def terminate(worker: WorkerProcess) -> None:
    worker.terminate()
    assert worker.exit_code() == 75, worker.log()


@pytest.mark.parametrize("checkpoints", [True, False], ids=["with a place for checkpoints", "without"])
@pytest.mark.parametrize("how", [kill, terminate])
def test_an_interrupted_trial_is_queued_again_with_the_parameters_of_its_code(
    how: Callable[[WorkerProcess], None],
    checkpoints: bool,  # noqa: FBT001
    postgres_server: PostgresServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Those that it had suggested; the others are drawn. What it saved is there if there is a place for it, until its end."""
    monkeypatch.setenv("FOLDER", str(tmp_path))
    study = TrialStudy(postgres_server, an_objective(f"{MODULE}:waits"))
    study.add()
    place = {Env.CHECKPOINTS: str(tmp_path / "checkpoints") if checkpoints else ""}
    with running(study.environment(tmp_path, **place), tmp_path, grace=2.0) as worker:
        wait_for_file(tmp_path / "waiting", worker.log)
        how(worker)
    (tmp_path / "go").touch()
    study.requeue(0)
    exit_code, log = run(study.environment(tmp_path, **place), tmp_path)
    assert exit_code == 0, log
    lost, successor = study.trials()
    assert (lost.state, successor.state) == (FAIL, COMPLETE)
    assert (lost.params, set(successor.params)) == ({"x": successor.params["x"]}, {"x", "y"})
    assert (lost.user_attrs["went on"], successor.user_attrs["went on"]) == (False, checkpoints)
    assert not list((tmp_path / "checkpoints" / "digits").glob("*"))


def test_a_trainer_in_an_objective_is_pruned(postgres_server: PostgresServer, tmp_path: Path) -> None:
    """By tuning_trial.PruningCallback, after the same steps as a trial of trial.lightning."""
    pruner = {"type": "median", "nStartupTrials": 2, "nWarmupSteps": 3}
    study = TrialStudy(postgres_server, an_objective(f"{TRAINERS}:prunes", pruner=pruner))
    for quality in (0.6, 0.7, 0.2, 0.9):
        study.add(quality=quality)
    exit_code, log = run(study.environment(tmp_path), tmp_path)
    assert exit_code == 0, log
    trials = study.trials()
    assert [trial.state for trial in trials] == [COMPLETE, COMPLETE, PRUNED, COMPLETE], [*map(failure, trials)]
    assert sorted(trials[2].intermediate_values) == [0, 1, 2, 3]
    assert "trial 2: epoch 4/6, val_acc=0.2" in log


def test_a_trainer_in_an_objective_goes_on_with_its_whole_curve(
    postgres_server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The successor is another trial to Optuna: the callback reports to it what was reported before."""
    monkeypatch.setenv("FOLDER", str(tmp_path))
    study = TrialStudy(postgres_server, an_objective(f"{TRAINERS}:goes_on"))
    study.add(waits_before="epoch 3 batch 2")
    place = {Env.CHECKPOINTS: str(tmp_path / "checkpoints")}
    with running(study.environment(tmp_path, **place), tmp_path) as worker:
        wait_for_file(tmp_path / "waiting", worker.log)
        worker.kill()
    (tmp_path / "go").touch()
    study.requeue(0)
    exit_code, log = run(study.environment(tmp_path, **place), tmp_path)
    assert exit_code == 0, log
    lost, successor = study.trials()
    assert successor.state is COMPLETE, failure(successor)
    assert successor.user_attrs["went on"]
    assert sorted(lost.intermediate_values) == [0, 1, 2]
    assert sorted(successor.intermediate_values) == [0, 1, 2, 3, 4]
    assert {step: successor.intermediate_values[step] for step in range(3)} == lost.intermediate_values


def test_an_objective_without_torch_does_not_import_it(postgres_server: PostgresServer, tmp_path: Path) -> None:
    """Neither the worker nor a trial: that would take longer than all its trials."""
    root = Path(__file__).parents[2]
    path = os.pathsep.join(map(str, (root, root / "operator", root / "trial_image")))
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": path}
    study = TrialStudy(postgres_server, an_objective("tests.support.trial_objectives:has_no_torch"))
    study.add()
    command = [sys.executable, "-m", "tuning_trial"]
    done = subprocess.run(
        command, env=environment | study.environment(tmp_path), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert [trial.state for trial in study.trials()] == [COMPLETE], done.stderr
