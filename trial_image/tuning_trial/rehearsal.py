"""What can be known of a study without a database: whether its trials can be built, and how one of them runs."""

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import optuna
from optuna.trial import Trial
from pydantic import ValidationError

from tuning_api import limits
from tuning_api.schema import Scalar
from tuning_api.spec import StudySpec
from tuning_trial import objective_runner, outcomes, search
from tuning_trial.errors import MisconfiguredError, TrialError, UnreadableSpecError
from tuning_trial.outcomes import Completed, Failed, Pruned

_SAMPLES = 3
"""Draws on top of those that try each choice."""
_SEED = 0
BUILDING_SECONDS = 10.0
"""How long models are built: the first in any case, and those of further choices as long as this lasts."""


def read_spec(text: str) -> StudySpec:
    """Read a spec, or a manifest that has one.

    Raises:
        UnreadableSpecError: with a sentence for each fault.
    """
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        fault = f"line {error.lineno}, column {error.colno}: this is no JSON: {error.msg}"
        raise UnreadableSpecError([fault]) from error
    except RecursionError:
        raise UnreadableSpecError([limits.too_deep("document")]) from None
    is_manifest = isinstance(document, dict) and "spec" in document
    spec = document["spec"] if is_manifest else document
    if too_large := limits.fault_of(spec, path="spec"):
        raise UnreadableSpecError([too_large])
    try:
        return StudySpec.model_validate(spec)
    except ValidationError as error:
        faults = [
            ": ".join([".".join(["spec", *map(str, item["loc"])]), item["msg"].removeprefix("Value error, ")])
            for item in error.errors()
        ]
        raise UnreadableSpecError(faults) from error


def faults(spec: StudySpec) -> list[str]:
    """Why trials of this study would fail, as far as their configuration says: a sentence for each."""
    # One that differs only by the value that was drawn is the same.
    by_place: dict[str, str] = {}
    for fault in _faults(spec):
        by_place.setdefault(fault.partition(", and is ")[0], fault)
    return list(by_place.values())


def _faults(spec: StudySpec) -> Iterator[str]:
    try:
        search.build_sampler(spec.resolved_sampler, seed=_SEED, conditional=False)
        search.build_pruner(spec.resolved_pruner)
    except MisconfiguredError as error:
        yield str(error)
    if spec.trial.objective:
        yield from _faults_of_objective(spec.trial.objective)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=_SEED))
    started = time.monotonic()
    for number, fixed in enumerate([*search.every_choice(spec.search_space), *[{}] * _SAMPLES]):
        builds = not number or time.monotonic() < started + BUILDING_SECONDS
        yield from _faults_of_trial(spec, study, fixed, builds=builds)


def _faults_of_objective(path: str) -> Iterator[str]:
    """What can be said without calling it; a call is what `try` does."""
    try:
        objective_runner.load(path)
    except TrialError as error:
        yield str(error)
    except SystemExit as error:
        yield f"trial.objective: importing {path} ended the program (sys.exit({error.code!r}))"
    except Exception as error:  # noqa: BLE001 - the user's code may raise anything
        yield f"trial.objective: importing {path} raised {outcomes.failure_of(error, folders=sys.path).message}"


def _faults_of_trial(spec: StudySpec, study: optuna.Study, fixed: dict[str, Scalar], *, builds: bool) -> Iterator[str]:
    try:
        params = _choose(spec, _ask(study, fixed))
    except ValueError as error:
        yield str(error)
        return
    if spec.trial.lightning is not None:
        # Only here: torch takes seconds, and an objective may do without.
        from tuning_trial import lightning_rehearsal  # noqa: PLC0415

        yield from lightning_rehearsal.faults(spec, params, seed=_SEED, builds=builds)


def _ask(study: optuna.Study, fixed: dict[str, Scalar]) -> Trial:
    if fixed:
        study.enqueue_trial(fixed)
    return study.ask()


def _choose(spec: StudySpec, trial: Trial) -> dict[str, Scalar]:
    return search.suggest(trial, spec.search_space)


def begin(spec: StudySpec, *, seed: int) -> tuple[Trial, dict[str, Scalar]]:
    """A first trial: the study's first known good point if there is one, and its sampler's draw.

    Returns:
        The trial, and the parameters of the spec; an objective may choose more.
    """
    conditional = any(parameter.when for parameter in spec.search_space)
    study = optuna.create_study(
        directions=[objective.direction.value for objective in spec.objectives],
        sampler=search.build_sampler(spec.resolved_sampler, seed=seed, conditional=conditional),
        pruner=optuna.pruners.NopPruner(),
    )
    trial = _ask(study, (spec.enqueue or [{}])[0])
    return trial, _choose(spec, trial)


def run(spec: StudySpec, trial: Trial, params: dict[str, Scalar], *, seed: int) -> Completed | Pruned | Failed:
    """Run a trial in this process, and show what it shows; nothing is pruned, and nothing is kept.

    Raises:
        TrialError: the configuration cannot be built, or the model does not log an objective's metric.
        Exception: whatever the user's code raises.
    """
    folder = Path(tempfile.mkdtemp(prefix="trial-"))
    try:
        if spec.trial.objective is None:
            from tuning_trial import lightning_rehearsal  # noqa: PLC0415

            return lightning_rehearsal.train(spec, params, seed=seed, folder=folder)
        study = trial.study
        known = study.get_trials()[trial.number]
        return objective_runner.run(
            objective_runner.load(spec.trial.objective),
            objective_runner.trial_of(study, known, sampler=study.sampler, pruner=study.pruner),
            metrics=[objective.metric for objective in spec.objectives],
            seed=seed,
            folder=folder,
            checkpoints=None,
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
