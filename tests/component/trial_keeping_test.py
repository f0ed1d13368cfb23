"""The checkpoints of the study's best trials, left by real workers: which stay, and what can be done with them."""

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from optuna.trial import FrozenTrial, TrialState
from tests.support.postgres import PostgresServer
from tests.support.trial_models import Composed, Learner, Part, Points
from tests.support.trial_worker import MODULE, TrialStudy, WorkerProcess, a_spec, a_trial, run, running, wait_for_file

from tuning_api.contract import CHECKPOINT_ATTRIBUTE, Env
from tuning_trial import lightning_parser, lightning_runner
from tuning_trial.checkpoints import of_trial
from tuning_trial.lightning_keeper import KeepWeights
from tuning_trial.outcomes import Completed
from tuning_trial.pruning import ReportAndPrune

pytestmark = [
    pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning"),
    pytest.mark.filterwarnings("ignore::lightning_fabric.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec:FutureWarning"),
]
COMPLETE, FAIL = TrialState.COMPLETE, TrialState.FAIL
EPOCHS = 2


class Setting:
    """A study whose trials have the value that is their parameter `quality`; the smaller the better."""

    def __init__(self, server: PostgresServer, folder: Path, *, keep: int = 2, objective: str | None = None) -> None:
        self.folder = folder
        self.saved = folder / "checkpoints" / "digits"
        self._objective = objective
        self.study = TrialStudy(server, self.spec(keep))

    def spec(self, keep: int) -> Any:
        trial = {"gpus": 0, "objective": self._objective} if self._objective else self._lightning()
        trial["checkpoints"] = {"persistentVolumeClaim": "checkpoints", "keep": keep}
        space = [
            {"name": "waits_before", "type": "categorical", "choices": ["never", "epoch 1 batch 3"]},
            {"name": "quality", "type": "float", "low": 0.0, "high": 9.0},
        ]
        objectives = [{"metric": "val_loss", "direction": "minimize"}]
        return a_spec(searchSpace=[] if self._objective else space, objectives=objectives, trial=trial)

    def _lightning(self) -> dict[str, Any]:
        trial = a_trial(trainer={"max_epochs": EPOCHS})
        names = ("waits_before", "quality")
        arguments = {"folder": str(self.folder), "number": "${trial.number}"} | {name: f"${{{name}}}" for name in names}
        trial["lightning"]["model"] = {"class_path": f"{MODULE}.Learner", "init_args": arguments}
        trial["lightning"]["data"] = {"class_path": f"{MODULE}.Points"}
        return trial

    def add(self, *qualities: float, waits_before: str = "never") -> None:
        for quality in qualities:
            self.study.add(waits_before=waits_before, quality=quality)

    def environment(self) -> dict[str, str]:
        return self.study.environment(self.folder, **{Env.CHECKPOINTS: str(self.folder / "checkpoints")})

    def run(self) -> list[FrozenTrial]:
        """Run a worker to its end; all trials."""
        exit_code, log = run(self.environment(), self.folder)
        assert exit_code == 0, log
        return self.study.trials()

    def files(self) -> list[str]:
        return sorted(file.name for file in self.saved.iterdir())


def test_the_best_trials_keep_their_weights_and_the_others_do_not(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    """The file of each is named in the trial; what a worse trial would have left is not even written."""
    setting = Setting(postgres_server, tmp_path)
    setting.add(5.0, 3.0, 4.0, 6.0, 1.0)
    trials = setting.run()
    assert setting.files() == ["trial-1.final-1.ckpt", "trial-4.final-4.ckpt"]
    attributes = [trial.user_attrs.get(CHECKPOINT_ATTRIBUTE) for trial in trials]
    assert attributes == [*(f"digits/trial-{number}.final-{number}.ckpt" for number in range(3)), None, attributes[4]]
    assert attributes[4] == "digits/trial-4.final-4.ckpt"


def test_what_is_kept_can_be_loaded_and_trained_on(postgres_server: PostgresServer, tmp_path: Path) -> None:
    """With the model's arguments, though the model saves no hyperparameters; the weights are those of the last epoch."""
    setting = Setting(postgres_server, tmp_path, keep=1)
    setting.add(3.0)
    setting.run()
    file = setting.saved / "trial-0.final-0.ckpt"
    model = Learner.load_from_checkpoint(file)
    assert (model.quality, model.number) == (3.0, 0)
    weights = [float(value) for part in model.parameters() for value in part.detach().flatten()]
    assert weights == ast.literal_eval((tmp_path / "weights-0").read_text())
    assert Learner.load_from_checkpoint(file, quality=7.0).quality == 7.0
    trainer = pl.Trainer(max_epochs=EPOCHS + 1, accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.fit(model, Points(), ckpt_path=file)
    assert trainer.current_epoch == EPOCHS + 1
    assert set(torch.load(file)) >= {"state_dict", "optimizer_states", "hyper_parameters"}


def test_two_workers_at_once_leave_the_best_and_nothing_else(postgres_server: PostgresServer, tmp_path: Path) -> None:
    """Neither asks the other: what one removes, the other would."""
    setting = Setting(postgres_server, tmp_path)
    setting.add(8.0, 2.0, 7.0, 3.0, 6.0, 4.0, 5.0, 2.5)
    with running(setting.environment(), tmp_path) as first, running(setting.environment(), tmp_path) as second:
        assert (first.exit_code(), second.exit_code()) == (0, 0), first.log() + second.log()
    assert all(trial.state is COMPLETE for trial in setting.study.trials())
    assert setting.files() == ["trial-1.final-1.ckpt", "trial-7.final-7.ckpt"]


def kill(worker: WorkerProcess) -> None:
    worker.kill()


def terminate(worker: WorkerProcess) -> None:
    worker.terminate()


@pytest.mark.parametrize("how", [kill, terminate])
def test_a_successor_leaves_its_own_weights(
    how: Callable[[WorkerProcess], None], postgres_server: PostgresServer, tmp_path: Path
) -> None:
    """The state that it went on from is gone; the trial that was lost has left nothing."""
    setting = Setting(postgres_server, tmp_path)
    setting.add(5.0)
    setting.run()
    setting.add(1.0, waits_before="epoch 1 batch 3")
    with running(setting.environment(), tmp_path) as worker:
        wait_for_file(tmp_path / "waiting", worker.log)
        how(worker)
        worker.exit_code()
    middle = ["trial-1.middle.ckpt"] if how is terminate else []
    assert setting.files() == ["trial-0.final-0.ckpt", "trial-1.ckpt", *middle]
    (tmp_path / "go").touch()
    setting.study.requeue(1)
    *_, lost, successor = setting.run()
    assert (lost.state, successor.state) == (FAIL, COMPLETE)
    assert CHECKPOINT_ATTRIBUTE not in lost.user_attrs
    assert successor.user_attrs[CHECKPOINT_ATTRIBUTE] == "digits/trial-1.final-2.ckpt"
    assert setting.files() == ["trial-0.final-0.ckpt", "trial-1.final-2.ckpt"]


def test_the_next_worker_removes_what_a_killed_one_left(postgres_server: PostgresServer, tmp_path: Path) -> None:
    """It died after a trial's result was told, or in the middle of a file; or `keep` was lowered since."""
    setting = Setting(postgres_server, tmp_path, keep=3)
    setting.add(5.0, 4.0, 3.0)
    setting.run()
    assert len(setting.files()) == 3
    for name in ("trial-0.ckpt", "trial-2.final-0.ckpt", "trial-1.final-1.ckpt.1a2b.tmp", "trial-77.final-77.ckpt"):
        (setting.saved / name).touch()
    setting.study.change(setting.spec(1))
    setting.run()
    assert setting.files() == ["trial-2.final-2.ckpt"]
    setting.study.change(setting.spec(0))
    setting.run()
    assert setting.files() == []


def test_what_an_objective_saved_is_kept_as_a_folder(postgres_server: PostgresServer, tmp_path: Path) -> None:
    """Of the best trials, with all that is in it."""
    setting = Setting(postgres_server, tmp_path, objective="tests.support.trial_objectives:saves")
    for x in (0.5, 0.25, 0.75):
        setting.study.add(x=x)
    trials = setting.run()
    assert setting.files() == ["trial-0.files", "trial-1.files"]
    assert (setting.saved / "trial-1.files" / "model.txt").read_text() == "0.25"
    assert trials[1].user_attrs[CHECKPOINT_ATTRIBUTE] == "digits/trial-1.files"


def test_an_objective_that_saved_nothing_leaves_nothing(postgres_server: PostgresServer, tmp_path: Path) -> None:
    """Not even the folder that was made for it."""
    setting = Setting(postgres_server, tmp_path, objective="tests.support.trial_objectives:quadratic")
    setting.study.add()
    (trial,) = setting.run()
    assert (trial.state, setting.files()) == (COMPLETE, [])
    assert CHECKPOINT_ATTRIBUTE not in trial.user_attrs


def kept(folder: Path, lightning: dict[str, Any], *, metric: str) -> Path:
    """Train in this process, and keep the result."""
    callback = ReportAndPrune(metrics=[metric], judge=None, tell_progress=lambda _: None, name="trial 0")
    file = of_trial(folder, study="digits", first=0)
    result = lightning_runner.train(
        lightning,
        parser=lightning_parser.build_parser(),
        seed=1,
        folder=folder,
        callback=callback,
        keeper=KeepWeights(file, number=0, is_wanted=lambda _: True, name="trial 0"),
    )
    assert isinstance(result, Completed)
    assert result.checkpoint == "digits/trial-0.final-0.ckpt"
    return file.final(0)


def test_a_model_with_configured_parts_can_be_loaded(tmp_path: Path) -> None:
    """Its arguments are objects; LightningCLI's own way to build them is in the file."""
    part = {"class_path": f"{MODULE}.Part", "init_args": {"size": 3}}
    lightning = a_trial(trainer={"max_epochs": 1})["lightning"] | {
        "model": {"class_path": f"{MODULE}.Composed", "init_args": {"part": part, "scale": 2.0}}
    }
    model = Composed.load_from_checkpoint(kept(tmp_path, lightning, metric="val_acc"))
    assert isinstance(model.part, Part)
    assert (model.part.size, model.scale) == (3, 2.0)


def test_with_a_model_checkpoint_its_best_is_kept(tmp_path: Path) -> None:
    """Whoever configures one says which weights are wanted."""
    saver = {
        "class_path": "pytorch_lightning.callbacks.ModelCheckpoint",
        "init_args": {"monitor": "val_loss", "mode": "max", "dirpath": str(tmp_path / "own")},
    }
    lightning = {
        "model": {"class_path": f"{MODULE}.Learner", "init_args": {}},
        "data": {"class_path": f"{MODULE}.Points"},
        "trainer": {"max_epochs": 3, "accelerator": "cpu", "callbacks": [saver]},
    }
    file = kept(tmp_path, lightning, metric="val_loss")
    (own,) = (tmp_path / "own").iterdir()
    assert file.read_bytes() == own.read_bytes()
    Learner.load_from_checkpoint(file)


def test_a_disk_that_is_full_costs_the_weights_and_not_the_trial(tmp_path: Path) -> None:
    """It has a value; nothing is named that is not there."""
    (tmp_path / "digits").write_text("a file is in the way")
    file = of_trial(tmp_path, study="digits", first=0)
    keeper = KeepWeights(file, number=0, is_wanted=lambda _: True, name="trial 0")
    trainer = pl.Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, callbacks=[keeper])
    trainer.fit(Learner(), Points())
    assert keeper.keep(trainer, 0.5) is None
