"""The trials of the overhead benchmark, the same in every system. It stands alone, since pods get the text of this file."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

NAMES = ("a", "b", "c", "d", "e", "f")
EPOCHS = 1

Report = Callable[[float, int], None]


def nothing(trial: Any) -> float:
    """Six parameters, and no work: for `trial.objective` and for `study.optimize`."""
    return evaluate_nothing(suggest_nothing(trial))


def suggest_nothing(trial: Any) -> dict[str, Any]:
    """Six numbers."""
    return {name: trial.suggest_float(name, -1.0, 1.0) for name in NAMES}


def evaluate_nothing(params: dict[str, Any], report: Report | None = None) -> float:  # noqa: ARG001 - as the other one
    """A sum of squares."""
    return float(sum(value**2 for value in params.values()))


def suggest_digits(trial: Any) -> dict[str, Any]:
    """The search space of the digits sample."""
    return {
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True),
        "hidden_dim": trial.suggest_categorical("hidden_dim", [16, 32, 64, 128]),
        "num_layers": trial.suggest_int("num_layers", 1, 3),
        "dropout": trial.suggest_float("dropout", 0.0, 0.5),
        "batch_size": trial.suggest_categorical("batch_size", [32, 64, 128]),
    }


def evaluate_digits(params: dict[str, Any], report: Report | None = None) -> float:
    """One epoch of the digits, with Lightning's Trainer and nothing of ours but the model."""
    import pytorch_lightning as pl  # noqa: PLC0415 - the other trial needs none of these
    import torch  # noqa: PLC0415

    from tuning_trial.examples.digits import DigitsClassifier, DigitsData  # noqa: PLC0415

    class Classifier(DigitsClassifier):
        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), lr=params["learning_rate"])

        def on_validation_epoch_end(self) -> None:
            if report and not self.trainer.sanity_checking:
                report(float(self.trainer.callback_metrics["val_acc"]), self.current_epoch)

    trainer = pl.Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    model = Classifier(**{name: params[name] for name in ("hidden_dim", "num_layers", "dropout")})
    trainer.fit(model, datamodule=DigitsData(batch_size=params["batch_size"]))
    return float(trainer.callback_metrics["val_acc"])


TASKS = {"nothing": (suggest_nothing, evaluate_nothing), "digits": (suggest_digits, evaluate_digits)}

if __name__ == "__main__":
    # The container of a Job that is one trial: it gets its task and parameters, and leaves the value with the kubelet.
    _task, _params = sys.argv[1], json.loads(sys.argv[2])
    Path("/dev/termination-log").write_text(repr(TASKS[_task][1](_params)))
