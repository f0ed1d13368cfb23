"""A whole worker on a real Postgres, with its namespace's own role: whatever a trial does, the worker goes on."""

import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool
from tests.support.postgres import PostgresServer
from tests.support.trial_worker import (
    DEADLINE_SECONDS,
    MODULE,
    TrialStudy,
    a_spec,
    a_trial,
    run,
    running,
    wait_for_file,
)
from tests.support.wait import wait_until

from tuning_api.contract import Env, Owner

COMMAND = [sys.executable, "-m", "tuning_trial"]
COMPLETE, PRUNED, FAIL, RUNNING = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING

SCENARIOS: dict[str, tuple[TrialState, str, str]] = {
    "is good": (COMPLETE, "", ""),
    "raises": (
        FAIL,
        "Error",
        "RuntimeError: mat1 and mat2 shapes cannot be multiplied (tests/support/trial_models.py:",
    ),
    "calls sys.exit": (FAIL, "Error", "SystemExit: bye (tests/support/trial_models.py:"),
    "logs something else": (
        FAIL,
        "MissingMetric",
        "the model logged no metric 'val_acc'; it logged train_metric, val_loss",
    ),
    "is not a number": (FAIL, "NotFinite", "val_acc is nan at the end of the training"),
    "calls os._exit": (FAIL, "Crashed", "the trial's process left with exit status 3 before it had a result"),
    "segfaults": (FAIL, "Crashed", "the trial's process was ended by SIGSEGV (Segmentation fault)"),
    "is killed": (FAIL, "Crashed", "the trial's process was ended by SIGKILL (Killed)"),
    "leaves a process behind": (FAIL, "Crashed", "the trial's process left with exit status 4 before it had a result"),
    "takes for ever": (FAIL, "TimedOut", "the trial took longer than trial.timeout, 8s"),
    "keeps a thread": (COMPLETE, "", ""),
    "is good again": (COMPLETE, "", ""),
}
CLASSES: dict[str, tuple[TrialState, str, str]] = {
    "Scenario": (COMPLETE, "", ""),
    "Narrow": (
        FAIL,
        "InvalidConfig",
        (
            "trial.lightning.model.init_args has no argument 'scenario' of tests.support.trial_models.Narrow"
            " (did you mean 'scenarios'?)"
        ),
    ),
    "Nowhere": (FAIL, "InvalidConfig", "tests.support.trial_models has no Nowhere"),
    "unknown": (FAIL, "InvalidConfig", "the parameters cannot be chosen: 'unknown' not in ("),
}


@dataclass
class Finished:
    """A worker that ran to its end."""

    trials: dict[str, FrozenTrial]
    exit_code: int
    log: str
    folder: Path
    environment: dict[str, str]


def failure(trial: FrozenTrial) -> dict[str, Any]:
    found: dict[str, Any] = trial.user_attrs.get("tuningstudy:failure", {"reason": "", "message": ""})
    return found


@pytest.fixture(scope="module")
def scenarios(postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """One worker that meets everything that can happen to a trial."""
    folder = tmp_path_factory.mktemp("scenarios")
    space = [
        {"name": "scenario", "type": "categorical", "choices": list(SCENARIOS)},
        {"name": "model", "type": "categorical", "choices": list(CLASSES)[:-1]},
    ]
    trial = a_trial(folder=folder, timeout="8s")
    trial["lightning"]["model"]["class_path"] = f"{MODULE}.${{model}}"
    study = TrialStudy(postgres_server, a_spec(searchSpace=space, trial=trial))
    for name in CLASSES:
        study.add(model=name, scenario="is good")
    for name in SCENARIOS:
        study.add(model="Scenario", scenario=name)
    environment = study.environment(folder)
    exit_code, log = run(environment, folder, grace=1.0)
    trials = dict(zip([*CLASSES, *SCENARIOS], study.trials(), strict=True))
    return Finished(trials, exit_code, log, folder, environment)


@pytest.mark.parametrize("name", [*CLASSES, *SCENARIOS])
def test_every_trial_ends_with_its_reason_and_the_worker_goes_on(scenarios: Finished, name: str) -> None:
    """A child's crash is that trial's failure, with a sentence that a person can act on."""
    state, reason, message = (CLASSES | SCENARIOS)[name]
    trial = scenarios.trials[name]
    assert (trial.state, failure(trial)["reason"]) == (state, reason), scenarios.log
    assert message in failure(trial)["message"]


def test_a_worker_that_finds_nothing_more_leaves_with_0(scenarios: Finished) -> None:
    """And frees its GPU."""
    assert scenarios.exit_code == 0, scenarios.log
    assert f"no trial is waiting: leaving after {len(CLASSES | SCENARIOS)} trials" in scenarios.log


def test_a_trial_is_recorded_with_its_worker_its_epochs_and_its_reports(scenarios: Finished) -> None:
    """What the controller and the charts read."""
    trial = scenarios.trials["is good again"]
    owner = Owner(id=scenarios.environment[Env.WORKER_ID], name="worker-1").to_document()
    seed = trial.user_attrs["tuningstudy:seed"]
    assert trial.user_attrs == {
        "tuningstudy:owner": owner,
        "tuningstudy:seed": seed,
        "tuningstudy:epochs": 3,
        "tuningstudy:maxEpochs": 3,
    }
    assert (trial.values, trial.intermediate_values) == ([0.5], {0: 0.5, 1: 0.5, 2: 0.5})
    assert trial.datetime_start is not None
    assert trial.datetime_complete is not None
    assert 0 < (trial.datetime_complete - trial.datetime_start).total_seconds() < 60


def test_the_log_tells_the_story_in_sentences(scenarios: Finished) -> None:
    """What `kubectl logs` shows."""
    lines = [line.partition(" ")[2] for line in scenarios.log.splitlines()]
    number = scenarios.trials["raises"].number
    assert "worker worker-1 joins study digits" in lines
    assert any(line.startswith("trial 0: scenario=is good, model=Scenario (seed ") for line in lines)
    assert "trial 0: epoch 2/3, val_acc=0.5" in lines
    assert any(line.startswith("trial 0 complete: val_acc=0.5 (3 of 3 epochs, ") for line in lines)
    assert any(line.startswith(f"ERROR trial {number} failed, Error: RuntimeError: mat1 and mat2") for line in lines)
    assert "GPU available" not in scenarios.log


def test_nothing_of_a_trial_stays(scenarios: Finished) -> None:
    """Neither the processes that it started nor its files, or the next trials meet them."""
    left_behind = Path("/proc") / (scenarios.folder / "left-behind").read_text()
    # A zombie is dead; whoever adopted it in this machine has not looked yet.
    wait_until(
        lambda: not left_behind.exists() or "Z (zombie)" in (left_behind / "status").read_text(),
        bool,
        seconds=DEADLINE_SECONDS,
        what="the process that the trial started is gone",
    )
    assert list((scenarios.folder / "scratch").iterdir()) == []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def waiting_study(server: PostgresServer, folder: Path, **changes: Any) -> TrialStudy:
    """A study with one trial that waits in its second epoch until there is a file `go`, and one that is good."""
    space = [{"name": "scenario", "type": "categorical", "choices": ["waits", "is good"]}]
    study = TrialStudy(server, a_spec(searchSpace=space, trial=a_trial(folder=folder), **changes))
    study.add(scenario="waits")
    return study


def wait_for_the_second_epoch(folder: Path) -> None:
    wait_for_file(folder / "waiting")


def test_a_worker_that_is_asked_to_stop_leaves_its_trial_to_the_controller(
    postgres_server: PostgresServer, folder: Path
) -> None:
    """Drain, preemption, scale-down: exit 75, and the trial is RUNNING with an owner that is gone."""
    study = waiting_study(postgres_server, folder)
    with running(study.environment(folder), folder, grace=2.0) as worker:
        wait_for_the_second_epoch(folder)
        worker.terminate()
        assert worker.exit_code() == 75, worker.log()
        assert "trial 0 stopped (1 of 3 epochs" in worker.log()
    (trial,) = study.trials()
    assert (trial.state, trial.user_attrs["tuningstudy:owner"]["name"]) == (RUNNING, "worker-1")
    assert trial.intermediate_values == {0: 0.5}


def test_a_worker_without_a_trial_stops_at_once(postgres_server: PostgresServer, folder: Path) -> None:
    """Also while it waits for one."""
    study = TrialStudy(postgres_server, a_spec())
    with running(study.environment(folder, **{Env.IDLE_SECONDS: "600"}), folder) as worker:
        worker.wait_for("imported torch")
        worker.terminate()
        assert worker.exit_code() == 75


def test_a_trial_that_stands_still_fails_and_one_that_crawls_does_not(
    postgres_server: PostgresServer, folder: Path
) -> None:
    """Six batches of two seconds each are signs of life; one of ten minutes, which hears no SIGTERM, is none."""
    space = [{"name": "scenario", "type": "categorical", "choices": ["crawls", "takes for ever"]}]
    study = TrialStudy(postgres_server, a_spec(searchSpace=space, trial=a_trial(progressTimeout="10s")))
    study.add(scenario="crawls")
    study.add(scenario="takes for ever")
    assert run(study.environment(folder), folder, grace=1.0)[0] == 0
    crawled, stalled = study.trials()
    assert (crawled.state, stalled.state) == (COMPLETE, FAIL)
    assert failure(stalled) == {
        "reason": "Stalled",
        "message": "no batch ended and nothing was reported for longer than trial.progressTimeout, 10s",
    }


def test_a_trial_that_comes_while_the_worker_waits_is_run(postgres_server: PostgresServer, folder: Path) -> None:
    """The controller tops up its buffer, and queues retries."""
    study = TrialStudy(postgres_server, a_spec())
    with running(study.environment(folder, **{Env.IDLE_SECONDS: "600"}), folder) as worker:
        worker.wait_for("imported torch")
        study.add()
        worker.wait_for("trial 0 complete")


def test_a_replaced_trial_is_dropped_and_the_worker_goes_on(postgres_server: PostgresServer, folder: Path) -> None:
    """The controller believed the worker lost; its late report is refused, and its trial's result belongs to nobody."""
    study = waiting_study(postgres_server, folder)
    with running(study.environment(folder), folder) as worker:
        wait_for_the_second_epoch(folder)
        study.replace(0)
        study.add(scenario="is good")
        (folder / "go").touch()
        assert worker.exit_code() == 0, worker.log()
        assert "trial 0 was given to another worker meanwhile; going on" in worker.log()
    replaced, successor = study.trials()
    assert (replaced.state, replaced.intermediate_values) == (FAIL, {0: 0.5})
    assert successor.state is COMPLETE


def test_a_database_that_restarts_in_the_middle_of_a_trial_costs_nothing(
    postgres_server: PostgresServer, folder: Path
) -> None:
    """The report waits, and no report is lost; the worker's own connection is mended too."""
    study = waiting_study(postgres_server, folder)
    with running(study.environment(folder), folder) as worker:
        wait_for_the_second_epoch(folder)
        postgres_server.stop()
        try:
            (folder / "go").touch()
            worker.wait_for("the database is away")
        finally:
            postgres_server.start()
        study.add(scenario="is good")
        assert worker.exit_code() == 0, worker.log()
    first, second = study.trials()
    assert (first.state, first.intermediate_values) == (COMPLETE, {0: 0.5, 1: 0.5, 2: 0.5})
    assert second.state is COMPLETE


def test_a_database_that_stays_away_ends_the_worker_but_not_the_trial(
    postgres_server: PostgresServer, folder: Path
) -> None:
    """Exit 75, and the controller queues the trial again."""
    study = waiting_study(postgres_server, folder)
    with running(study.environment(folder), folder, patience=1.0) as worker:
        wait_for_the_second_epoch(folder)
        postgres_server.stop()
        try:
            (folder / "go").touch()
            assert worker.exit_code() == 75
        finally:
            postgres_server.start()
        assert "the database stayed away: " in worker.log()
    assert [trial.state for trial in study.trials()] == [RUNNING]


def _change_password(server: PostgresServer) -> None:
    """As the operator does when its key is another one; sessions from before are gone, as after a restart of the database."""
    with create_engine(server.url(), poolclass=NullPool).begin() as connection:
        connection.exec_driver_sql("ALTER ROLE tuning_team_a PASSWORD 'another one'")
        connection.exec_driver_sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'tuning_team_a'"
        )


def test_a_password_that_changes_in_the_middle_of_a_trial_costs_the_worker_but_not_the_trial(
    postgres_server: PostgresServer, folder: Path
) -> None:
    """Exit 75: the next worker has the new one, and the controller queues the trial again."""
    study = waiting_study(postgres_server, folder)
    with running(study.environment(folder), folder) as worker:
        wait_for_the_second_epoch(folder)
        _change_password(postgres_server)
        (folder / "go").touch()
        assert worker.exit_code() == 75, worker.log()
        assert "password authentication failed" in worker.log()
    assert [trial.state for trial in study.trials()] == [RUNNING]


def test_a_password_that_changes_while_a_worker_waits_sends_it_away(
    postgres_server: PostgresServer, folder: Path
) -> None:
    """It has been let in before, so it is not misconfigured."""
    study = TrialStudy(postgres_server, a_spec())
    with running(study.environment(folder, **{Env.IDLE_SECONDS: "600"}), folder) as worker:
        worker.wait_for("imported torch")
        _change_password(postgres_server)
        assert worker.exit_code() == 75, worker.log()
        assert "the database lets this worker in no more: " in worker.log()


def test_a_worker_waits_for_a_database_that_is_not_there_yet(postgres_server: PostgresServer, folder: Path) -> None:
    """Pods and databases start in any order."""
    study = TrialStudy(postgres_server, a_spec())
    study.add()
    postgres_server.stop()
    try:
        with running(study.environment(folder), folder) as worker:
            worker.wait_for("the database is away")
            postgres_server.start()
            assert worker.exit_code() == 0, worker.log()
    finally:
        postgres_server.stop()
        postgres_server.start()
    assert [trial.state for trial in study.trials()] == [COMPLETE]


def test_a_changed_spec_reaches_the_next_trial(postgres_server: PostgresServer, folder: Path) -> None:
    """Bounds are narrowed while the study runs."""
    space: list[dict[str, Any]] = [
        {"name": "scenario", "type": "categorical", "choices": ["waits", "is good"]},
        {"name": "quality", "type": "float", "low": 0.0, "high": 0.1},
    ]
    trial = a_trial(folder=folder, quality="${quality}")
    study = TrialStudy(postgres_server, a_spec(searchSpace=space, trial=trial))
    study.add(scenario="waits")
    with running(study.environment(folder), folder) as worker:
        wait_for_the_second_epoch(folder)
        study.change(a_spec(searchSpace=[space[0], space[1] | {"low": 0.8, "high": 0.9}], trial=trial))
        study.add(3)
        (folder / "go").touch()
        assert worker.exit_code() == 0, worker.log()
    first, *others = [trial.value or 0 for trial in study.trials()]
    assert 0 <= first <= 0.1
    assert all(0.8 <= value <= 0.9 for value in others)


def test_bad_trials_are_pruned_and_good_ones_are_not(postgres_server: PostgresServer, folder: Path) -> None:
    """The median of earlier trials at the same step decides, after the warmup."""
    space = [
        {"name": "scenario", "type": "categorical", "choices": ["is good"]},
        {"name": "quality", "type": "float", "low": 0.0, "high": 1.0},
    ]
    trial = a_trial(quality="${quality}", trainer={"max_epochs": 6})
    pruner = {"type": "median", "nStartupTrials": 2, "nWarmupSteps": 3}
    study = TrialStudy(postgres_server, a_spec(searchSpace=space, trial=trial, pruner=pruner))
    for quality in (0.6, 0.7, 0.2, 0.9):
        study.add(quality=quality)
    assert run(study.environment(folder), folder)[0] == 0
    trials = study.trials()
    assert [trial.state for trial in trials] == [COMPLETE, COMPLETE, PRUNED, COMPLETE]
    assert sorted(trials[2].intermediate_values) == [0, 1, 2, 3]
    assert trials[2].value == pytest.approx(0.2)
    assert (trials[2].user_attrs["tuningstudy:epochs"], trials[2].user_attrs["tuningstudy:maxEpochs"]) == (4, 6)


def test_a_conditional_parameter_keeps_its_default_where_it_does_not_exist(
    postgres_server: PostgresServer, folder: Path
) -> None:
    """Its argument is left out of the configuration."""
    space = [
        {"name": "scenario", "type": "categorical", "choices": ["is good", "is good again"]},
        {
            "name": "quality",
            "type": "float",
            "low": 0.9,
            "high": 1.0,
            "when": {"parameter": "scenario", "in": ["is good again"]},
        },
    ]
    study = TrialStudy(postgres_server, a_spec(searchSpace=space, trial=a_trial(quality="${quality}")))
    study.add(scenario="is good")
    study.add(scenario="is good again")
    assert run(study.environment(folder), folder)[0] == 0
    first, second = study.trials()
    assert (first.params, first.value) == ({"scenario": "is good"}, 0.5)
    assert second.value == pytest.approx(second.params["quality"])


def test_data_loader_workers_run_in_a_fork_of_a_fork(postgres_server: PostgresServer, folder: Path) -> None:
    """A trial's process may start processes of its own."""
    trial = a_trial()
    trial["lightning"]["data"]["init_args"] = {"num_workers": 2}
    study = TrialStudy(postgres_server, a_spec(trial=trial))
    study.add()
    assert run(study.environment(folder), folder)[0] == 0
    assert [trial.state for trial in study.trials()] == [COMPLETE]


def test_two_objectives_give_two_values(postgres_server: PostgresServer, folder: Path) -> None:
    """A Pareto front; nothing is reported, since Optuna prunes one objective only."""
    objectives = [{"metric": name, "direction": "maximize"} for name in ("val_acc", "train_metric")]
    study = TrialStudy(postgres_server, a_spec(objectives=objectives, pruner=None))
    study.add()
    assert run(study.environment(folder), folder)[0] == 0
    (trial,) = study.trials()
    assert (trial.values, trial.intermediate_values) == ([0.5, 0.25], {})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({Env.STUDY: ""}, "TUNING_STUDY is not set"),
        ({Env.STUDY: "glosses"}, "the database has no study 'glosses': is TUNING_STUDY right, or was it deleted?"),
        ({Env.DATABASE_URL: "db:5432"}, "TUNING_DATABASE_URL is no database URL that this image can open"),
        ({Env.DATABASE_URL: "mysql+pymysql://db/x"}, "TUNING_DATABASE_URL is no database URL"),
    ],
)
def test_a_mistake_in_the_environment_is_one_sentence_and_exit_78(
    postgres_server: PostgresServer, folder: Path, change: dict[str, str], message: str
) -> None:
    """The Job fails at once, instead of trying for ever."""
    study = TrialStudy(postgres_server, a_spec())
    exit_code, log = run(study.environment(folder) | change, folder)
    assert exit_code == 78, log
    assert message in log
    assert "Traceback" not in log


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"password": "wrong"}, "the database refused the worker: .*password authentication failed"),
        ({"username": "nobody_we_know"}, "the database refused the worker: .*authentication failed"),
        (
            {"database": "no_such_database"},
            'the database refused the worker: .*database "no_such_database" does not exist',
        ),
    ],
)
def test_a_database_that_refuses_the_worker_is_not_waited_for(
    postgres_server: PostgresServer, folder: Path, change: dict[str, Any], message: str
) -> None:
    """Its own words say why."""
    study = TrialStudy(postgres_server, a_spec())
    url = make_url(study.url).set(**change).render_as_string(hide_password=False)
    exit_code, log = run(study.environment(folder) | {Env.DATABASE_URL: url}, folder)
    assert exit_code == 78, log
    assert re.search(message, log), log


def test_a_study_that_this_image_cannot_run_is_said(postgres_server: PostgresServer, folder: Path) -> None:
    """An older image meets a newer spec."""
    study = TrialStudy(postgres_server, a_spec())
    study.optuna.set_user_attr("tuningstudy:spec", {"searchSpace": [], "unheardOf": 1})
    exit_code, log = run(study.environment(folder), folder)
    assert exit_code == 78
    assert "this trial image cannot read the study's spec" in log


@pytest.fixture
def fresh_interpreter(folder: Path) -> dict[str, str]:
    """The environment of a program of its own."""
    root = Path(__file__).parents[2]
    path = os.pathsep.join(map(str, (root, root / "operator", root / "trial_image")))
    return {"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": path}


def test_a_fresh_interpreter_for_each_trial(
    postgres_server: PostgresServer, folder: Path, fresh_interpreter: dict[str, str]
) -> None:
    """`isolation: process`, and the command that the pod runs; the worker itself never imports torch."""
    trial = a_trial(folder=folder, isolation="process")
    study = TrialStudy(postgres_server, a_spec(trial=trial))
    study.add()
    environment = fresh_interpreter | study.environment(folder)
    done = subprocess.run(COMMAND, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    (finished,) = study.trials()
    assert (finished.state, finished.intermediate_values) == (COMPLETE, {0: 0.5, 1: 0.5, 2: 0.5})


def test_the_command_explains_what_is_missing(fresh_interpreter: dict[str, str]) -> None:
    """One line, not a traceback."""
    done = subprocess.run(COMMAND, env=fresh_interpreter, capture_output=True, text=True, check=False)
    assert done.returncode == 78
    (line,) = done.stderr.splitlines()
    assert line.endswith("ERROR TUNING_DATABASE_URL is not set: it must be the SQLAlchemy URL of the study's database")


def test_a_worker_can_be_stopped_while_it_still_imports(fresh_interpreter: dict[str, str]) -> None:
    """As a container's first process it would ignore a signal without handler, until it is killed two minutes later."""
    with subprocess.Popen(COMMAND, env=fresh_interpreter, stderr=subprocess.PIPE) as process:
        folder = Path(f"/proc/{process.pid}")

        def can_be_stopped_before_numpy_is_there() -> bool:
            maps, status = (folder / "maps").read_text(), (folder / "status").read_text()
            caught = int(next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:")), 16)
            assert "numpy" not in maps, "the imports came first"
            return bool(caught >> (signal.SIGTERM - 1) & 1)

        wait_until(can_be_stopped_before_numpy_is_there, bool, seconds=DEADLINE_SECONDS, what="it can be stopped")
        process.terminate()
        assert process.wait(30) == 75
