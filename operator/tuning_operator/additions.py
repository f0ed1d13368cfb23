"""Trials that are added to a study: any number of them in one transaction.

Optuna adds each in a transaction of some ten statements, and counts all that are there to give it its number.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime

from optuna.storages._rdb import models
from optuna.trial import FrozenTrial
from sqlalchemy import Connection, Table, func, insert, select

from tuning_api.tables import PARAMS, REPORTS, STUDIES, SYSTEM_ATTRIBUTES, TRIALS, USER_ATTRIBUTES, VALUES
from tuning_api.trial_rows import Row, attribute_rows, param_rows, report_rows, value_rows

_PARTS: Mapping[Table, Callable[[FrozenTrial], Iterable[Row]]] = {
    VALUES: lambda trial: value_rows(trial.values or ()),
    PARAMS: param_rows,
    REPORTS: report_rows,
    USER_ATTRIBUTES: lambda trial: attribute_rows(trial.user_attrs),
    SYSTEM_ATTRIBUTES: lambda trial: attribute_rows(trial.system_attrs),
}


def add(connection: Connection, study_id: int, trials: Sequence[FrozenTrial]) -> None:
    """Add trials to a study, behind those that it has.

    Args:
        connection: With a transaction, in which nothing else takes locks before.
        study_id: Optuna's number of the study.
        trials: In any state; their numbers and ids are not looked at.

    Raises:
        KeyError: there is no such study.
    """
    # As Optuna does: nobody else gives the same numbers meanwhile. And ids appear in their order: who has read a trial that
    # has ended never looks again for those before it (`optuna.storages._CachedStorage`).
    lock = select(STUDIES.c.study_id).where(STUDIES.c.study_id == study_id).with_for_update()
    if connection.execute(lock).first() is None:
        raise KeyError(models.NOT_FOUND_MSG)
    if not trials:
        return
    first = connection.scalar(select(func.count()).where(TRIALS.c.study_id == study_id)) or 0
    rows = [_row(study_id, number, trial) for number, trial in enumerate(trials, first)]
    statement = insert(TRIALS).returning(TRIALS.c.trial_id, sort_by_parameter_order=True)
    ids = connection.execute(statement, rows).scalars().all()
    for table, of_trial in _PARTS.items():
        parts = [
            {"trial_id": trial_id} | part
            for trial_id, trial in zip(ids, trials, strict=True)
            for part in of_trial(trial)
        ]
        if parts:
            connection.execute(insert(table), parts)


def _row(study_id: int, number: int, trial: FrozenTrial) -> Row:
    return {
        "study_id": study_id,
        "number": number,
        "state": trial.state,
        "datetime_start": _stored(trial.datetime_start),
        "datetime_complete": _stored(trial.datetime_complete),
    }


def _stored(moment: datetime | None) -> datetime | None:
    """Local time in a trial, and UTC in the database; neither says so."""
    return moment and moment.astimezone(UTC).replace(tzinfo=None)
