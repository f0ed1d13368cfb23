"""A study that was run, read from its database; nothing here changes it."""

import os
import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import optuna
from optuna.storages._cached_storage import _CachedStorage

from tuning_api import contract, files, limits
from tuning_api.spec import Checkpoints, StudySpec
from tuning_api.store import Store, StoreError
from tuning_api.substitution import SubstitutionError, substitute
from tuning_operator.charts.source import StudyData, read_study
from tuning_operator.charts.wording import counted
from tuning_operator.cli.terminal import say
from tuning_operator.errors import DatabaseUnavailable
from tuning_operator.local.database import OneDatabase
from tuning_operator.local.errors import BadInputError
from tuning_operator.local.place import Place
from tuning_operator.local.progress import Progress, progress
from tuning_operator.remote.code import size_in_words

MOST_FILES, MOST_LEVELS = 10_000, 50
"""Of what a trial has left."""
_LONGEST_SHOWN = 200


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
    """Copy what is at a path below the place of all checkpoints, see :func:`copy_checkpoint`.

    Args:
        checkpoints: The place.
        path: What `tuning_api.contract.kept_path` has taken.
        number: The trial.
        namespace: The study's namespace.
        to: The copy, or the folder that it goes into.
    """
    if checkpoints.place is None:
        raise BadInputError(
            f"trial {number} left {path} on the claim {checkpoints.persistent_volume_claim} of namespace"
            f" {namespace}: mount the claim in a pod, and copy it with `kubectl cp`"
        )
    is_folder = path.endswith(".files")
    copy = to / PurePosixPath(path).name if to.is_dir() else to
    if is_folder and os.path.lexists(copy):
        raise BadInputError(f"{copy} is there already: remove it, or choose another with --checkpoint")
    where = checkpoints.location(path) if checkpoints.bucket else Path(checkpoints.place, path)
    try:
        if checkpoints.bucket:
            is_there = _download(Store(checkpoints.bucket), path, copy, is_folder=is_folder)
        else:
            is_there = _copy(Path(checkpoints.place), path, copy, is_folder=is_folder)
    except OSError as error:
        detail = f" ({error.filename})" if error.filename else ""
        raise BadInputError(f"{copy}: cannot be written: {error.strerror or error}{detail}") from error
    if not is_there:
        raise BadInputError(f"trial {number} left {where}, and it is not there any more, or not on this machine")
    return copy


def _kept(data: StudyData, number: int) -> tuple[Checkpoints, str]:
    """Where checkpoints are, and what a trial left there."""
    checkpoints = data.spec.trial.checkpoints if data.spec else None
    if checkpoints is None or not checkpoints.keep:
        raise BadInputError(f"study {data.name} keeps no checkpoints: set trial.checkpoints.keep before its trials run")
    attributes = next(trial.user_attrs for trial in data.trials if trial.number == number)
    written = attributes.get(contract.CHECKPOINT_ATTRIBUTE)
    if written is None:
        raise BadInputError(f"trial {number} left no checkpoint: keep was set later, or the worker's log says why")
    return checkpoints, kept_path(written, study=data.name, number=number)


def kept_path(written: object, *, study: str, number: int) -> str:
    """What a trial left, as a path below the place of all checkpoints.

    Raises:
        BadInputError: no worker can have written that.
    """
    path = contract.kept_path(written, study=study, trial=number)
    if path is None:
        words = limits.shortened(repr(written), most=_LONGEST_SHOWN)
        raise BadInputError(
            f"trial {number} says that it left {words}, which no worker writes: nothing is fetched; whoever wrote the"
            " trial's code has set its attribute"
        )
    return path


def _copy(place: Path, path: str, copy: Path, *, is_folder: bool) -> bool:
    source = place / path
    if not source.exists():
        return False
    # NB: others may write there, too, and a link may lead to what this person keeps elsewhere.
    source = files.resolved_below(source, place)
    temporary = copy.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        if is_folder:
            _copy_folder(source, temporary)
        else:
            _copy_file(source, temporary)
        temporary.rename(copy)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        with suppress(OSError):
            temporary.unlink()
    return True


def _copy_folder(source: Path, copy: Path) -> None:
    found = {
        file: files.resolved_below(file, source) for file in files.walk(source, most=MOST_FILES, levels=MOST_LEVELS)
    }
    copy.mkdir(parents=True)
    for file, real in found.items():
        target = copy / file.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        _copy_file(real, target)


def _copy_file(source: Path, copy: Path) -> None:
    with files.opened(source) as content, copy.open("xb") as target:
        shutil.copyfileobj(content, target)


def _download(store: Store, path: str, copy: Path, *, is_folder: bool) -> bool:
    def accept(sizes: Mapping[str, int]) -> None:
        """Say what comes, unless it is more than anybody wants or this machine has room for."""
        total, here = sum(sizes.values()), next(folder for folder in copy.absolute().parents if folder.is_dir())
        if len(sizes) > MOST_FILES:
            words = f"has {len(sizes):,} files, and at most {MOST_FILES:,} are fetched: use a tool of the bucket's"
            raise BadInputError(f"{store.uri}/{path} {words}")
        if total > (free := shutil.disk_usage(here).free):
            words = f"has {size_in_words(total)}, and {size_in_words(free)} are free in {here}"
            raise BadInputError(f"{store.uri}/{path} {words}")
        say(f"fetching {counted(len(sizes), 'file')} ({size_in_words(total)}) from {store.uri}/{path}", err=True)

    try:
        return store.get_folder(path, copy, accept=accept) if is_folder else store.get(path, copy, accept=accept)
    except StoreError as error:
        raise BadInputError(f"the checkpoint cannot be fetched: {error}") from error
