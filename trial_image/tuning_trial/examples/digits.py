"""Handwritten digits: 1,797 images of 8 x 8 pixels that scikit-learn carries, so that nothing is downloaded.

A trial takes seconds on a CPU, and bad hyperparameters really are bad, which makes it a good first study.
"""

from collections.abc import Iterator
from itertools import pairwise

import pytorch_lightning as pl
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

Batch = tuple[Tensor, Tensor]
PIXELS, CLASSES, BRIGHTEST = 64, 10, 16.0


class DigitsClassifier(pl.LightningModule):
    """A perceptron. It has no `configure_optimizers`: LightningCLI's `optimizer` key chooses one."""

    def __init__(self, hidden_dim: int = 64, num_layers: int = 1, dropout: float = 0.1) -> None:
        """Build the layers.

        Args:
            hidden_dim: Width of the hidden layers.
            num_layers: Hidden layers.
            dropout: Share of activations that are dropped while training.
        """
        super().__init__()
        widths = [PIXELS, *[hidden_dim] * num_layers]
        self.network = nn.Sequential(*_hidden_layers(widths, dropout=dropout), nn.Linear(widths[-1], CLASSES))

    def forward(self, images: Tensor) -> Tensor:
        """From (batch, 64) pixels to (batch, 10) logits."""
        logits: Tensor = self.network(images)
        return logits

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """The loss of a batch."""
        images, labels = batch
        loss = functional.cross_entropy(self(images), labels)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Batch, _: int) -> None:
        """Log `val_loss` and `val_acc`, the metrics that a study can optimise."""
        images, labels = batch
        logits = self(images)
        accuracy = (logits.argmax(dim=1) == labels).float().mean()
        self.log("val_loss", functional.cross_entropy(logits, labels))
        self.log("val_acc", accuracy)


def _hidden_layers(widths: list[int], *, dropout: float) -> Iterator[nn.Module]:
    for inputs, outputs in pairwise(widths):
        yield nn.Linear(inputs, outputs)
        yield nn.ReLU()
        yield nn.Dropout(dropout)


class DigitsData(pl.LightningDataModule):
    """The images as flat vectors in [0, 1], split the same way in every trial."""

    def __init__(self, batch_size: int = 64, validation_share: float = 0.25) -> None:
        """Choose the split.

        Args:
            batch_size: Images in a training batch.
            validation_share: Share of the images that is held out.
        """
        super().__init__()
        self.batch_size = batch_size
        self.validation_share = validation_share

    def setup(self, stage: str) -> None:  # noqa: ARG002 - Lightning's signature
        """Read the images and split them."""
        pixels, labels = load_digits(return_X_y=True)
        images = torch.as_tensor(pixels, dtype=torch.float32) / BRIGHTEST
        targets = torch.as_tensor(labels, dtype=torch.long)
        # Its own generator: the split must not follow the trial's seed, or trials would be judged on different images.
        order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(0))
        held_out = int(len(targets) * self.validation_share)
        self.validation = TensorDataset(images[order[:held_out]], targets[order[:held_out]])
        self.training = TensorDataset(images[order[held_out:]], targets[order[held_out:]])

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Shuffled batches."""
        return DataLoader(self.training, batch_size=self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """All held-out images in one batch."""
        return DataLoader(self.validation, batch_size=len(self.validation))
