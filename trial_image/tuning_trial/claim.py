"""How a worker takes a trial: in one transaction, and without ever creating one.

Optuna has no public call that only takes a waiting trial: `Study.ask` creates one when none waits, and so overshoots
the budget. The statements below use the tables of Optuna's own models, and a test runs them against the Optuna that is
installed. The transaction also writes who took the trial, so that no trial runs without an owner.

On Postgres, `FOR UPDATE SKIP LOCKED` gives each of many workers another row. SQLite has no such clause and SQLAlchemy
leaves it out; there the guarded UPDATE decides.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from optuna.storages._rdb import models
from optuna.trial import TrialState
from sqlalchemy import Connection, Engine, Select, insert, select, update

from tuning_api.contract import OWNER_ATTRIBUTE, Owner

_TRIALS = models.TrialModel.__table__
_USER_ATTRIBUTES = models.TrialUserAttributeModel.__table__
_SYSTEM_ATTRIBUTES = models.TrialSystemAttributeModel.__table__
_FIXED_PARAMS = "fixed_params"
"""Optuna's system attribute of a trial with given parameters: a known good point, or a retry."""


@dataclass(frozen=True)
class Claimed:
    """A trial that is ours now."""

    trial_id: int
    number: int


def claim(engine: Engine, *, study_id: int, owner: Owner, now: Callable[[], datetime]) -> Claimed | None:
    """Take a waiting trial: given parameters first, then in the order in which they were added.

    Args:
        engine: The study's database.
        study_id: Optuna's number of the study.
        owner: Who takes it.
        now: The time, naive and in UTC, as Optuna stores it since 5.0.

    Returns:
        The trial, which is RUNNING from now on, or None when none waits.
    """
    while True:
        with engine.begin() as connection:
            row = connection.execute(_first_waiting(study_id)).first()
            if row is None:
                return None
            claimed = Claimed(trial_id=row.trial_id, number=row.number)
            if _take(connection, claimed, owner=owner, now=now()):
                return claimed


def unfinished(engine: Engine, *, study_id: int, owner: Owner) -> Claimed | None:
    """The trial that we took without knowing: the connection broke after the commit, before its answer."""
    statement = (
        select(_TRIALS.c.trial_id, _TRIALS.c.number)
        .join(_USER_ATTRIBUTES, _USER_ATTRIBUTES.c.trial_id == _TRIALS.c.trial_id)
        .where(_TRIALS.c.study_id == study_id, _TRIALS.c.state == TrialState.RUNNING)
        .where(_USER_ATTRIBUTES.c.key == OWNER_ATTRIBUTE, _USER_ATTRIBUTES.c.value_json == _document(owner))
        .limit(1)
    )
    with engine.connect() as connection:
        row = connection.execute(statement).first()
    return Claimed(trial_id=row.trial_id, number=row.number) if row else None


def _first_waiting(study_id: int) -> Select[Any]:
    is_given = (
        select(_SYSTEM_ATTRIBUTES.c.trial_id)
        .where(_SYSTEM_ATTRIBUTES.c.trial_id == _TRIALS.c.trial_id, _SYSTEM_ATTRIBUTES.c.key == _FIXED_PARAMS)
        .exists()
    )
    return (
        select(_TRIALS.c.trial_id, _TRIALS.c.number)
        .where(_TRIALS.c.study_id == study_id, _TRIALS.c.state == TrialState.WAITING)
        .order_by(is_given.desc(), _TRIALS.c.trial_id)
        .limit(1)
        .with_for_update(skip_locked=True, of=_TRIALS)
    )


def _take(connection: Connection, claimed: Claimed, *, owner: Owner, now: datetime) -> bool:
    taken = connection.execute(
        update(_TRIALS)
        .where(_TRIALS.c.trial_id == claimed.trial_id, _TRIALS.c.state == TrialState.WAITING)
        .values(state=TrialState.RUNNING, datetime_start=now)
    )
    if taken.rowcount != 1:
        return False
    connection.execute(
        insert(_USER_ATTRIBUTES).values(trial_id=claimed.trial_id, key=OWNER_ATTRIBUTE, value_json=_document(owner))
    )
    return True


def _document(owner: Owner) -> str:
    return json.dumps(owner.to_document())
