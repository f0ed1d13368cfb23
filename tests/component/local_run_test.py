"""`tuningstudy run`: the operator's controller over real worker processes, without a cluster."""

import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from optuna.trial import TrialState
from sqlalchemy.engine import URL
from tests.support.local_study import LocalStudy
from tests.support.wait import wait_until

SAMPLES = Path(__file__).resolve().parent.parent.parent / "manifests" / "samples"
WHOLE = (0, 1, 2)
RESUMED = {(0, 0, 1, 2), (0, 1, 1, 2), (0, 1, 2, 2)}
"""One epoch begun twice: the one that the trial waits in; the one before, if its end was not saved yet; or the one after,
since a child may outlive its worker by moments."""
"""The epochs that a trial began: a worker that dies in the second loses that one and not the first."""
COMPLETE, RUNNING = TrialState.COMPLETE, TrialState.RUNNING


@pytest.fixture
def study(tmp_path: Path) -> Iterator[LocalStudy]:
    """A study of five trials, whose model lies beside its manifest."""
    study = LocalStudy(tmp_path / "home")
    yield study
    study.clean_up()


def test_a_study_runs_to_its_end_and_goes_on_when_its_budget_is_raised(study: LocalStudy) -> None:
    """The same rows, the same status as in a cluster; a model is found without being packaged."""
    study.write(maxTrials=3, parallelism=1)
    assert study.finish(study.start("--no-report")) == 0, study.said
    assert study.states() == {COMPLETE: 3}
    status = study.status()
    assert (status["phase"], status["progress"], status["workers"]) == ("Complete", "3/3", 0)
    assert status["observedGeneration"] == 1
    study.write(maxTrials=4)
    assert study.finish(study.start("--json", "-j", "1")) == 0, study.said
    assert study.states() == {COMPLETE: 4}
    assert study.status()["observedGeneration"] == 2
    assert '"type": "status"' in study.said.splitlines()[-1]


def test_the_sample_that_is_for_a_cluster_runs_unchanged(tmp_path: Path) -> None:
    """But for its budget, which is a test's."""
    study = LocalStudy(tmp_path / "home", name="digits")
    sample = (SAMPLES / "digits.yaml").read_text()
    study.file.write_text(sample.replace("maxTrials: 30", "maxTrials: 3").replace("max_epochs: 12", "max_epochs: 2"))
    try:
        assert study.finish(study.start("--no-report", "-j", "1")) == 0, study.said
        assert study.states().total() == 3
        assert "train with the best parameters:" in study.said
    finally:
        study.clean_up()


def test_postgres_serves_as_well_as_a_file(tmp_path: Path, postgres: URL) -> None:
    """Any SQLAlchemy URL; later commands need it no more than its password."""
    study = LocalStudy(tmp_path / "home", database=postgres)
    study.write(maxTrials=2, parallelism=1)
    try:
        assert study.finish(study.start("--no-report")) == 0, study.said
        assert study.states() == {COMPLETE: 2}
        assert not study.folder.database.exists()
        assert postgres.password not in study.folder.record.read_text()
    finally:
        study.clean_up()


def _kill_a_worker(study: LocalStudy, _run: int) -> None:
    os.kill(min(study.workers().values()), signal.SIGKILL)


def _kill_the_runner(_study: LocalStudy, run: int) -> None:
    os.kill(run, signal.SIGKILL)


def _kill_everything(study: LocalStudy, run: int) -> None:
    os.kill(run, signal.SIGKILL)
    study.kill_workers()


KILLS: dict[str, tuple[Callable[[LocalStudy, int], None], int, int]] = {
    "a worker": (_kill_a_worker, 2, 1),
    "the runner": (_kill_the_runner, 1, 0),
    "everything at once": (_kill_everything, 1, 1),
}


def _assert_epochs(study: LocalStudy, *, resumed: int) -> None:
    epochs = study.epochs()
    assert epochs[WHOLE] == 5 - resumed
    assert sum(epochs[sequence] for sequence in RESUMED) == resumed
    assert epochs.total() == 5


@pytest.mark.parametrize(("kill", "workers", "lost"), KILLS.values(), ids=KILLS)
def test_whatever_is_killed_the_budget_is_exact(
    study: LocalStudy, kill: Callable[[LocalStudy, int], None], workers: int, lost: int
) -> None:
    """No trial stays RUNNING, none is counted twice or begun again, and a worker that outlived its runner is kept."""
    study.write(parallelism=workers)
    run = study.start("--no-report")
    study.wait_for_second_epochs(workers)
    before = study.workers()
    kill(study, run.pid)
    if kill is not _kill_a_worker:
        run.wait()
        run = study.start("--no-report")
        wait_until(lambda: study.said, lambda said: "going on with" in said, seconds=60, what="the second run begins")
    if kill is _kill_the_runner:
        assert study.workers() == before
    assert study.finish(run) == 0, study.said
    assert study.states() == {COMPLETE: 5}
    assert (study.data().retried, study.status()["trials"]["retried"]) == (lost, lost)
    _assert_epochs(study, resumed=lost)


def test_ctrl_c_queues_the_trials_again_and_says_how_to_go_on(study: LocalStudy) -> None:
    """Nothing runs on unseen; the same command finishes the study."""
    study.write(parallelism=1)
    run = study.start("--no-report")
    study.wait_for_second_epochs(1)
    os.kill(run.pid, signal.SIGINT)
    assert run.wait(60) == 130
    assert "interrupted: 0 of 5 trials have ended, nothing is lost" in study.said
    assert f"go on with: tuningstudy run {study.file}" in study.said
    assert RUNNING not in study.states()
    assert study.status()["phase"] == "Suspended"
    assert study.finish(study.start("--no-report")) == 0, study.said
    assert study.states() == {COMPLETE: 5}
    assert study.status()["trials"]["retried"] == 1
    _assert_epochs(study, resumed=1)


def test_a_second_ctrl_c_does_not_wait(study: LocalStudy) -> None:
    """A worker that hangs must not hold anybody up."""
    study.write(parallelism=1)
    run = study.start()
    study.wait_for_second_epochs(1)
    (pid,) = study.workers().values()
    os.kill(pid, signal.SIGSTOP)
    os.kill(run.pid, signal.SIGINT)
    wait_until(lambda: study.said, lambda said: "stopping:" in said, seconds=20, what="the first is heeded")
    begun = time.monotonic()
    os.kill(run.pid, signal.SIGINT)
    assert run.wait(30) == 130
    assert time.monotonic() - begun < 10
    assert RUNNING not in study.states()


def test_a_database_that_somebody_holds_is_waited_for_and_the_wait_can_be_ended(study: LocalStudy) -> None:
    """A study that had ended is not called complete then: its budget was raised, and nobody knows what is in there."""
    study.write(maxTrials=1, parallelism=1)
    assert study.finish(study.start("--no-report")) == 0, study.said
    study.write(maxTrials=2, parallelism=1)
    with closing(sqlite3.connect(study.folder.database, isolation_level=None)) as somebody:
        somebody.execute("BEGIN EXCLUSIVE")
        run = study.start("--no-report")
        wait_until(lambda: study.said, lambda said: "database is locked" in said, seconds=90, what="the run waits")
        os.kill(run.pid, signal.SIGINT)
        assert run.wait(90) == 130
    assert "interrupted while the database is away" in study.said
    assert study.finish(study.start("--no-report")) == 0, study.said
    assert study.states() == {COMPLETE: 2}


def test_a_model_that_cannot_be_built_fails_the_study(study: LocalStudy) -> None:
    """With the cause, and where the logs are."""
    (study.home / "slope.py").write_text("class Slop: ...\n")
    study.write(maxFailedTrials=2, parallelism=1)
    assert study.finish(study.start("--no-report")) == 1
    assert "Slope" in study.said
    assert str(study.folder.logs) in study.said
    assert study.status()["phase"] == "Failed"
