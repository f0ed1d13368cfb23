"""Projects that import `lightning` and those that import `pytorch_lightning`, with the package `lightning` there and not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

NET = """
import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_only
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader, TensorDataset


class Net(L.LightningModule):
    def __init__(self, lr: float = 0.1):
        super().__init__()
        self.lr, self.layer = lr, torch.nn.Linear(1, 1)

    def training_step(self, batch, index):
        return self.layer(batch[0]).square().mean()

    def validation_step(self, batch, index):
        self.log("val_loss", self.layer(batch[0]).square().mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr)


class Data(LightningDataModule):
    def train_dataloader(self):
        return DataLoader(TensorDataset(torch.ones(8, 1)), batch_size=4)

    val_dataloader = train_dataloader


class Watch(L.Callback):
    @rank_zero_only
    def on_fit_end(self, trainer, module):
        assert isinstance(trainer, L.Trainer) and isinstance(module, L.LightningModule)
        print("watched by", type(self).__mro__[1].__module__, flush=True)
"""
OBJECTIVE = """
from lightning import Trainer


def objective(trial):
    print("trains with", Trainer, flush=True)
    return trial.suggest_float("x", 0, 1)
"""
STAND_IN = """
class Trainer: pass
class LightningModule: pass
class Callback: pass
"""


@pytest.fixture(params=["not installed", "installed"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A project, and perhaps a package `lightning` with classes of its own."""
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "train.py").write_text(OBJECTIVE)
    if request.param == "installed":
        (tmp_path / "lightning").mkdir()
        (tmp_path / "lightning" / "__init__.py").write_text(STAND_IN)
    return tmp_path


def said(home: Path, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "tuning_trial", *arguments],
        cwd=home,
        env={**os.environ, "PYTHONPATH": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def write(home: Path, **trial: object) -> None:
    spec = {
        "objectives": [{"metric": "val_loss", "direction": "minimize"}],
        "searchSpace": [{"name": "lr", "type": "float", "low": 0.01, "high": 0.1}] if "lightning" in trial else [],
        "maxTrials": 1,
        "trial": {"gpus": 0, **trial},
    }
    (home / "study.json").write_text(json.dumps(spec))


def test_models_and_callbacks_of_either_name_train_together(home: Path) -> None:
    """One family of classes: in code, and in class paths."""
    stopping = {"class_path": "lightning.pytorch.callbacks.EarlyStopping", "init_args": {"monitor": "val_loss"}}
    logger = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": str(home / "logs")}}
    trainer = {"max_epochs": 1, "accelerator": "cpu", "callbacks": [stopping, {"class_path": "net.Watch"}]}
    write(
        home,
        lightning={
            "model": {"class_path": "net.Net", "init_args": {"lr": "${lr}"}},
            "data": {"class_path": "net.Data"},
            "trainer": {**trainer, "logger": logger},
        },
    )
    code, words = said(home, "check", "study.json")
    assert (code, words) == (0, "")
    code, words = said(home, "try", "study.json")
    assert code == 0, words
    assert "watched by pytorch_lightning.callbacks.callback" in words
    assert list((home / "logs").rglob("metrics.csv"))


def test_init_describes_a_model_of_the_other_name(home: Path) -> None:
    """And what it lacks, by our classes."""
    code, words = said(home, "describe", "--json", "net.Net")
    assert code == 0, words
    assert json.loads(words)["kind"] == "model"


def test_an_objective_trains_with_the_package_that_it_was_written_with(home: Path) -> None:
    """If that is there; else with ours."""
    write(home, objective="train:objective")
    code, words = said(home, "try", "study.json")
    assert code == 0, words
    package = "lightning" if (home / "lightning").exists() else "pytorch_lightning.trainer.trainer"
    assert f"trains with <class '{package}.Trainer'>" in words
