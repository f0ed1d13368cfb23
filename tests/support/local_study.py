"""A study without a cluster: a manifest with its own model beside it, and the real command on it."""

import os
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from optuna.trial import TrialState
from sqlalchemy.engine import URL
from tests.support.builders import a_manifest
from tests.support.wait import wait_until

from tuning_operator.charts.source import StudyData
from tuning_operator.cli.study import load
from tuning_operator.local.folder import StudyFolder, read_json
from tuning_operator.local.place import choose

DEADLINE_SECONDS = 150

MODEL = '''\
"""A model that nobody has packaged. It writes down each epoch that begins; the second waits for the file `go`.

A worker imports once what its trials need: a trial that imports anything of ours fails.
"""

import sys
import time
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, TensorDataset

IMPORTED = set(sys.modules)


class Slope(pl.LightningModule):
    def __init__(self, lr: float = 0.1):
        super().__init__()
        self.lr = lr
        self.layer = torch.nn.Linear(1, 1)

    def on_train_epoch_start(self):
        with Path("epochs").open("a") as file:
            file.write(f"{self.lr} {self.current_epoch}\\n")

    def on_fit_end(self):
        assert not [name for name in set(sys.modules) - IMPORTED if name.startswith("tuning_")]

    def training_step(self, batch, index):
        while self.current_epoch and not Path("go").exists():
            time.sleep(0.02)
        return self.layer(batch[0]).square().mean()

    def validation_step(self, batch, index):
        self.log("val_loss", self.layer(batch[0]).square().mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr)

    def train_dataloader(self):
        return DataLoader(TensorDataset(torch.ones(8, 1)), batch_size=4)

    val_dataloader = train_dataloader
'''
SPEC: dict[str, Any] = {
    "objectives": [{"metric": "val_loss", "direction": "minimize"}],
    "searchSpace": [{"name": "lr", "type": "float", "low": 0.01, "high": 0.5}],
    "sampler": {"type": "random", "seed": 1},
    "maxTrials": 5,
    "parallelism": 2,
    "trial": {
        "lightning": {
            "model": {"class_path": "slope.Slope", "init_args": {"lr": "${lr}"}},
            "trainer": {"max_epochs": 3, "accelerator": "cpu"},
        }
    },
}


@dataclass
class LocalStudy:
    """A manifest in a folder of its own, and runs of it."""

    home: Path
    name: str = "slope"
    database: URL | None = None
    runs: "list[subprocess.Popen[bytes]]" = field(default_factory=list)

    def __post_init__(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        (self.home / "slope.py").write_text(MODEL)
        self.write()

    @property
    def file(self) -> Path:
        """The manifest."""
        return self.home / f"{self.name}.yaml"

    @property
    def folder(self) -> StudyFolder:
        """The study's folder."""
        return StudyFolder.beside(self.file, self.name)

    @property
    def said(self) -> str:
        """What all runs printed."""
        return (self.home / "said").read_text()

    def write(self, **changes: Any) -> None:
        """Write the manifest; keywords replace fields of its spec."""
        document = a_manifest(name=self.name)
        self.file.write_text(yaml.safe_dump(document | {"spec": SPEC | changes}))

    def start(self, *options: str) -> "subprocess.Popen[bytes]":
        """Run the command, from another folder than the manifest's."""
        chosen = ["--database", self.database.render_as_string(hide_password=False)] if self.database else []
        with (self.home / "said").open("ab") as said:
            run = subprocess.Popen(
                [sys.executable, "-m", "tuning_operator.cli", "run", str(self.file), *chosen, *options],
                stdout=said,
                stderr=said,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )
        self.runs.append(run)
        return run

    def finish(self, run: "subprocess.Popen[bytes]") -> int:
        """Let all trials end, and wait for the end of a run."""
        (self.home / "go").touch()
        return run.wait(DEADLINE_SECONDS)

    def data(self) -> StudyData:
        """The rows as they are now."""
        url = self.database.render_as_string(hide_password=False) if self.database else None
        return load(choose(self.file, database=url, folder=None))

    def states(self) -> Counter[TrialState]:
        """What has become of the trials that count."""
        return Counter(trial.state for trial in self.data().trials)

    def wait_for_trials(self, count: int) -> None:
        """Wait until so many trials run and have reported a value."""
        wait_until(
            lambda: [
                trial for trial in self._trials() if trial.state is TrialState.RUNNING and trial.intermediate_values
            ],
            lambda running: len(running) == count,
            seconds=DEADLINE_SECONDS,
            what=f"{count} trials with a value: {self.said}",
        )

    def wait_for_second_epochs(self, count: int) -> None:
        """Wait until so many trials have begun their second epoch, and wait in it.

        NB: a trial that is stopped after its first report and before that has nothing to do twice.
        """
        self.wait_for_trials(count)
        wait_until(
            self.epochs,
            lambda begun: sum(trials for epochs, trials in begun.items() if 1 in epochs) == count,
            seconds=DEADLINE_SECONDS,
            what=f"{count} trials in their second epoch: {self.said}",
        )

    def wait_until_said(self, words: str) -> None:
        """Wait until a run has printed something."""
        wait_until(lambda: self.said, lambda said: words in said, seconds=DEADLINE_SECONDS, what=f"{words!r} is said")

    def epochs(self) -> Counter[tuple[int, ...]]:
        """How many trials began which epochs; a trial and those that continue it have the same parameters."""
        begun: defaultdict[str, list[int]] = defaultdict(list)
        for line in (self.home / "epochs").read_text().splitlines():
            lr, epoch = line.split()
            begun[lr].append(int(epoch))
        return Counter(tuple(epochs) for epochs in begun.values())

    def workers(self) -> dict[str, int]:
        """Numbers of the worker processes by their names."""
        return {file.stem: int(file.read_text()) for file in self.folder.workers.glob("*.lock") if file.read_text()}

    def kill_workers(self) -> None:
        """End all of them, as a crash does."""
        for pid in self.workers().values():
            os.kill(pid, signal.SIGKILL)

    def status(self) -> dict[str, Any]:
        """The status that the last run left."""
        return read_json(self.folder.status)

    def clean_up(self) -> None:
        """Leave no process behind."""
        for run in self.runs:
            run.kill()
            run.wait()
        for pid in self.workers().values():
            try:
                os.killpg(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def _trials(self) -> tuple[Any, ...]:
        is_there = self.database is not None or self.folder.database.exists()
        return self.data().trials if is_there and self.status() else ()
