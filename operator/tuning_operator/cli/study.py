"""A study that was run, read from its database; nothing here changes it."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.storages._cached_storage import _CachedStorage

from tuning_api.spec import StudySpec
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
