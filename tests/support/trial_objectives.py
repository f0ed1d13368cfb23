"""Objectives as people write them for Optuna, and one that behaves as its first parameter says."""

import atexit
import faulthandler
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
from optuna import Trial
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import cross_val_score
from sklearn.svm import SVC

A_NUMBER = 3


class Class:
    """Is no function."""


def quadratic(trial: Trial) -> float:
    """A parabola: the shortest of all."""
    x = trial.suggest_float("x", -10, 10)
    return (x - 2) ** 2


def two_classifiers(trial: Trial) -> float:
    """The parameters depend on which of the two was chosen."""
    features, kinds = load_iris(return_X_y=True)
    classifier: Any
    if trial.suggest_categorical("classifier", ["support vectors", "forest"]) == "support vectors":
        classifier = SVC(C=trial.suggest_float("c", 1e-3, 1e3, log=True))
    else:
        classifier = RandomForestClassifier(n_estimators=5, max_depth=trial.suggest_int("depth", 2, 8), random_state=0)
    return float(cross_val_score(classifier, features, kinds, cv=3).mean())


def torch_loop(trial: Trial) -> float:
    """A training loop without any framework, which reports and prunes; torch is imported where it is needed."""
    import torch  # noqa: PLC0415

    width = trial.suggest_int("width", 2, 8)
    layer = torch.nn.Sequential(torch.nn.Linear(2, width), torch.nn.Tanh(), torch.nn.Linear(width, 1))
    optimizer = torch.optim.SGD(layer.parameters(), lr=trial.suggest_float("lr", 1e-3, 1e-1, log=True))
    points = torch.rand(32, 2, generator=torch.Generator().manual_seed(0))
    loss = torch.tensor(0.0)
    for epoch in range(4):
        loss = (layer(points) - points.sum(dim=1, keepdim=True)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        trial.report(loss.item(), epoch)
        if trial.should_prune():
            raise optuna.TrialPruned
    return loss.item()


def two_values(trial: Trial) -> tuple[float, float]:
    """For two objectives."""
    x = trial.suggest_float("x", 0, 1)
    return x, 1 - x


def no_trial() -> float:
    """Takes nothing."""
    return 0.0


def two_arguments(trial: Trial, data: str) -> float:
    """Takes too much."""
    return trial.suggest_float("x", 0, float(data))


def scenario(trial: Trial) -> Any:
    """Does what its parameter `scenario` says, after three reports; `quality` is reported and returned."""
    name = trial.suggest_categorical("scenario", list(SCENARIOS))
    trial.set_user_attr("folder", os.environ["TUNING_TRIAL_DIR"])
    quality = trial.suggest_float("quality", 0.0, 1.0)
    for step in range(3):
        trial.report(quality, step)
        if trial.should_prune():
            raise optuna.TrialPruned
    return SCENARIOS[name](trial)


def _report_slowly(trial: Trial) -> float:
    for step in range(4):
        time.sleep(3)
        trial.report(0.5, step)
    return 0.5


def _segfault(_trial: Trial) -> None:
    faulthandler.disable()  # pytest's, which would fill the output
    os.kill(os.getpid(), signal.SIGSEGV)


def _raise(_trial: Trial) -> None:
    raise ValueError("no such column: price")


_SERVICE = "import sys; open(sys.argv[1], 'w').writelines(sys.stdin)"


def _log_to_a_service(trial: Trial) -> float:
    """As W&B does: another process writes what it is sent, and an exit handler sends the last line and waits for it."""
    written = Path(os.environ["FOLDER"], f"service-{trial.number}")
    service = subprocess.Popen([sys.executable, "-c", _SERVICE, str(written)], stdin=subprocess.PIPE, text=True)

    def finish() -> None:
        service.communicate("the last line")

    atexit.register(finish)
    return 0.5


def _exit_slowly(trial: Trial) -> float:
    atexit.register(time.sleep, 600)
    return float(trial.params["quality"])


def _leave_a_process(trial: Trial) -> float:
    """One that has something to write when it is asked to end."""
    written = Path(os.environ["FOLDER"], f"left-{trial.number}")
    ready = subprocess.Popen(
        [
            "bash",
            "-c",
            f"trap 'echo the last line > {written}; exit' TERM; echo ready; while true; do sleep 0.05; done",
        ],
        stdout=subprocess.PIPE,
    )
    assert ready.stdout
    assert ready.stdout.readline()
    return 0.5


SCENARIOS: dict[str, Callable[[Trial], Any]] = {
    "logs to a service": _log_to_a_service,
    "exits slowly": _exit_slowly,
    "leaves a process": _leave_a_process,
    "is good": lambda trial: trial.params["quality"],
    "prunes itself": lambda _: (_ for _ in ()).throw(optuna.TrialPruned()),
    "raises": _raise,
    "returns nothing": lambda _: None,
    "returns text": lambda _: "0.9",
    "returns two values": lambda _: (0.1, 0.2),
    "is not a number": lambda _: float("nan"),
    "is infinite": lambda _: float("-inf"),
    "calls sys.exit": lambda _: sys.exit("bye"),
    "segfaults": _segfault,
    "reports slowly": _report_slowly,
    "takes for ever": lambda _: time.sleep(600),
    "calls optimize": lambda trial: trial.study.optimize(lambda _: 0.0, n_trials=3),
    "enqueues": lambda trial: trial.study.enqueue_trial({"quality": 1.0}),
    "changes the study": lambda trial: trial.study.set_user_attr("tuningstudy:spec", {}),
    "changes it by force": lambda trial: trial.study._storage.set_study_user_attr(trial.study._study_id, "mine", 1),
    "suggests otherwise": lambda trial: trial.suggest_int("quality", 0, 1),
    "notes predictions": lambda trial: trial.set_user_attr("predictions", [0.5] * 1_000_000),
    "reports far away": lambda trial: trial.report(0.5, 10**12),
    "is good again": lambda trial: trial.params["quality"],
}


def waits(trial: Trial) -> float:
    """Suggests one parameter, and waits for the file `go` before the next one; it saves how far it came."""
    folder = Path(os.environ["FOLDER"])
    checkpoints = Path(os.environ["TUNING_TRIAL_CHECKPOINTS"])
    x = trial.suggest_float("x", 0, 1)
    done = checkpoints / "done"
    trial.set_user_attr("went on", done.exists())
    done.write_text("the first half")
    (folder / "waiting").touch()
    while not (folder / "go").exists():
        time.sleep(0.02)
    return x + trial.suggest_float("y", 0, 1)


def saves(trial: Trial) -> float:
    """Leaves a file with its value."""
    x = trial.suggest_float("x", 0, 1)
    (Path(os.environ["TUNING_TRIAL_CHECKPOINTS"]) / "model.txt").write_text(str(x))
    return x


def half_in_the_code(trial: Trial) -> float:
    """One parameter is the spec's too; the other is the code's alone."""
    return trial.suggest_float("x", 0.2, 0.3) + trial.suggest_float("y", 0, 1)


def has_no_torch(trial: Trial) -> float:
    """Is unhappy when somebody has imported it."""
    assert "torch" not in sys.modules
    return trial.suggest_float("x", 0, 1)
