"""The trials of the utilisation benchmark: a training that takes so many seconds, most of which it sleeps."""

import time

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, TensorDataset

STEPS = 20


class Sleeper(pl.LightningModule):
    """Trains for so long, and logs how long that was: the value of its trial is the time inside of its training."""

    def __init__(self, seconds: float, lr: float) -> None:
        """Choose.

        Args:
            seconds: So long it trains.
            lr: The one parameter that is searched for.
        """
        super().__init__()
        self.seconds = seconds
        self.lr = lr
        self.layer = torch.nn.Linear(1, 1)

    def on_fit_start(self) -> None:
        """The training begins."""
        self.began = time.monotonic()

    def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
        """Sleep until this step's share of the time is over."""
        time.sleep(max(0.0, self.began + self.seconds * (index + 1) / STEPS - time.monotonic()))
        loss: torch.Tensor = self.layer(batch[0]).square().mean()
        return loss

    def validation_step(self, batch: list[torch.Tensor], index: int) -> None:
        """Nothing to judge."""

    def on_validation_epoch_end(self) -> None:
        """The training ends."""
        self.log("trained", time.monotonic() - self.began)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Any."""
        return torch.optim.SGD(self.parameters(), lr=self.lr)

    def train_dataloader(self) -> DataLoader[tuple[torch.Tensor, ...]]:
        """As many batches as there are steps."""
        return DataLoader(TensorDataset(torch.ones(STEPS, 1)), batch_size=1)

    def val_dataloader(self) -> DataLoader[tuple[torch.Tensor, ...]]:
        """One batch."""
        return DataLoader(TensorDataset(torch.ones(1, 1)), batch_size=1)
