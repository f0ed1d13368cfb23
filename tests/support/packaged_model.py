"""A small model in a package of its own, which imports a module beside it: a folder that no image has."""

from pathlib import Path
from typing import Any

MODEL = '''\
"""A model in a package of its own, which imports a module beside it."""

import pytorch_lightning as pl
import torch
from settings import SAMPLES
from torch.utils.data import DataLoader, TensorDataset


class Slope(pl.LightningModule):
    def __init__(self, lr: float = 0.1):
        super().__init__()
        self.lr = lr
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch, index):
        return self.layer(batch[0]).square().mean()

    def validation_step(self, batch, index):
        self.log("val_loss", self.layer(batch[0]).square().mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr)

    def train_dataloader(self):
        return DataLoader(TensorDataset(torch.ones(SAMPLES, 1)), batch_size=4)

    val_dataloader = train_dataloader
'''
SPEC: dict[str, Any] = {
    "objectives": [{"metric": "val_loss", "direction": "minimize"}],
    "searchSpace": [{"name": "lr", "type": "float", "low": 0.01, "high": 0.5}],
    "sampler": {"type": "random", "seed": 1},
    "maxTrials": 3,
    "parallelism": 1,
    "trial": {
        "gpus": 0,
        "lightning": {
            "model": {"class_path": "package.slope.Slope", "init_args": {"lr": "${lr}"}},
            "trainer": {"max_epochs": 1, "accelerator": "cpu"},
        },
    },
}


def write(home: Path) -> None:
    """Write the package and the module beside it."""
    (home / "package").mkdir()
    (home / "package" / "slope.py").write_text(MODEL)
    (home / "settings.py").write_text("SAMPLES = 8\n")
