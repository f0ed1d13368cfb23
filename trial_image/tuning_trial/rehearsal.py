"""What can be known of a study without a database: whether its trials can be built, and how one of them runs."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytorch_lightning as pl
from jsonargparse import Namespace
from pydantic import ValidationError
from pytorch_lightning.utilities.model_helpers import is_overridden

from tuning_api.schema import Scalar
from tuning_api.spec import StudySpec
from tuning_trial import config, lightning_parser, lightning_runner, search
from tuning_trial.errors import InvalidConfigError, MisconfiguredError, UnreadableSpecError
from tuning_trial.outcomes import Completed, Failed, Pruned
from tuning_trial.pruning import ReportAndPrune

_STAND_IN = {"model": {"class_path": "pytorch_lightning.demos.boring_classes.BoringModel"}}
"""A model that always fits, so that the other parts are checked while the study's own model is at fault."""
_SAMPLES = 3
"""Draws on top of those that try each choice."""
_SEED = 0


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
    is_manifest = isinstance(document, dict) and "spec" in document
    try:
        return StudySpec.model_validate(document["spec"] if is_manifest else document)
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
    if spec.trial.lightning is None:
        yield "this trial image runs trial.lightning only, and the study has trial.objective"
        return
    try:
        search.build_sampler(spec.resolved_sampler, seed=_SEED, conditional=False)
        search.build_pruner(spec.resolved_pruner)
    except MisconfiguredError as error:
        yield str(error)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=_SEED))
    for fixed in [*search.every_choice(spec.search_space), *[{}] * _SAMPLES]:
        yield from _faults_of_trial(spec, study, fixed)


def _faults_of_trial(spec: StudySpec, study: optuna.Study, fixed: dict[str, Scalar]) -> Iterator[str]:
    try:
        complete = config.with_defaults(_configuration(spec, _choose(spec, study, fixed)), seed=_SEED, folder=Path())
    except (InvalidConfigError, ValueError) as error:
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
    yield from _faults_of_model(parsed)


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


def _choose(spec: StudySpec, study: optuna.Study, fixed: dict[str, Scalar]) -> dict[str, Scalar]:
    study.enqueue_trial(fixed)
    return search.suggest(study.ask(), spec.search_space)


def _configuration(
    spec: StudySpec, params: dict[str, Scalar], *, folder: Path = Path(), study: str = "study"
) -> dict[str, Any]:
    names = {parameter.name for parameter in spec.search_space}
    built_in: dict[str, Scalar] = {"trial.number": 0, "trial.dir": str(folder), "study.name": study}
    return config.substitute(spec.trial.lightning or {}, built_in | params, absent=names - params.keys())


def choose(spec: StudySpec, *, seed: int) -> dict[str, Scalar]:
    """The parameters of a first trial: the study's first known good point if there is one, and its sampler's draw."""
    conditional = any(parameter.when for parameter in spec.search_space)
    sampler = search.build_sampler(spec.resolved_sampler, seed=seed, conditional=conditional)
    return _choose(spec, optuna.create_study(sampler=sampler), (spec.enqueue or [{}])[0])


def train(spec: StudySpec, params: dict[str, Scalar], *, seed: int) -> Completed | Pruned | Failed:
    """Run one trial in this process, and show what Lightning shows; nothing is pruned, and nothing is kept.

    Raises:
        TrialError: the configuration cannot be built, or the model does not log an objective's metric.
        Exception: whatever the user's code raises.
    """
    folder = Path(tempfile.mkdtemp(prefix="trial-"))
    callback = ReportAndPrune(
        metrics=[objective.metric for objective in spec.objectives],
        judge=None,
        tell_progress=lambda _: None,
        name="trial",
    )
    try:
        return lightning_runner.train(
            _configuration(spec, params, folder=folder),
            parser=lightning_parser.build_parser(),
            seed=seed,
            folder=folder,
            callback=callback,
            is_watched=True,
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
