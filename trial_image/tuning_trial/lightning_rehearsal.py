"""What can be known of a LightningCLI configuration before a study runs: whether its trials can be built, and how one runs."""

import logging
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from jsonargparse import Namespace
from pytorch_lightning.utilities.model_helpers import is_overridden

from tuning_api.schema import Scalar
from tuning_api.spec import StudySpec
from tuning_trial import config, lightning_parser, lightning_runner, outcomes
from tuning_trial.errors import InvalidConfigError, TrialError
from tuning_trial.outcomes import Completed, Failed, Pruned
from tuning_trial.pruning import ReportAndPrune

_STAND_IN = {"model": {"class_path": "pytorch_lightning.demos.boring_classes.BoringModel"}}
"""A model that always fits, so that the other parts are checked while the study's own model is at fault."""


def faults(spec: StudySpec, params: dict[str, Scalar], *, seed: int, builds: bool) -> Iterator[str]:
    """Why a trial of certain parameters would fail; with `builds`, the model, its data and the Trainer are built for it."""
    try:
        complete = config.with_defaults(_configuration(spec, params), seed=seed, folder=Path())
    except InvalidConfigError as error:
        yield str(error)
        return
    try:
        parsed = lightning_parser.parse(lightning_parser.shared_parser(), complete)
    except InvalidConfigError as error:
        yield from _faults_of_parts(complete) or [str(error)]
        return
    except SystemExit as error:
        yield f"importing the classes of trial.lightning ended the program (sys.exit({error.code!r}))"
        return
    found = list(_faults_of_model(parsed))
    yield from found
    if builds and not found:
        yield from _faults_of_building(complete)


def _faults_of_building(complete: dict[str, Any]) -> Iterator[str]:
    """What constructors raise, the user's and the Trainer's."""
    trainer = complete["trainer"]
    if not _is_here(trainer):
        yield from _faults_of_devices(trainer)
        trainer = {key: value for key, value in trainer.items() if key not in _OF_ACCELERATOR} | _HERE
    try:
        with tempfile.TemporaryDirectory() as folder, _in_silence():
            lightning_runner.build(complete | {"trainer": trainer | {"default_root_dir": folder}})
    except TrialError as error:
        yield str(error)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the user's code may raise anything
        yield f"trial.lightning: building it raised {outcomes.failure_of(error, folders=sys.path).message}"


@contextmanager
def _in_silence() -> Iterator[None]:
    """Without Lightning's advice, which it gives for each Trainer."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


_OF_ACCELERATOR = ("accelerator", "devices", "strategy", "precision", "num_nodes")
_HERE = {"accelerator": "cpu", "devices": 1}
_LAUNCHING = re.compile(r"ddp|fsdp|deepspeed|model_parallel", re.IGNORECASE)


def _is_here(trainer: dict[str, Any]) -> bool:
    """Whether this machine has what the Trainer wants; a cluster's GPUs are not here."""
    return trainer.get("accelerator") == "cpu" or torch.cuda.is_available()


def _faults_of_devices(trainer: dict[str, Any]) -> Iterator[str]:
    devices, strategy = trainer.get("devices"), trainer.get("strategy")
    several = len(devices) if isinstance(devices, list) else devices
    if isinstance(several, int) and several > 1:
        yield f"{_PROCESSES}: set devices to 1, and parallelism to the number of GPUs"
    elif isinstance(strategy, str) and _LAUNCHING.search(strategy):
        yield f"{_PROCESSES}: remove trainer.strategy"


_PROCESSES = (
    "trial.lightning.trainer: several devices or a strategy such as ddp start processes, and a trial is one process"
)


def _faults_of_parts(complete: dict[str, Any]) -> list[str]:
    """The parser stops at the first fault; the parts of a configuration can be at fault one by one."""
    found = [] if complete.get("model") else ["trial.lightning needs model"]
    for name, part in complete.items():
        try:
            lightning_parser.parse(lightning_parser.shared_parser(), _STAND_IN | {name: part})
        except InvalidConfigError as error:
            found.append(str(error))
    return found


def _faults_of_model(parsed: Namespace) -> Iterator[str]:
    """What Lightning itself would say only when the training starts."""
    model = lightning_parser.class_of(parsed.model.class_path)
    if not isinstance(model, type):
        return  # a function that makes the model, which the parser takes too
    if not is_overridden("training_step", model, pl.LightningModule):
        yield f"{parsed.model.class_path} has no training_step"
    if not is_overridden("configure_optimizers", model, pl.LightningModule) and not parsed.get("optimizer"):
        yield f"{parsed.model.class_path} has no configure_optimizers, and trial.lightning has no optimizer: add one of them"
    if not parsed.get("data") and not is_overridden("train_dataloader", model, pl.LightningModule):
        yield f"{parsed.model.class_path} has no train_dataloader, and trial.lightning has no data: add one of them"


def _configuration(
    spec: StudySpec, params: dict[str, Scalar], *, folder: Path = Path(), study: str = "study"
) -> dict[str, Any]:
    names = {parameter.name for parameter in spec.search_space}
    built_in: dict[str, Scalar] = {"trial.number": 0, "trial.dir": str(folder), "study.name": study}
    return config.substitute(spec.trial.lightning or {}, built_in | params, absent=names - params.keys())


def train(spec: StudySpec, params: dict[str, Scalar], *, seed: int, folder: Path) -> Completed | Pruned | Failed:
    """Run one trial, and show what Lightning shows; nothing is pruned.

    Raises:
        TrialError: the configuration cannot be built, or the model does not log an objective's metric.
        Exception: whatever the user's code raises.
    """
    callback = ReportAndPrune(
        metrics=[objective.metric for objective in spec.objectives],
        judge=None,
        tell_progress=lambda _: None,
        name="trial",
    )
    return lightning_runner.train(
        _configuration(spec, params, folder=folder),
        parser=lightning_parser.build_parser(),
        seed=seed,
        folder=folder,
        callback=callback,
        limited=[constraint.metric for constraint in spec.constraints or []],
        is_watched=True,
    )
