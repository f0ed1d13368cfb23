"""Workers that are lost, and successors that go on: on a real Postgres, with the operator's own requeueing."""

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState
from tests.support.postgres import PostgresServer
from tests.support.trial_worker import MODULE, TrialStudy, WorkerProcess, a_spec, a_trial, run, running, wait_for_file

from tuning_api.contract import Env

COMPLETE, PRUNED, FAIL, RUNNING = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING
EPOCHS = 5


class Setting:
    """A study whose trials learn, and the folder in which they save their state."""

    def __init__(self, server: PostgresServer, folder: Path, **changes: Any) -> None:
        self.folder = folder
        self.saved = folder / "checkpoints" / "digits"
        trial = a_trial(**{key: changes.pop(key) for key in ("isolation", "timeout") if key in changes})
        trial["lightning"] |= {
            "seed_everything": 1,
            "model": {
                "class_path": f"{MODULE}.Learner",
                "init_args": {
                    "folder": str(folder),
                    "number": "${trial.number}",
                    "waits_before": "${waits_before}",
                    "quality": "${quality}",
                },
            },
            "data": {"class_path": f"{MODULE}.Points"},
        }
        trial["lightning"]["trainer"]["max_epochs"] = EPOCHS
        waits = ["never", *(f"epoch {epoch} batch {batch}" for epoch in range(EPOCHS) for batch in (0, 3, 7))]
        space = [
            {"name": "waits_before", "type": "categorical", "choices": waits},
            {"name": "quality", "type": "float", "low": 0.0, "high": 9.0},
        ]
        objectives = [{"metric": "val_loss", "direction": "minimize"}]
        spec = a_spec(searchSpace=space, objectives=objectives, trial=trial, **changes)
        self.study = TrialStudy(server, spec)

    def add(self, waits_before: str = "never", quality: float = 0.0) -> None:
        self.study.add(waits_before=waits_before, quality=quality)

    def environment(self, **changes: str) -> dict[str, str]:
        return self.study.environment(self.folder, **{Env.CHECKPOINTS: str(self.folder / "checkpoints")} | changes)

    def run(self, **changes: str) -> str:
        """Run a worker to its end; its log."""
        exit_code, log = run(self.environment(**changes), self.folder)
        assert exit_code == 0, log
        return log

    def lose(self, how: Callable[[WorkerProcess], None], **changes: str) -> str:
        """Run a worker until its trial waits, lose it there, and let a successor take over; the log of the worker."""
        with running(self.environment(**changes), self.folder) as worker:
            wait_for_file(self.folder / "waiting", worker.log)
            how(worker)
            worker.exit_code()
            log = worker.log()
        (self.folder / "go").touch()
        self.study.requeue(len(self.study.trials()) - 1)
        return log

    def files(self) -> list[str]:
        return sorted(file.name for file in self.saved.iterdir()) if self.saved.exists() else []

    def weights(self, number: int) -> Any:
        return ast.literal_eval((self.folder / f"weights-{number}").read_text())


def kill(worker: WorkerProcess) -> None:
    """As the kernel does, or a node that is gone."""
    worker.kill()


def terminate(worker: WorkerProcess) -> None:
    """As the kubelet does."""
    worker.terminate()


@pytest.mark.parametrize(
    ("how", "waits_before", "isolation", "stopped", "goes_on"),
    [
        (kill, "epoch 2 batch 0", "fork", "", "after epoch 2, from its checkpoint"),
        (kill, "epoch 3 batch 3", "process", "", "after epoch 3, from its checkpoint"),
        (
            terminate,
            "epoch 2 batch 3",
            "fork",
            "in epoch 3, after 4 batches; it will go on there",
            "in epoch 3, after 4 batches",
        ),
        (
            terminate,
            "epoch 0 batch 3",
            "fork",
            "in epoch 1, after 4 batches; it will go on there",
            "in epoch 1, after 4",
        ),
        (
            terminate,
            "epoch 2 batch 7",
            "process",
            "after epoch 3; it will go on after epoch 3",
            "after epoch 3, from its",
        ),
        (terminate, "epoch 4 batch 7", "fork", "after epoch 5; it will go on after epoch 4", "after epoch 4, from its"),
    ],
    ids=[
        "killed between epochs",
        "killed in an epoch",
        "stopped in an epoch",
        "stopped in the first epoch",
        "stopped at its end",
        "stopped at the end",
    ],
)
def test_a_successor_ends_as_the_trial_would_have_ended(
    how: Callable[[WorkerProcess], None],
    waits_before: str,
    isolation: str,
    stopped: str,
    goes_on: str,
    *,
    postgres_server: PostgresServer,
    tmp_path: Path,
) -> None:
    """With its curve, its epochs and its very weights; nothing of it stays on the disk."""
    setting = Setting(postgres_server, tmp_path, isolation=isolation)
    setting.add()
    setting.run()
    setting.add(waits_before)
    log = setting.lose(how)
    assert ("trial-1.middle.ckpt" in setting.files()) is ("it will go on there" in stopped)
    assert not stopped or f"trial 1: stopped {stopped}" in log
    assert f"trial 2: goes on {goes_on}" in setting.run()
    whole, lost, successor = setting.study.trials()
    assert (lost.state, successor.state) == (FAIL, COMPLETE)
    assert successor.intermediate_values == whole.intermediate_values
    assert len(successor.intermediate_values) == EPOCHS
    assert (successor.value, setting.weights(2)) == (whole.value, setting.weights(0))
    assert successor.user_attrs["tuningstudy:epochs"] == EPOCHS
    assert successor.user_attrs["tuningstudy:seed"] == lost.user_attrs["tuningstudy:seed"]
    assert setting.files() == []


def test_a_trial_that_is_lost_twice_goes_on_twice(postgres_server: PostgresServer, tmp_path: Path) -> None:
    """All of a lineage use the file of its first."""
    setting = Setting(postgres_server, tmp_path)
    setting.add("epoch 3 batch 0")
    setting.lose(kill)
    for name in ("waiting", "go"):
        (tmp_path / name).unlink()
    setting.lose(kill)
    assert setting.files() == ["trial-0.ckpt"]
    assert "trial 2: goes on after epoch 3" in setting.run()
    *_, successor = setting.study.trials()
    assert (successor.state, sorted(successor.intermediate_values)) == (COMPLETE, [0, 1, 2, 3, 4])


def test_without_a_folder_a_successor_starts_from_the_beginning(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    """Nothing durable was given, and nothing is written; the seed is the first trial's all the same."""
    setting = Setting(postgres_server, tmp_path, sampler={"type": "random"})
    setting.add("epoch 2 batch 0")
    setting.lose(kill, **{Env.CHECKPOINTS: ""})
    assert "goes on" not in setting.run(**{Env.CHECKPOINTS: ""})
    lost, successor = setting.study.trials()
    assert (successor.state, len(successor.intermediate_values)) == (COMPLETE, EPOCHS)
    assert successor.user_attrs["tuningstudy:seed"] == lost.user_attrs["tuningstudy:seed"]
    assert not (tmp_path / "checkpoints").exists()


def test_a_truncated_checkpoint_is_said_and_the_trial_starts_from_the_beginning(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    """It is not failed for it."""
    setting = Setting(postgres_server, tmp_path)
    setting.add("epoch 2 batch 0")
    setting.lose(kill)
    (file,) = setting.saved.iterdir()
    file.write_bytes(file.read_bytes()[:1000])
    log = setting.run()
    assert "WARNING trial 1: cannot go on from its checkpoint (" in log
    _, successor = setting.study.trials()
    assert (successor.state, len(successor.intermediate_values)) == (COMPLETE, EPOCHS)
    assert setting.files() == []


def test_the_pruner_sees_the_whole_curve_of_a_successor(postgres_server: PostgresServer, tmp_path: Path) -> None:
    """It compares the best value so far with the others' at the same step, and so do the trials that come after."""
    pruner = {"type": "median", "nStartupTrials": 2, "nWarmupSteps": 3}
    setting = Setting(postgres_server, tmp_path, pruner=pruner)
    setting.add(quality=1.0)
    setting.add(quality=1.5)
    setting.run()
    setting.add("epoch 2 batch 0", quality=5.0)
    setting.lose(kill)
    setting.run()
    *_, successor = setting.study.trials()
    assert successor.state is PRUNED
    assert successor.intermediate_values == dict.fromkeys(range(4), 5.0)
    assert successor.user_attrs["tuningstudy:epochs"] == 4
    assert setting.files() == []


def test_a_trial_that_was_replaced_leaves_the_file_to_its_successor(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    """The worker was believed lost, and was not."""
    setting = Setting(postgres_server, tmp_path)
    setting.add("epoch 2 batch 0")
    with running(setting.environment(), tmp_path) as worker:
        wait_for_file(tmp_path / "waiting", worker.log)
        setting.study.replace(0)
        (tmp_path / "go").touch()
        assert worker.exit_code() == 0
        assert "trial 0 was given to another worker" in worker.log()
    assert setting.files() == ["trial-0.ckpt"]


def test_a_trial_that_fails_by_its_own_fault_leaves_no_file(postgres_server: PostgresServer, tmp_path: Path) -> None:
    """Nobody will go on with it."""
    setting = Setting(postgres_server, tmp_path, timeout="3s")
    setting.add("epoch 2 batch 0")
    with running(setting.environment(), tmp_path) as worker:
        wait_for_file(tmp_path / "waiting", worker.log)
        assert setting.files() == ["trial-0.ckpt"]
        assert worker.exit_code() == 0
    (trial,) = setting.study.trials()
    assert (trial.state, trial.user_attrs["tuningstudy:failure"]["reason"]) == (FAIL, "TimedOut")
    assert setting.files() == []


def test_files_of_trials_that_others_ended_are_removed_by_the_next_worker(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    """The controller gives a trial up, a worker dies before it tidies up, a study of the same name was deleted."""
    setting = Setting(postgres_server, tmp_path)
    setting.add("epoch 2 batch 0")
    setting.lose(kill)
    (setting.saved / "trial-0.ckpt.1a2b.tmp").touch()
    (setting.saved / "trial-77.ckpt").touch()
    lost, successor = setting.study.trials()
    setting.study.optuna._storage.set_trial_state_values(successor._trial_id, state=FAIL)
    setting.run()
    assert (lost.state, setting.files()) == (FAIL, [])


def test_a_trial_that_continues_nothing_ignores_what_lies_there(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    """A study of the same name was deleted, and its files were not."""
    setting = Setting(postgres_server, tmp_path)
    setting.saved.mkdir(parents=True)
    (setting.saved / "trial-0.ckpt").write_text("of another study")
    setting.add()
    log = setting.run()
    assert "cannot go on" not in log
    assert "goes on" not in log


def test_a_folder_that_cannot_be_made_stops_the_worker(postgres_server: PostgresServer, tmp_path: Path) -> None:
    """Trials that silently save nothing would be worse."""
    setting = Setting(postgres_server, tmp_path)
    (tmp_path / "file").touch()
    exit_code, log = run(setting.environment(**{Env.CHECKPOINTS: str(tmp_path / "file" / "x")}), tmp_path)
    assert exit_code == 78
    assert "TUNING_CHECKPOINTS is" in log
