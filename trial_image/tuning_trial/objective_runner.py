"""Runs an Optuna objective as people already have it: `trial.objective: package.module:function`.

The function gets a real `optuna.trial.Trial` of the trial that the worker claimed: it suggests, reports and prunes as
under `study.optimize`. What belongs to the study is refused in words: creating trials is the operator's.
"""

import inspect
import os
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import numpy as np
import optuna
from optuna.exceptions import TrialPruned
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, Trial

from tuning_trial import family, outcomes
from tuning_trial.errors import InvalidConfigError, nearest
from tuning_trial.late_reports import LateTrial
from tuning_trial.log import logger
from tuning_trial.lookup import find_module
from tuning_trial.outcomes import Completed, Failed, Pruned

Objective = Callable[[Trial], Any]

FOLDER = "TUNING_TRIAL_DIR"
"""Environment variable of an objective: a folder for what nobody needs after the trial."""
CHECKPOINTS = "TUNING_TRIAL_CHECKPOINTS"
"""Environment variable of an objective: a folder for what the trial goes on from when it was interrupted, and for what is
kept of the best (`trial.checkpoints`). Without trial.checkpoints it is a part of the first and goes with it."""


def load(path: str) -> Objective:
    """The function of a `package.module:function`.

    Raises:
        InvalidConfigError: there is none, with the nearest name that there is; or it cannot be called with a trial alone.
        Exception: whatever the module raises when it is imported.
    """
    module_name, _, name = path.partition(":")
    module = _import(module_name)
    found = getattr(module, name, None)
    if found is None:
        functions = [key for key, item in vars(module).items() if callable(item) and not key.startswith("_")]
        raise InvalidConfigError(
            f"trial.objective: module {module_name} has no function {name!r}{nearest(name, functions)}"
        )
    if fault := _fault(found):
        raise InvalidConfigError(f"trial.objective: {path} {fault}")
    function: Objective = found
    return function


def _import(name: str) -> ModuleType:
    family.join_unless_installed()
    try:
        return find_module(name)
    except InvalidConfigError as error:
        is_missing = isinstance(error.__cause__, ModuleNotFoundError)
        where = (
            "; it is looked for in the image, in trial.code, and beside the manifest of a local run"
            if is_missing
            else ""
        )
        raise InvalidConfigError(f"trial.objective: {error}{where}") from error


def _fault(found: object) -> str | None:
    if isinstance(found, type):
        return "is a class: name a function, or an instance that can be called with a trial"
    if not callable(found):
        return f"is no function, it is of type {type(found).__name__}"
    try:
        signature = inspect.signature(found)
    except (TypeError, ValueError):
        return None  # written in C, and without a signature
    try:
        signature.bind("trial")
    except TypeError:
        arguments = f"its arguments are {signature}" if signature.parameters else "it takes no argument"
        return f"is called with the trial and nothing else, and {arguments}"
    return None


def trial_of(
    study: optuna.Study,
    trial: FrozenTrial,
    *,
    sampler: BaseSampler,
    pruner: BasePruner,
    beat: Callable[[], None] = lambda: None,
) -> LateTrial:
    """The trial that an objective gets.

    Args:
        study: Has the storage.
        trial: What is known of it, which is RUNNING.
        sampler: Chooses the parameters that only the code knows.
        pruner: Answers `trial.should_prune`.
        beat: Called for each report.
    """
    return LateTrial(_StudyOfTrial(study, sampler=sampler, pruner=pruner), trial, beat=beat)


def run(
    objective: Objective,
    trial: Trial,
    *,
    metrics: Sequence[str],
    seed: int,
    folder: Path,
    checkpoints: Path | None,
) -> Completed | Pruned | Failed:
    """Call an objective, and read what it returns as Optuna does.

    Args:
        objective: From :func:`load`.
        trial: From :func:`trial_of`.
        metrics: A name for each value that it returns.
        seed: For the global random numbers of Python, numpy and torch: forks of one worker would all draw the same.
        folder: See :data:`FOLDER`.
        checkpoints: See :data:`CHECKPOINTS`; None when nothing durable was given.

    Raises:
        Exception: whatever the objective raises.
    """
    durable = checkpoints or folder / "checkpoints"
    for path in (folder, durable):
        path.mkdir(parents=True, exist_ok=True)
    os.environ |= {FOLDER: str(folder), CHECKPOINTS: str(durable)}
    _seed(seed)
    try:
        result = objective(trial)
    except TrialPruned:
        return Pruned()
    if unknown := [name for name in _enqueued(trial) if name not in trial.params]:
        logger.warning(
            "spec.enqueue gives %s, which the objective has not suggested: is it spelt so?", ", ".join(unknown)
        )
    return outcomes.returned(result, metrics=metrics)


def _enqueued(trial: Trial) -> Mapping[str, Any]:
    """What a person asked for, by name; empty for a trial of the sampler's own."""
    asked: Mapping[str, Any] = trial._cached_frozen_trial.system_attrs.get("fixed_params", {})  # noqa: SLF001
    return asked


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    if torch := sys.modules.get("torch"):  # an objective that does without is not made to wait for it
        torch.manual_seed(seed)


class _StudyOfTrial(optuna.Study):
    """The study as an objective sees it: it may read all of it, and change nothing but its own trial.

    NB: in Postgres the worker's role may not create trials, but it may claim those that wait: an objective that calls
    `study.optimize` would take them from the other workers.
    """

    def __init__(self, study: optuna.Study, *, sampler: BaseSampler, pruner: BasePruner) -> None:
        """NB: Optuna's own asks the database for what `study` knows already, and a fork would have to connect for it."""
        vars(self).update(vars(study))
        self._thread_local = type(study._thread_local)()  # noqa: SLF001
        self.sampler, self.pruner = sampler, pruner


_OPERATORS = "the operator creates trials, as many as spec.maxTrials says: remove the call"
_REFUSED = {
    "optimize": _OPERATORS,
    "ask": _OPERATORS,
    "add_trial": _OPERATORS,
    "add_trials": _OPERATORS,
    "enqueue_trial": "list known good points in spec.enqueue",
    "tell": "return the value, or raise optuna.TrialPruned",
    "stop": "say when the study ends by spec.maxTrials, spec.timeout or spec.stopWhen",
    "set_user_attr": "use trial.set_user_attr",
    "set_metric_names": "the names are those of spec.objectives",
}


def _refusing(name: str, instead: str) -> Callable[..., NoReturn]:
    def refuse(_study: optuna.Study, *_arguments: object, **_options: object) -> NoReturn:
        raise RuntimeError(f"an objective runs one trial and cannot call trial.study.{name}: {instead}")

    return refuse


for _name, _instead in _REFUSED.items():
    setattr(_StudyOfTrial, _name, _refusing(_name, _instead))
