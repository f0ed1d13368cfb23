"""What a worker writes about a trial, in three transactions: it is taken, its parameters are chosen, it ends.

Optuna has no public call that only takes a waiting trial: `Study.ask` creates one when none waits, and so overshoots
the budget. And it writes each parameter, each attribute and the end by itself, in a transaction of several statements
(ADR 0024). The statements below use the tables of Optuna's own models, and tests
run them against the Optuna that is installed. Each transaction leaves all or nothing, and each may be repeated when its
answer was lost: no trial runs without an owner, none has half of its parameters, none ends without what is told of it.

On Postgres, `FOR UPDATE SKIP LOCKED` gives each of many workers another row. SQLite has no such clause and SQLAlchemy
leaves it out; there the guarded UPDATE decides.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import ColumnElement, Connection, Engine, Row, Select, Table, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from tuning_api.contract import OWNER_ATTRIBUTE, SPEC_ATTRIBUTE, Owner
from tuning_api.row_limits import MOST_REPORTS
from tuning_api.tables import PARAMS, REPORTS, STUDY_ATTRIBUTES, SYSTEM_ATTRIBUTES, TRIALS, USER_ATTRIBUTES, VALUES
from tuning_api.trial_rows import attribute_rows, param_rows, value_rows
from tuning_trial.outcomes import Record

_FIXED_PARAMS = "fixed_params"
"""Optuna's system attribute of a trial with given parameters: a known good point, or a retry."""
_Upsert = postgresql.Insert | sqlite.Insert
_INSERTS: dict[str, Callable[[Table], _Upsert]] = {"postgresql": postgresql.insert, "sqlite": sqlite.insert}


@dataclass(frozen=True)
class Claimed:
    """A trial that is ours now."""

    trial_id: int
    number: int
    spec: Any
    """The study's spec as a document, as it was then; None in a study that the operator did not make."""


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
            claimed = _claimed(row)
            if _take(connection, claimed, owner=owner, now=now()):
                return claimed


def unfinished(engine: Engine, *, study_id: int, owner: Owner) -> Claimed | None:
    """The trial that we took without knowing: the connection broke after the commit, before its answer."""
    statement = (
        select(*_columns(study_id))
        .join(USER_ATTRIBUTES, USER_ATTRIBUTES.c.trial_id == TRIALS.c.trial_id)
        .where(TRIALS.c.study_id == study_id, TRIALS.c.state == TrialState.RUNNING)
        .where(USER_ATTRIBUTES.c.key == OWNER_ATTRIBUTE, USER_ATTRIBUTES.c.value_json == _document(owner))
        .limit(1)
    )
    with engine.connect() as connection:
        row = connection.execute(statement).first()
    return _claimed(row) if row else None


def _claimed(row: Row[Any]) -> Claimed:
    return Claimed(trial_id=row.trial_id, number=row.number, spec=json.loads(row.spec) if row.spec else None)


def _columns(study_id: int) -> tuple[ColumnElement[Any], ...]:
    """The columns of a :class:`Claimed`."""
    spec = select(STUDY_ATTRIBUTES.c.value_json).where(
        STUDY_ATTRIBUTES.c.study_id == study_id, STUDY_ATTRIBUTES.c.key == SPEC_ATTRIBUTE
    )
    return TRIALS.c.trial_id, TRIALS.c.number, spec.scalar_subquery().label("spec")


def _first_waiting(study_id: int) -> Select[Any]:
    is_given = (
        select(SYSTEM_ATTRIBUTES.c.trial_id)
        .where(SYSTEM_ATTRIBUTES.c.trial_id == TRIALS.c.trial_id, SYSTEM_ATTRIBUTES.c.key == _FIXED_PARAMS)
        .exists()
    )
    return (
        select(*_columns(study_id))
        .where(TRIALS.c.study_id == study_id, TRIALS.c.state == TrialState.WAITING)
        .order_by(is_given.desc(), TRIALS.c.trial_id)
        .limit(1)
        .with_for_update(skip_locked=True, of=TRIALS)
    )


def _take(connection: Connection, claimed: Claimed, *, owner: Owner, now: datetime) -> bool:
    taken = connection.execute(
        update(TRIALS)
        .where(TRIALS.c.trial_id == claimed.trial_id, TRIALS.c.state == TrialState.WAITING)
        .values(state=TrialState.RUNNING, datetime_start=now)
    )
    if taken.rowcount != 1:
        return False
    connection.execute(
        insert(USER_ATTRIBUTES).values(trial_id=claimed.trial_id, key=OWNER_ATTRIBUTE, value_json=_document(owner))
    )
    return True


def choose(engine: Engine, trial: FrozenTrial, *, before: FrozenTrial) -> None:
    """Write the parameters of a trial, and what its attributes say of how they were chosen.

    Args:
        engine: The study's database.
        trial: With its parameters, their distributions, and all attributes.
        before: The trial as it was read; what is new is written.

    Raises:
        UpdateFinishedTrialError: the controller ended the trial meanwhile.
    """
    trial_id = trial._trial_id  # noqa: SLF001 - there is no public way
    rows = [{"trial_id": trial_id} | row for row in param_rows(trial)]
    with engine.begin() as connection:
        state = connection.execute(select(TRIALS.c.state).where(TRIALS.c.trial_id == trial_id).with_for_update())
        if state.scalar_one() is not TrialState.RUNNING:
            raise UpdateFinishedTrialError(f"trial {trial.number} does not run")
        if rows:
            connection.execute(_INSERTS[connection.dialect.name](PARAMS).on_conflict_do_nothing(), rows)
        _note(connection, USER_ATTRIBUTES, trial_id, _new(trial.user_attrs, before.user_attrs))
        _note(connection, SYSTEM_ATTRIBUTES, trial_id, _new(trial.system_attrs, before.system_attrs))


def _new(attributes: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in attributes.items() if key not in before or before[key] != value}


def reports(engine: Engine, trial_id: int) -> dict[int, float]:
    """What a trial has reported, by step, the latest as many as it may: of all that `RDBStorage.get_trial` reads, one table."""
    statement = (
        select(REPORTS.c.step, REPORTS.c.intermediate_value, REPORTS.c.intermediate_value_type)
        .where(REPORTS.c.trial_id == trial_id)
        .order_by(REPORTS.c.step.desc())
        .limit(MOST_REPORTS)
    )
    with engine.connect() as connection:
        rows = connection.execute(statement).all()
    to_value = models.TrialIntermediateValueModel.stored_repr_to_intermediate_value
    return {step: to_value(value, kind) for step, value, kind in rows}


def end(engine: Engine, trial_id: int, record: Record, *, now: Callable[[], datetime]) -> bool:
    """Write how a trial ended, and what is told of it.

    Args:
        engine: The study's database.
        trial_id: Optuna's number of the trial.
        record: State, values and attributes.
        now: The time, as for :func:`claim`.

    Returns:
        Whether the trial ran until now. If not, nothing is written: the controller was faster, or an attempt of ours whose
        answer was lost.
    """
    rows = [{"trial_id": trial_id} | row for row in value_rows(record.values)]
    with engine.begin() as connection:
        # NB: first, as the database lets a worker write about a trial that this very transaction has ended.
        ended = connection.execute(
            update(TRIALS)
            .where(TRIALS.c.trial_id == trial_id, TRIALS.c.state == TrialState.RUNNING)
            .values(state=record.state, datetime_complete=now())
        )
        if ended.rowcount != 1:
            return False
        _note(connection, USER_ATTRIBUTES, trial_id, record.attributes)
        _note(connection, SYSTEM_ATTRIBUTES, trial_id, record.system_attributes)
        if rows:
            connection.execute(insert(VALUES), rows)
    return True


def _note(connection: Connection, table: Table, trial_id: int, attributes: Mapping[str, Any]) -> None:
    """Write attributes, over those of the same name."""
    if not attributes:
        return
    statement = _INSERTS[connection.dialect.name](table)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["trial_id", "key"], set_={"value_json": statement.excluded.value_json}
        ),
        [{"trial_id": trial_id} | row for row in attribute_rows(attributes)],
    )


def _document(owner: Owner) -> str:
    return json.dumps(owner.to_document())
