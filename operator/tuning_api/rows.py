"""Optuna's tables in a relational database, read by the row.

Optuna makes an object of each row of each table, asks each table by itself, and reads the text of each distribution twice.
A page of 10,000 trials, an operator that starts and a worker that joins a long study would wait for that, and so would
each trial, before which a worker looks at what has changed (ADR 0023).
"""

from collections import defaultdict
from collections.abc import Container, Iterable
from datetime import UTC, datetime
from functools import lru_cache
from json import loads
from typing import Any, NamedTuple

from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import (
    BindParameter,
    ColumnElement,
    CompoundSelect,
    Float,
    Integer,
    Row,
    Select,
    Text,
    bindparam,
    cast,
    literal,
    null,
    or_,
    select,
    union_all,
)
from typing_extensions import override

from tuning_api.tables import (
    PARAMS,
    REPORTS,
    STUDIES,
    STUDY_ATTRIBUTES,
    SYSTEM_ATTRIBUTES,
    TRIALS,
    USER_ATTRIBUTES,
    VALUES,
)

_NO_NUMBER, _NO_NAME, _NO_VALUE = cast(null(), Integer), cast(null(), Text), cast(null(), Float)


class _Part(NamedTuple):
    """A row of what belongs to trials, whichever table it is of."""

    table: str
    trial_id: int
    number: int
    """A parameter's place, an objective's number, a report's step."""
    name: str
    value: Any
    """A float; None for a report that is not a number, and in attributes."""
    text: str
    """A distribution, what kind of number a value is, or an attribute."""


def _parts_of(trials: Select[Any] | BindParameter[Any]) -> CompoundSelect[Any]:
    """All that belongs to some trials, in one statement."""
    columns: dict[Any, tuple[ColumnElement[Any], ...]] = {
        PARAMS: (PARAMS.c.param_id, PARAMS.c.param_name, PARAMS.c.param_value, PARAMS.c.distribution_json),
        VALUES: (VALUES.c.objective, _NO_NAME, VALUES.c.value, cast(VALUES.c.value_type, Text)),
        REPORTS: (
            REPORTS.c.step,
            _NO_NAME,
            REPORTS.c.intermediate_value,
            cast(REPORTS.c.intermediate_value_type, Text),
        ),
        USER_ATTRIBUTES: (_NO_NUMBER, USER_ATTRIBUTES.c.key, _NO_VALUE, USER_ATTRIBUTES.c.value_json),
        SYSTEM_ATTRIBUTES: (_NO_NUMBER, SYSTEM_ATTRIBUTES.c.key, _NO_VALUE, SYSTEM_ATTRIBUTES.c.value_json),
    }
    return union_all(
        *(
            select(literal(table.name), table.c.trial_id, *rest).where(table.c.trial_id.in_(trials))
            for table, rest in columns.items()
        )
    )


_COLUMNS = tuple(TRIALS.c[name] for name in ("trial_id", "number", "state", "datetime_start", "datetime_complete"))
_IS_CHOSEN = (TRIALS.c.study_id == bindparam("study_id")) & or_(
    TRIALS.c.trial_id > bindparam("after"), TRIALS.c.trial_id.in_(bindparam("some", expanding=True))
)
_CHOSEN = (
    select(*_COLUMNS)
    .select_from(STUDIES.outerjoin(TRIALS, _IS_CHOSEN))
    .where(STUDIES.c.study_id == bindparam("study_id"))
    .order_by(TRIALS.c.trial_id)
)
"""A row without a trial where the study has none that is asked for; no row where there is no study."""
_PARTS_OF_CHOSEN = _parts_of(select(TRIALS.c.trial_id).where(_IS_CHOSEN))
_ATTRIBUTES_OF_STUDY = (
    select(STUDY_ATTRIBUTES.c.key, STUDY_ATTRIBUTES.c.value_json)
    .select_from(STUDIES.outerjoin(STUDY_ATTRIBUTES, STUDY_ATTRIBUTES.c.study_id == STUDIES.c.study_id))
    .where(STUDIES.c.study_id == bindparam("study_id"))
)
"""As above: a row without a key where the study has none."""
_ONE = select(*_COLUMNS).where(TRIALS.c.trial_id == bindparam("trial_id"))
_PARTS = _parts_of(bindparam("ids", expanding=True))
_MOST_NAMED = 500
"""Parts of so many trials are asked for by their ids. NB: of a query within the query Postgres does not know how few it
gives before it has looked at the table (ANALYZE), and reads whole tables."""


class RowStorage(RDBStorage):
    """Optuna's storage; what it gives is what `RDBStorage` gives, and a test compares the two."""

    @override
    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """Read what is noted of a study.

        Raises:
            KeyError: there is none of that id.
            StorageInternalError: the database does not answer, or refuses.
        """
        with _create_scoped_session(self.scoped_session) as session:
            found = session.connection().execute(_ATTRIBUTES_OF_STUDY, {"study_id": study_id}).all()
        if not found:
            raise KeyError(models.NOT_FOUND_MSG)
        return {row.key: loads(row.value_json) for row in found if row.key is not None}

    @override
    def get_trial(self, trial_id: int) -> FrozenTrial:
        """Read a trial.

        Raises:
            KeyError: there is none of that id.
            StorageInternalError: the database does not answer, or refuses.
        """
        return self._read(_ONE, {"trial_id": trial_id})[0]

    @override
    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        """Read trials in given states, None for all: those with a greater id, and those of the given ids.

        Raises:
            KeyError: there is no such study.
            StorageInternalError: the database does not answer, or refuses.
        """
        asked = {"study_id": study_id, "after": trial_id_greater_than, "some": list(included_trial_ids)}
        trials = self._read(_CHOSEN, asked)
        return trials if states is None else [trial for trial in trials if trial.state in states]

    def _read(self, trials: Select[Any], asked: dict[str, Any]) -> list[FrozenTrial]:
        with _create_scoped_session(self.scoped_session) as session:
            connection = session.connection()
            found = connection.execute(trials, asked).all()
            if not found:
                raise KeyError(models.NOT_FOUND_MSG)
            ids = [row.trial_id for row in found if row.trial_id is not None]
            if not ids:
                return []
            # NB: after the trials. A trial that had ended by then has all its parts.
            are_few = len(ids) <= _MOST_NAMED
            parts = connection.execute(_PARTS, {"ids": ids}) if are_few else connection.execute(_PARTS_OF_CHOSEN, asked)
            return _frozen(found, map(_Part._make, parts))


def _frozen(trials: Iterable[Row[Any]], parts: Iterable[_Part]) -> list[FrozenTrial]:
    of: dict[tuple[str, int], list[_Part]] = defaultdict(list)
    # NB: most rows are reports. They are not kept: Python's garbage collector would look at each of them many times.
    reports: dict[int, dict[int, float]] = defaultdict(dict)
    for part in parts:
        if part.table == REPORTS.name:
            reports[part.trial_id][part.number] = _report(part)
        else:
            of[part.table, part.trial_id].append(part)
    return [
        FrozenTrial(
            trial_id=row.trial_id,
            number=row.number,
            state=row.state,
            value=None,
            values=_values(of[VALUES.name, row.trial_id]),
            datetime_start=_local(row.datetime_start),
            datetime_complete=_local(row.datetime_complete),
            **_choices(of[PARAMS.name, row.trial_id]),
            user_attrs={part.name: loads(part.text) for part in of[USER_ATTRIBUTES.name, row.trial_id]},
            system_attrs={part.name: loads(part.text) for part in of[SYSTEM_ATTRIBUTES.name, row.trial_id]},
            intermediate_values=reports[row.trial_id],
        )
        for row in trials
    ]


def _values(parts: list[_Part]) -> list[float] | None:
    model = models.TrialValueModel
    in_order = sorted(parts, key=lambda part: part.number)
    return [model.stored_repr_to_value(part.value, model.TrialValueType[part.text]) for part in in_order] or None


def _report(part: _Part) -> float:
    model = models.TrialIntermediateValueModel
    return model.stored_repr_to_intermediate_value(part.value, model.TrialIntermediateValueType[part.text])


def _choices(parts: list[_Part]) -> dict[str, dict[str, Any]]:
    """Parameters and their distributions, in the order in which they were suggested."""
    in_order = sorted(parts, key=lambda part: part.number)
    distributions = {part.name: _distribution(part.text) for part in in_order}
    return {
        "params": {part.name: distributions[part.name].to_external_repr(part.value) for part in in_order},
        "distributions": distributions,
    }


@lru_cache(maxsize=1024)
def _distribution(text: str) -> BaseDistribution:
    """NB: trials share it. Optuna never changes one, and a copy of a trial has a copy of it."""
    return json_to_distribution(text)


def _local(moment: datetime | None) -> datetime | None:
    """As Optuna has it: UTC in the database, and local time without a zone in a trial."""
    return moment and moment.replace(tzinfo=UTC).astimezone().replace(tzinfo=None)
