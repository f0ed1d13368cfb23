"""A study that was run, read from its database; nothing here changes it."""

import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import optuna
from optuna.storages._cached_storage import _CachedStorage

from tuning_api import contract
from tuning_api.spec import Checkpoints, StudySpec
from tuning_api.store import Store, StoreError
from tuning_api.substitution import SubstitutionError, substitute
from tuning_operator.charts.source import StudyData, read_study
from tuning_operator.errors import DatabaseUnavailable
from tuning_operator.local.database import OneDatabase
from tuning_operator.local.errors import BadInputError
from tuning_operator.local.place import Place
from tuning_operator.local.progress import Progress, progress


def load(place: Place) -> StudyData:
    """The study's rows.

    Raises:
        BadInputError: there are none, or the database cannot be read.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if place.database.get_backend_name() == "sqlite" and not Path(place.database.database or "").exists():
        raise BadInputError(f"study {place.key.name} has no trials yet: there is no {place.database.database}")
    try:
        rows = _CachedStorage(OneDatabase(place.database).open(place.key.namespace))
        return read_study(rows, namespace=place.key.namespace, study=place.key.name)
    except KeyError:
        raise BadInputError(f"the database has no study {place.key.name}: run it first") from None
    except DatabaseUnavailable as error:
        raise BadInputError(f"the database cannot be used: {error}") from error


def look(data: StudyData) -> Progress:
    """How far a study is."""
    return progress(data, status=data.status, workers=data.status.workers or 0, now=datetime.now(UTC))


def configured(data: StudyData, params: Mapping[str, Any], *, number: int) -> dict[str, Any]:
    """The LightningCLI configuration of a study with a trial's parameters.

    Raises:
        BadInputError: the study has none.
    """
    if data.spec and data.spec.trial.objective:
        raise BadInputError(
            f"study {data.name} has no configuration, its trials call {data.spec.trial.objective}:"
            f" `tuningstudy best {data.name} --json` prints the parameters, and the function takes them again as"
            " optuna.trial.FixedTrial(params)"
        )
    if data.spec is None or data.spec.trial.lightning is None:
        raise BadInputError(f"study {data.name} has no trial.lightning to fill in")
    return _filled_in(data.spec, params, number=number, study=data.name)


def _filled_in(spec: StudySpec, params: Mapping[str, Any], *, number: int, study: str) -> dict[str, Any]:
    """NB: a trial's own folder is gone; where the configuration names it, training writes beside where it is started."""
    built_in: dict[str, Any] = {"trial.number": number, "trial.dir": f"{study}-trial-{number}", "study.name": study}
    absent = {parameter.name for parameter in spec.search_space} - params.keys()
    try:
        return substitute(spec.trial.lightning or {}, built_in | dict(params), absent=absent)
    except SubstitutionError as error:
        raise BadInputError(str(error)) from error


def copy_checkpoint(data: StudyData, *, number: int, to: Path) -> Path:
    """Copy what a trial has left to be kept; of an objective that is a folder.

    Returns:
        The copy.

    Raises:
        BadInputError: nothing was kept, it cannot be reached from this machine, or it cannot be written.
    """
    checkpoints, path = _kept(data, number)
    return copy_kept(checkpoints, path, number=number, namespace=data.namespace, to=to)


def copy_kept(checkpoints: Checkpoints, path: str, *, number: int, namespace: str, to: Path) -> Path:
    """Copy what is at a path below the place of all checkpoints; see :func:`copy_checkpoint`."""
    if checkpoints.place is None:
        raise BadInputError(
            f"trial {number} left {path} on the claim {checkpoints.persistent_volume_claim} of namespace"
            f" {namespace}: mount the claim in a pod, and copy it with `kubectl cp`"
        )
    copy = to / PurePosixPath(path).name if to.is_dir() else to
    try:
        is_there = (
            _download(Store(checkpoints.bucket), path, copy) if checkpoints.bucket else _copy(checkpoints, path, copy)
        )
    except OSError as error:
        raise BadInputError(f"{copy}: cannot be written: {error.strerror or error}") from error
    if not is_there:
        where = checkpoints.location(path) if checkpoints.bucket else Path(checkpoints.place, path)
        raise BadInputError(f"trial {number} left {where}, and it is not there any more, or not on this machine")
    return copy


def _kept(data: StudyData, number: int) -> tuple[Checkpoints, str]:
    """Where checkpoints are, and what a trial left there."""
    checkpoints = data.spec.trial.checkpoints if data.spec else None
    if checkpoints is None or not checkpoints.keep:
        raise BadInputError(f"study {data.name} keeps no checkpoints: set trial.checkpoints.keep before its trials run")
    attributes = next(trial.user_attrs for trial in data.trials if trial.number == number)
    path = attributes.get(contract.CHECKPOINT_ATTRIBUTE)
    if not isinstance(path, str):
        raise BadInputError(f"trial {number} left no checkpoint: keep was set later, or the worker's log says why")
    return checkpoints, path


def _copy(checkpoints: Checkpoints, path: str, copy: Path) -> bool:
    source = Path(checkpoints.place or "", path)
    if not source.exists():
        return False
    if source.is_dir():
        shutil.copytree(source, copy)
    else:
        shutil.copyfile(source, copy)
    return True


def _download(store: Store, path: str, copy: Path) -> bool:
    try:
        return store.get_folder(path, copy) or store.get(path, copy)
    except StoreError as error:
        raise BadInputError(f"the checkpoint cannot be fetched: {error}") from error
