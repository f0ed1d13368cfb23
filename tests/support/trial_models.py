"""Lightning models that behave as a scenario says, in milliseconds."""

import faulthandler
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytorch_lightning as pl
import torch
import torchmetrics
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler, TensorDataset


class Data(pl.LightningDataModule):
    """Eight points, two batches."""

    def __init__(self, batch_size: int = 4, num_workers: int = 0) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.num_workers = num_workers

    def train_dataloader(self) -> DataLoader[Any]:
        points = TensorDataset(torch.ones(8, 2), torch.zeros(8, dtype=torch.long))
        return DataLoader(points, batch_size=self.batch_size, num_workers=self.num_workers)

    def val_dataloader(self) -> DataLoader[Any]:
        return self.train_dataloader()


class Model(pl.LightningModule):
    """Logs `quality` in every validation, and `quality / 2` as train_metric at the end of every training epoch."""

    built: ClassVar[list[list[float]]] = []
    """First weights of the models that were built."""

    def __init__(self, quality: float = 0.5, width: int = 2, *, bias: bool = True) -> None:
        super().__init__()
        self.quality = quality
        self.layer = nn.Linear(2, width, bias=bias)
        self.built.append(self.layer.weight.flatten().tolist())

    def training_step(self, batch: Any, _index: int) -> Tensor:
        points, classes = batch
        loss = nn.functional.cross_entropy(self.layer(points), classes)
        self.log("train_metric", self.quality / 2, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, _batch: Any, _index: int) -> None:
        self.log("val_acc", self.quality)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


class Logging(Model):
    """Logs `metric` where it is told to, from an epoch on: the number of the epoch, in steps as the mean of two batches."""

    def __init__(self, where: str, first: int = 0) -> None:
        super().__init__()
        self.where, self.first = where, first

    def training_step(self, batch: Any, index: int) -> Tensor:
        if self.where == "step":
            spread = 1.0 if index else -1.0
            self._log(on_step=True, on_epoch=True, spread=spread)
        return super().training_step(batch, index)

    def on_train_epoch_end(self) -> None:
        if self.where == "epoch end":
            self._log()

    def validation_step(self, batch: Any, index: int) -> None:
        super().validation_step(batch, index)
        if self.where == "validation":
            self._log()

    def _log(self, *, spread: float = 0.0, **options: bool) -> None:
        if self.current_epoch >= self.first:
            self.log("metric", float(self.current_epoch) + spread, **options)


class CannotBeBuilt(Model):
    """Refuses its arguments."""

    def __init__(self, heads: int = 2) -> None:
        super().__init__()
        if heads % 2:
            raise ValueError(f"dim 8 is not divisible by heads {heads}")


class UsesItsLogger(Model):
    """As models do that draw images for their logger; its data has an argument of the same name."""

    def __init__(self, batch_size: int = 3) -> None:  # noqa: ARG002 - it is saved
        super().__init__()
        self.save_hyperparameters()

    def on_train_epoch_end(self) -> None:
        self.logger.experiment.add_image("filters", self.layer.weight)  # type: ignore[union-attr]


class SavesItsArguments(Data):
    """As most do."""

    def __init__(self, batch_size: int = 4) -> None:
        super().__init__(batch_size)
        self.save_hyperparameters()


class DownloadsSlowly(Data):
    """Notes when its download begins and ends."""

    def __init__(self, notes: str) -> None:
        super().__init__()
        self.notes = notes

    def prepare_data(self) -> None:
        for word in ("begins", "ends"):
            with Path(self.notes).open("a") as file:
                file.write(f"{word}\n")
            time.sleep(0.3)


class StopInTheSecondEpoch(pl.Callback):
    """Ends the training before its validation."""

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        trainer.should_stop = trainer.current_epoch == 1


class Scenario(Model):
    """Does what `scenario` says in the first training step."""

    def __init__(self, scenario: str, folder: str = "", quality: float = 0.5) -> None:
        super().__init__(quality=quality)
        self.scenario = scenario
        self.folder = Path(folder)

    def training_step(self, batch: Any, index: int) -> Tensor:
        if act := _SCENARIOS.get(self.scenario):
            act(self)
        return super().training_step(batch, index)

    def validation_step(self, batch: Any, index: int) -> None:
        if self.scenario == "logs something else":
            self.log("val_loss", 1.0)
        elif self.scenario == "is not a number":
            self.log("val_acc", torch.tensor(torch.nan))
        else:
            super().validation_step(batch, index)


def _raise(_model: Scenario) -> None:
    raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


def _segfault(_model: Scenario) -> None:
    faulthandler.disable()  # pytest's, which would fill the output
    os.kill(os.getpid(), signal.SIGSEGV)


def _leave_a_process_behind(model: Scenario) -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    (model.folder / "left-behind").write_text(str(process.pid))
    os._exit(4)


def _keep_a_thread(_model: Scenario) -> None:
    threading.Thread(target=time.sleep, args=(600,)).start()


def _crawl(_model: Scenario) -> None:
    time.sleep(2)


def _wait_in_the_second_epoch(model: Scenario) -> None:
    if model.current_epoch == 1:
        (model.folder / "waiting").touch()
        while not (model.folder / "go").exists():
            time.sleep(0.02)


_SCENARIOS: dict[str, Callable[[Scenario], None]] = {
    "raises": _raise,
    "calls sys.exit": lambda _: sys.exit("bye"),
    "calls os._exit": lambda _: os._exit(3),
    "leaves a process behind": _leave_a_process_behind,
    "keeps a thread": _keep_a_thread,
    "segfaults": _segfault,
    "is killed": lambda _: os.kill(os.getpid(), signal.SIGKILL),
    "crawls": _crawl,
    "takes for ever": lambda _: time.sleep(600),
    "waits": _wait_in_the_second_epoch,
}


class Points(pl.LightningDataModule):
    """Sixty-four points of two classes, in another order in each epoch."""

    def __init__(
        self, num_workers: int = 0, *, own_generator: bool = False, augments: bool = False, order: str = "shuffled"
    ) -> None:
        super().__init__()
        self.num_workers = num_workers
        self.generator = torch.Generator().manual_seed(5) if own_generator else None
        self.augments = augments
        self.order = order

    def setup(self, stage: str) -> None:  # noqa: ARG002
        points = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
        self.points = TensorDataset(points, (points.sum(dim=1) > 0).long())

    def train_dataloader(self) -> DataLoader[Any]:
        points = Augmented(self.points) if self.augments else self.points
        match self.order:
            case "own sampler":
                return DataLoader(points, batch_size=8, sampler=ShuffledAtOnce(points))
            case "drawn while it runs":
                return DataLoader(points, batch_size=8, sampler=DrawnWhileItRuns(points))
            case "stream":
                return DataLoader(Stream(points), batch_size=8)
            case "stream of workers":
                return DataLoader(Stream(points), batch_size=8, num_workers=1)
            case _:
                return DataLoader(
                    points, batch_size=8, shuffle=True, num_workers=self.num_workers, generator=self.generator
                )

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.points, batch_size=len(self.points))


class Augmented(Dataset[Any]):
    """Points with noise, drawn where they are read."""

    def __init__(self, points: Dataset[Any]) -> None:
        self.points = points

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> Any:
        point, kind = self.points[index]
        return point + torch.randn(4) * 0.1, kind


class ShuffledAtOnce(Sampler[int]):
    """Draws the whole order when the epoch begins."""

    def __init__(self, points: Dataset[Any]) -> None:
        self.points = points

    def __len__(self) -> int:
        return 64

    def __iter__(self) -> Iterator[int]:
        yield from torch.randperm(64).tolist()


class DrawnWhileItRuns(ShuffledAtOnce):
    """Draws one after the other, in between what the training draws."""

    def __iter__(self) -> Iterator[int]:
        for _ in range(64):
            yield int(torch.randint(64, ()))


class Stream(IterableDataset[Any]):
    """Points of which nobody knows how many there are."""

    def __init__(self, points: Dataset[Any]) -> None:
        self.points = points

    def __iter__(self) -> Iterator[Any]:
        for index in torch.randperm(64).tolist():
            yield self.points[index]


class Learner(pl.LightningModule):
    """Learns with all kinds of random numbers; `do` is called before each batch, and may wait, or end the process.

    It logs `val_loss`, or `quality` in its place, and at the end its weights are in `weights`, and in a file of `folder`.
    """

    do: ClassVar[Callable[["Learner", int], None]] = staticmethod(lambda _model, _index: None)
    weights: ClassVar[list[float]] = []
    batches: ClassVar[list[tuple[int, int]]] = []
    """Epoch and index of what was trained in this process."""
    means: ClassVar[list[dict[str, float]]] = []
    """All metrics at the end of each epoch."""

    def __init__(
        self,
        folder: str = "",
        scheduler: str = "plateau",
        number: int = 0,
        waits_before: str = "",
        quality: float = 0.0,
    ) -> None:
        super().__init__()
        self.folder = Path(folder)
        self.scheduler = scheduler
        self.number = number
        self.waits_before = waits_before
        self.quality = quality
        self.net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 2))

    def training_step(self, batch: Any, index: int) -> Tensor:
        Learner.do(self, index)
        if self.waits_before == f"epoch {self.current_epoch} batch {index}":
            self._wait()
        points, classes = batch
        noise = torch.as_tensor(np.random.randn(*points.shape), dtype=torch.float32) * 0.1 + random.random() * 0.1
        Learner.batches.append((self.current_epoch, index))
        return nn.functional.cross_entropy(self.net(points + noise), classes)

    def _wait(self) -> None:
        """Until there is a file `go`, or the worker is asked to stop."""
        (self.folder / "waiting").touch()
        while not (self.folder / "go").exists() and not self.trainer.received_sigterm:
            time.sleep(0.02)

    def validation_step(self, batch: Any, _index: int) -> None:
        points, classes = batch
        loss = nn.functional.cross_entropy(self.net(points), classes)
        self.log("val_loss", self.quality or loss)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.01)
        schedulers: dict[str, Callable[[], Any]] = {
            "plateau": lambda: {
                "scheduler": torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=0.5),
                "monitor": "val_loss",
            },
            "each step": lambda: {
                "scheduler": torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=64),
                "interval": "step",
            },
            "each epoch": lambda: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.8),
        }
        return {"optimizer": optimizer, "lr_scheduler": schedulers[self.scheduler]()}

    def on_train_epoch_end(self) -> None:
        Learner.means.append({name: float(value) for name, value in self.trainer.callback_metrics.items()})

    def on_train_end(self) -> None:
        weights = [float(value) for part in self.parameters() for value in part.detach().flatten()]
        Learner.weights[:] = weights
        if self.folder != Path():
            (self.folder / f"weights-{self.number}").write_text(str(weights))


class LoggingLearner(Learner):
    """Logs means, extremes and metrics of its training."""

    def __init__(self) -> None:
        super().__init__()
        self.accuracy = torchmetrics.classification.MulticlassAccuracy(num_classes=2)
        self.several = torchmetrics.MetricCollection(
            [
                torchmetrics.classification.MulticlassPrecision(num_classes=2),
                torchmetrics.classification.MulticlassRecall(num_classes=2),
            ]
        )

    def training_step(self, batch: Any, index: int) -> Tensor:
        loss = super().training_step(batch, index)
        points, classes = batch
        chosen = self.net(points)
        self.log("train_loss", loss, on_step=True, on_epoch=True)
        self.log("train_most", loss, on_step=False, on_epoch=True, reduce_fx="max")
        self.accuracy(chosen, classes)
        self.log("train_acc", self.accuracy, on_step=False, on_epoch=True)
        self.several.update(chosen, classes)
        if index % 3 == 0:
            self.log("train_some", loss * 2, on_step=False, on_epoch=True)
        return loss

    def on_train_epoch_end(self) -> None:
        self.log_dict(self.several.compute())
        self.several.reset()
        super().on_train_epoch_end()


class ManualLearner(Learner):
    """Steps by itself, and only after every third batch."""

    def __init__(self) -> None:
        super().__init__(scheduler="each epoch")
        self.automatic_optimization = False

    def training_step(self, batch: Any, index: int) -> None:
        self.manual_backward(super().training_step(batch, index))
        if index % 3 == 2:
            optimizer = self.optimizers()
            optimizer.step()
            optimizer.zero_grad()


class KeepsLosses(Learner):
    """Makes the mean of its losses itself, from a list that no checkpoint has."""

    def on_train_epoch_start(self) -> None:
        self.losses: list[Tensor] = []

    def training_step(self, batch: Any, index: int) -> Tensor:
        loss = super().training_step(batch, index)
        self.losses.append(loss.detach())
        return loss

    def on_train_epoch_end(self) -> None:
        self.log("train_loss", torch.stack(self.losses).mean())
        super().on_train_epoch_end()


class TakesBatches(Learner):
    """Takes a batch from the data loader itself."""

    def training_step(self, dataloader_iter: Iterator[Any]) -> Tensor:  # type: ignore[override]
        batch, index, _ = next(dataloader_iter)
        return super().training_step(batch, index)


class Counts(Callback):
    """Counts batches, and leaves its count out of checkpoints."""

    def __init__(self) -> None:
        self.batches = 0

    def on_train_batch_end(self, *_arguments: Any) -> None:
        self.batches += 1


class Narrow(Model):
    """Has no argument `scenario`."""

    def __init__(self, scenarios: str = "", folder: str = "") -> None:
        super().__init__()
        self.unused = scenarios + folder


class Raises(Model):
    """Cannot be built."""

    def __init__(self) -> None:
        super().__init__()
        raise ValueError("width must be positive")


class Composed(Model):
    """Has a part that is configured too."""

    def __init__(self, part: nn.Module, scale: float = 1.0) -> None:
        super().__init__()
        self.part = part
        self.scale = scale


class Part(nn.Module):
    """The part."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size


class Remember(Callback):
    """Keeps the names of the hooks that were called."""

    seen: ClassVar[list[str]] = []

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        self.seen.append("train end")

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:  # noqa: ARG002
        self.seen.append(f"teardown {stage!s}")
