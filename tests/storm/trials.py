"""What the trials of a storm run. Each writes down, in a file of its own accord, which epochs it begins and ends.

The file is a witness that knows nothing of our bookkeeping: a trial and those that continue it are known there by their
parameter `x`, which no other trial has. What a trial reports follows from `x` and the epoch alone, so that a curve with
a gap, or with a value of another trial, is seen.
"""

import json
import os
import time
from pathlib import Path
from typing import Any

import optuna
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

EPOCHS = 4
BATCHES = 4
WITNESS = "STORM_WITNESS"
"""Environment variable: the file."""
EPOCH_SECONDS = "STORM_EPOCH_SECONDS"


def value(x: float, epoch: int) -> float:
    """What a trial reports after an epoch; its own value is that of the last one."""
    return x * (epoch + 1) / EPOCHS


def note(what: str, *, x: float, trial: int, epoch: int) -> None:
    """Add a line to the file, in one write: other processes add theirs."""
    line = {
        "what": what,
        "x": x,
        "trial": trial,
        "epoch": epoch,
        "pod": os.environ["TUNING_WORKER_ID"],
        "process": os.getpid(),
        "at": time.monotonic(),
    }
    file = os.open(os.environ[WITNESS], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, (json.dumps(line) + "\n").encode())
    finally:
        os.close(file)


def _work(share: float = 1.0) -> None:
    time.sleep(float(os.environ[EPOCH_SECONDS]) * share)


class Model(pl.LightningModule):
    """Sleeps more than it learns."""

    def __init__(self, x: float, trial: int) -> None:
        super().__init__()
        self.x, self.trial = x, trial
        self.layer = nn.Linear(1, 1)

    def on_train_epoch_start(self) -> None:
        note("begins", x=self.x, trial=self.trial, epoch=self.current_epoch)

    def training_step(self, batch: Any, _index: int) -> Tensor:
        _work(1 / BATCHES)
        loss: Tensor = self.layer(batch[0]).square().mean()
        return loss

    def validation_step(self, _batch: Any, _index: int) -> None:
        # NB: by default a metric is kept in single precision.
        self.log("quality", torch.tensor(value(self.x, self.current_epoch), dtype=torch.float64))

    def on_train_epoch_end(self) -> None:
        note("ends", x=self.x, trial=self.trial, epoch=self.current_epoch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(TensorDataset(torch.ones(BATCHES, 1)))

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(TensorDataset(torch.ones(1, 1)))


def objective(trial: optuna.Trial) -> float:
    """A loop of one's own, which saves how far it came."""
    x = trial.suggest_float("x", 0, 1)
    saved = Path(os.environ["TUNING_TRIAL_CHECKPOINTS"]) / "epochs"
    done = int(saved.read_text()) if saved.exists() else 0
    for epoch in range(done):
        trial.report(value(x, epoch), epoch)
    for epoch in range(done, EPOCHS):
        note("begins", x=x, trial=trial.number, epoch=epoch)
        _work()
        note("ends", x=x, trial=trial.number, epoch=epoch)
        trial.report(value(x, epoch), epoch)
        if epoch + 1 < EPOCHS:
            temporary = saved.with_suffix(".tmp")
            temporary.write_text(str(epoch + 1))
            temporary.replace(saved)
            if trial.should_prune():
                raise optuna.TrialPruned
    return value(x, EPOCHS - 1)
