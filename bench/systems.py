"""The systems that benchmarks compare: each runs a study of so many trials, and says which worker ran which of them."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import optuna
import yaml
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import URL

from bench.conditions import ROOT
from tuning_api.contract import OWNER_ATTRIBUTE
from tuning_operator.database import connect_arguments

SECONDS_PER_STUDY = 600
LARGE = 100_000
CODE = ROOT / "bench" / "overhead_trials.py"

Document = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """A trial that ended."""

    worker: str
    start: float
    end: float
    """As of `time.time`."""
    value: float


@dataclass(frozen=True)
class Ran:
    """A study that was run to its end."""

    launched: float
    rows: list[Row]


def text_of(url: URL) -> str:
    """A URL with its password."""
    return url.render_as_string(hide_password=False)


def storage_of(url: URL, schema: str | None = None) -> RDBStorage:
    """Optuna's tables."""
    arguments = {"connect_args": connect_arguments(schema)} if schema else {}
    return RDBStorage(text_of(url), engine_kwargs=arguments)


def manifest(name: str, trial: Document, space: list[Document], *, workers: int, trials: int) -> Document:
    """A study. It may fail as often as it likes: a limit on failures is one on the trials that wait, too."""
    return {
        "apiVersion": "tuningstudy.io/v1alpha1",
        "kind": "TuningStudy",
        "metadata": {"name": name},
        "spec": {
            "objectives": [{"metric": "val_acc", "direction": "maximize"}],
            "searchSpace": space,
            "sampler": {"type": "tpe"},
            "pruner": {"type": "none"},
            "maxTrials": trials,
            "maxFailedTrials": LARGE,
            "parallelism": workers,
            "trial": {"gpus": 0} | trial,
        },
    }


def bare(url: URL, task: str, *, workers: int, trials: int, forked: bool) -> Ran:
    """Processes of `study.optimize`, as many trials in each."""
    optuna.create_study(study_name=task, storage=storage_of(url), direction="maximize")
    each = str(trials // workers)
    command = [sys.executable, "-m", "bench.bare", text_of(url), task, task, each, *(["fork"] if forked else [])]
    launched = time.time()
    processes = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(workers)
    ]
    owners: dict[int, str] = {}
    for worker, process in enumerate(processes):
        output, said = process.communicate(timeout=SECONDS_PER_STUDY)
        if process.returncode:
            raise RuntimeError(f"bare Optuna failed: {said.decode()[-2000:]}")
        owners |= dict.fromkeys(json.loads(output), str(worker))
    found = optuna.load_study(study_name=task, storage=storage_of(url)).get_trials(deepcopy=False)
    return Ran(launched, [row_of(trial, owners[trial.number]) for trial in found])


def local(url: URL, document: Document, *, code: Path = CODE) -> Ran:
    """`tuningstudy run` on a Postgres, with a file of code beside the manifest.

    Raises:
        RuntimeError: the study did not complete; with the last that it said.
    """
    with tempfile.TemporaryDirectory(prefix="tuningstudy-bench-") as folder:
        file = Path(folder) / "study.yaml"
        file.write_text(yaml.safe_dump(document))
        shutil.copy(code, folder)
        command = [sys.executable, "-m", "tuning_operator.cli", "run", str(file), "--no-report"]
        launched = time.time()
        said = subprocess.run(
            [*command, f"--database={text_of(url)}", f"--folder={folder}/out"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=SECONDS_PER_STUDY,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        if said.returncode:
            raise RuntimeError(f"the local run failed: {said.stdout[-2000:]}")
    return Ran(launched, rows(storage_of(url), document["metadata"]["name"]))


def rows(storage: RDBStorage, study: str) -> list[Row]:
    """The trials of a study whose workers are ours.

    Raises:
        RuntimeError: one failed, and then nothing that was measured means anything.
    """
    found = optuna.load_study(study_name=study, storage=storage).get_trials(deepcopy=False)
    if failed := [trial.number for trial in found if trial.state is TrialState.FAIL]:
        raise RuntimeError(f"trials {failed} failed: {found[failed[0]].user_attrs}")
    complete = (trial for trial in found if trial.state is TrialState.COMPLETE)
    return [row_of(trial, trial.user_attrs[OWNER_ATTRIBUTE]["id"]) for trial in complete]


def row_of(trial: FrozenTrial, worker: str) -> Row:
    """A trial that is complete."""
    return Row(worker, start=seconds(trial.datetime_start), end=seconds(trial.datetime_complete), value=trial.values[0])


def seconds(moment: datetime | None) -> float:
    """NB: Optuna 5 stores naive UTC (optuna/optuna#6708)."""
    if moment is None:
        raise RuntimeError("a trial that ended has no time")
    return moment.replace(tzinfo=UTC).timestamp()
