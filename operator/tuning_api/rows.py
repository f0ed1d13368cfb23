"""Optuna's tables in a relational database, read by the row.

Optuna makes an object of each row of each table, asks each table by itself, and reads the text of each distribution twice.
A page of 10,000 trials, an operator that starts and a worker that joins a long study would wait for that, and so would
each trial, before which a worker looks at what has changed (ADR 0023).

NB: user code writes rows. What is beyond `row_limits`, or says nothing that Optuna could have written, is left out, and a line
of the log says so: whoever reads a study must neither need its memory nor stumble over it.
"""

import logging
import math
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from json import loads
from typing import Any, NamedTuple
from weakref import WeakValueDictionary, finalize

from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import (
    BindParameter,
    ColumnElement,
    CompoundSelect,
    Connection,
    Float,
    Integer,
    Row,
    Select,
    Table,
    Text,
    bindparam,
    case,
    cast,
    func,
    literal,
    null,
    or_,
    select,
    union_all,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import GenericFunction
from typing_extensions import override

from tuning_api import row_limits
from tuning_api.contract import OWNER_ATTRIBUTE, TRIAL_ATTRIBUTES
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

log = logging.getLogger(__name__)

_NO_NUMBER, _NO_NAME, _NO_VALUE = cast(null(), Integer), cast(null(), Text), cast(null(), Float)


class _Bytes(GenericFunction[int]):
    """How many bytes a text has. NB: SQLite has `octet_length` since 3.43 only."""

    name = "octet_length"
    type = Integer()
    inherit_cache = True


@compiles(_Bytes, "sqlite")
def _bytes_in_sqlite(element: _Bytes, compiler: SQLCompiler, **options: Any) -> str:
    return f"length(CAST({compiler.process(element.clauses, **options)} AS BLOB))"


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


@dataclass(frozen=True)
class Wanted:
    """What a reader wants to know of trials; by default all that a trial may write about itself."""

    user_attributes: Collection[str] | None = None
    """By name; None for all."""
    system_attributes: Collection[str] | None = None
    """By the beginning of the name; None for all."""
    longest_text: int = row_limits.LONGEST_TEXT
    """Bytes of an attribute."""
    most_bytes: int = row_limits.MOST_BYTES
    """Bytes of the attributes of a trial, of either kind."""
    most_reports: int = row_limits.MOST_REPORTS
    """Of a trial: of more an even choice is read, with the last one; 0 for none."""
    most_reports_of_all: int = 1_000_000
    """Of all trials that are read at once; if they have more, that many fewer are read of each."""


EVERYTHING = Wanted()
_FIRST = (
    (OWNER_ATTRIBUTE,),
    tuple(name for name in TRIAL_ATTRIBUTES if name not in row_limits.WORKERS_ATTRIBUTES),
    row_limits.WORKERS_ATTRIBUTES,
)
"""Attributes that are read before others, while a trial's are not too many."""
RESULTS = Wanted(
    user_attributes=TRIAL_ATTRIBUTES,
    system_attributes=("fixed_params", "constraints"),
    longest_text=2 * row_limits.LONGEST_FAILURE,
    most_bytes=4 * row_limits.LONGEST_FAILURE,
    most_reports=0,
)
"""For the operator: how trials ended, and what it has noted of them."""


def _texts_of(table: Table, trials: Any, wanted: Wanted) -> Select[Any]:
    """Parameters, or attributes of a kind, with their texts as far as they are within the limits; the others without."""
    name, content = (
        (PARAMS.c.param_name, PARAMS.c.distribution_json) if table is PARAMS else (table.c.key, table.c.value_json)
    )
    number, value = (PARAMS.c.param_id, PARAMS.c.param_value) if table is PARAMS else (_NO_NUMBER, _NO_VALUE)
    longest = row_limits.LONGEST_TEXT if table is PARAMS else wanted.longest_text
    most_bytes = row_limits.MOST_BYTES if table is PARAMS else wanted.most_bytes
    size = _Bytes(content)
    # Whatever else a trial has written, it is known who runs it, and what the operator has noted.
    in_order: dict[str, Any] = {
        "partition_by": table.c.trial_id,
        "order_by": (case(*((name.in_(names), place) for place, names in enumerate(_FIRST)), else_=len(_FIRST)), name),
    }
    rows = (
        select(
            table.c.trial_id,
            number.label("number"),
            name.label("name"),
            value.label("value"),
            content.label("content"),
            size.label("size"),
            func.sum(case((size <= longest, size), else_=0)).over(**in_order).label("bytes"),
            func.row_number().over(**in_order).label("place"),
        )
        .where(table.c.trial_id.in_(trials), _Bytes(name) <= row_limits.LONGEST_NAME)
        .where(*_named(table, wanted))
        .subquery()
    )
    fits = (rows.c.size <= longest) & (rows.c.bytes <= most_bytes)
    return select(
        literal(table.name), rows.c.trial_id, rows.c.number, rows.c.name, rows.c.value, case((fits, rows.c.content))
    ).where(rows.c.place <= row_limits.MOST_ROWS + len(row_limits.WORKERS_ATTRIBUTES))


def _named(table: Table, wanted: Wanted) -> Iterator[ColumnElement[bool]]:
    if table is USER_ATTRIBUTES and wanted.user_attributes is not None:
        yield USER_ATTRIBUTES.c.key.in_(wanted.user_attributes)
    if table is SYSTEM_ATTRIBUTES and wanted.system_attributes is not None:
        yield or_(*(SYSTEM_ATTRIBUTES.c.key.startswith(name, autoescape=True) for name in wanted.system_attributes))


def _parts_of(trials: Any, wanted: Wanted) -> CompoundSelect[Any]:
    """All that is wanted of some trials but their reports, in one statement."""
    values = select(
        literal(VALUES.name),
        VALUES.c.trial_id,
        VALUES.c.objective,
        _NO_NAME,
        VALUES.c.value,
        cast(VALUES.c.value_type, Text),
    ).where(VALUES.c.trial_id.in_(trials), VALUES.c.objective.between(0, row_limits.MOST_VALUES - 1))
    return union_all(
        values, *(_texts_of(table, trials, wanted) for table in (PARAMS, USER_ATTRIBUTES, SYSTEM_ATTRIBUTES))
    )


def _reports_of(trials: Any) -> Select[Any]:
    """The reports of some trials, at most so many of each: of more an even choice, with the last one."""
    in_order: dict[str, Any] = {"partition_by": REPORTS.c.trial_id, "order_by": REPORTS.c.step}
    rows = (
        select(
            REPORTS.c.trial_id,
            REPORTS.c.step,
            REPORTS.c.intermediate_value.label("value"),
            cast(REPORTS.c.intermediate_value_type, Text).label("kind"),
            func.row_number().over(**in_order).label("place"),
            func.count().over(partition_by=REPORTS.c.trial_id).label("of"),
        )
        .where(REPORTS.c.trial_id.in_(trials))
        .subquery()
    )
    most: BindParameter[int] = bindparam("most", type_=Integer)
    stride = (rows.c.of + most - 1) // most
    is_chosen = (rows.c.place % stride == 0) | (rows.c.place == rows.c.of)
    return select(rows.c.trial_id, rows.c.step, rows.c.value, rows.c.kind).where(is_chosen).limit(bindparam("in_all"))


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
_IDS_OF_CHOSEN = select(TRIALS.c.trial_id).where(_IS_CHOSEN)
LONGEST_OF_STUDY = 4 * 1024 * 1024
"""Bytes of an attribute of a study; the spec and the status are the API server's, which takes no more than 1.5 MB."""
_ATTRIBUTES_OF_STUDY = (
    select(
        STUDY_ATTRIBUTES.c.key,
        case((_Bytes(STUDY_ATTRIBUTES.c.value_json) <= LONGEST_OF_STUDY, STUDY_ATTRIBUTES.c.value_json)).label(
            "content"
        ),
    )
    .select_from(STUDIES.outerjoin(STUDY_ATTRIBUTES, STUDY_ATTRIBUTES.c.study_id == STUDIES.c.study_id))
    .where(STUDIES.c.study_id == bindparam("study_id"))
)
"""As above: a row without a key where the study has none."""
_ONE = select(*_COLUMNS).where(TRIALS.c.trial_id == bindparam("trial_id"))
_IDS: BindParameter[Any] = bindparam("ids", expanding=True)
_FEW = 20
"""Parts of more trials are taken from the database a few at a time, and not held all at once as they came."""
_ROWS_AT_A_TIME = 500
_MOST_NAMED = 500
"""Parts of so many trials are asked for by their ids. NB: of a query within the query Postgres does not know how few it
gives before it has looked at the table (ANALYZE), and reads whole tables."""


class RowStorage(RDBStorage):
    """Optuna's storage; what it gives is what `RDBStorage` gives, and a test compares the two."""

    def __init__(self, url: str, *, wanted: Wanted = EVERYTHING, **options: Any) -> None:
        """Open a database.

        Args:
            url: SQLAlchemy's.
            wanted: What is read of trials.
            options: Those of `RDBStorage`.
        """
        super().__init__(url, **options)
        self._wanted = wanted
        self._distributions = _Distributions()
        self._said: set[str] = set()

    @override
    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """Read what is noted of a study.

        Raises:
            KeyError: there is none of that id.
            StorageInternalError: the database does not answer, or refuses.
            ValueError: an attribute is no JSON.
        """
        with _create_scoped_session(self.scoped_session) as session:
            found = session.connection().execute(_ATTRIBUTES_OF_STUDY, {"study_id": study_id}).all()
        if not found:
            raise KeyError(models.NOT_FOUND_MSG)
        attributes = {}
        for row in found:
            if row.key is not None and row.content is None:
                self._say(
                    "study %s: attribute %r has more than %s bytes, and is left out",
                    study_id,
                    row.key,
                    LONGEST_OF_STUDY,
                )
            elif row.key is not None:
                attributes[row.key] = _json(row.content)
        return attributes

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

    def reports_of(self, trials: Sequence[FrozenTrial], wanted: Wanted = EVERYTHING) -> dict[int, dict[int, float]]:
        """Read what some trials have reported, by their ids, whether or not this storage reads reports.

        Raises:
            StorageInternalError: the database does not answer, or refuses.
        """
        found: dict[int, dict[int, float]] = {}
        with _create_scoped_session(self.scoped_session) as session:
            for part in _batched([trial._trial_id for trial in trials], _MOST_NAMED):  # noqa: SLF001 - there is no public way
                most = wanted.most_reports_of_all * len(part) // len(trials)
                share = replace(wanted, most_reports_of_all=most)
                found |= self._reports(session.connection(), share, _IDS, {"ids": part}, len(part))
        return found

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
            chosen, asked = (_IDS, {"ids": ids}) if are_few else (_IDS_OF_CHOSEN, asked)
            of = self._texts(connection, chosen, asked, len(ids))
            reports = self._reports(connection, self._wanted, chosen, asked, len(ids))
            return [self._frozen(row, of, reports) for row in found]

    def _texts(self, connection: Connection, chosen: Any, asked: dict[str, Any], count: int) -> "_Parts":
        of: _Parts = defaultdict(list)
        for row in _rows(connection, _parts_of(chosen, self._wanted), asked, are_few=count <= _FEW):
            part = _Part._make(row)
            of[part.table, part.trial_id].append(part)
        return of

    def _reports(
        self, connection: Connection, wanted: Wanted, chosen: Any, asked: dict[str, Any], count: int
    ) -> dict[int, dict[int, float]]:
        """The reports of some trials, by their ids; fewer of each where there are too many in all."""
        most, in_all = wanted.most_reports, wanted.most_reports_of_all
        if not most:
            return {}
        statement = _reports_of(chosen)
        for each in (most, max(1, in_all // count - 1)):
            # NB: most rows are reports. They are not kept: Python's garbage collector would look at each of them many times.
            found: dict[int, dict[int, float]] = defaultdict(dict)
            limits = {"most": each, "in_all": in_all + 1}
            read = 0
            for read, row in enumerate(  # noqa: B007 - how many there were
                _rows(connection, statement, asked | limits, are_few=count <= _FEW and each < row_limits.MOST_REPORTS),
                1,
            ):
                found[row.trial_id][row.step] = _report(row.value, row.kind)
            if read <= in_all:
                return found
            self._say(
                "%s trials have reported more than %s values: an even choice of each curve is read", count, in_all
            )
        return found

    def _frozen(self, row: Row[Any], of: "_Parts", reports: Mapping[int, dict[int, float]]) -> FrozenTrial:
        return FrozenTrial(
            trial_id=row.trial_id,
            number=row.number,
            state=row.state,
            value=None,
            values=_values(of.get((VALUES.name, row.trial_id), [])),
            datetime_start=_local(row.datetime_start),
            datetime_complete=_local(row.datetime_complete),
            **self._choices(of.get((PARAMS.name, row.trial_id), [])),
            user_attrs=self._attributes(of.get((USER_ATTRIBUTES.name, row.trial_id), [])),
            system_attrs=self._attributes(of.get((SYSTEM_ATTRIBUTES.name, row.trial_id), [])),
            intermediate_values=reports.get(row.trial_id, {}),
        )

    def _attributes(self, parts: list[_Part]) -> dict[str, Any]:
        found = {}
        for part in parts:
            try:
                found[part.name] = _attribute(part)
            except ValueError as error:
                self._say_left_out("attribute", part, error)
        return found

    def _choices(self, parts: list[_Part]) -> dict[str, dict[str, Any]]:
        """Parameters and their distributions, in the order in which they were suggested."""
        params, distributions = {}, {}
        for part in sorted(parts, key=lambda part: part.number):
            try:
                distribution = self._distributions.read(_text(part))
                params[part.name] = _external(distribution, part.value)
            except ValueError as error:
                self._say_left_out("parameter", part, error)
            else:
                distributions[part.name] = distribution
        return {"params": params, "distributions": distributions}

    def _say_left_out(self, what: str, part: _Part, error: ValueError) -> None:
        self._say("trial %s in the database: %s %s is left out: %s", part.trial_id, what, f"{part.name!r:.80}", error)

    def _say(self, words: str, *details: object) -> None:
        """Say something once. NB: trials that run are read again and again."""
        line = words % details
        if line not in self._said and len(self._said) < _MOST_SAID:
            self._said.add(line)
            log.warning("%s", line)


_Parts = dict[tuple[str, int], list[_Part]]
_MOST_SAID = 1000


def _batched(ids: Sequence[int], most: int) -> Iterator[Sequence[int]]:
    return (ids[start : start + most] for start in range(0, len(ids), most))


def _rows(connection: Connection, statement: Any, asked: dict[str, Any], *, are_few: bool) -> Iterator[Row[Any]]:
    if are_few:
        yield from connection.execute(statement, asked).all()
        return
    # NB: else the driver would hold all rows as they came, besides what is made of them.
    options = {"yield_per": _ROWS_AT_A_TIME}
    yield from connection.execute(statement, asked, execution_options=options)


def _text(part: _Part) -> str:
    if not isinstance(part.text, str):
        raise ValueError("it is larger than it may be, by itself or with the others of its trial")  # noqa: TRY004
    return part.text


def _json(text: str) -> Any:
    """What a text says.

    Raises:
        ValueError: it is no JSON, or nested so deep that Python gives up.
    """
    try:
        return loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def _attribute(part: _Part) -> Any:
    value = _json(_text(part))
    if part.table == SYSTEM_ATTRIBUTES.name and not _may_be_optunas(part.name, value):
        raise ValueError(f"Optuna writes no {type(value).__name__} of that name")
    return value


def _is_number(value: object) -> bool:
    """NB: JSON may have integers that are no floats, and NaN, which is neither more nor less than another number."""
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and (abs(value) < _LARGEST or abs(value) == math.inf)
    )


_LARGEST = 1e308


_IS_OF_OPTUNA: Sequence[tuple[re.Pattern[str], Callable[[Any], bool]]] = [
    (re.compile(r"fixed_params"), lambda value: isinstance(value, dict)),
    (re.compile(r"constraints:.*", re.DOTALL), _is_number),
    (re.compile(r"constraints"), lambda value: isinstance(value, list) and all(map(_is_number, value))),
    (re.compile(r"completed_rung_\d+"), _is_number),
    (re.compile(r".*[:_]generation"), lambda value: type(value) is int and 0 <= value < _MOST_GENERATIONS),
    (re.compile(r".*parent.*"), lambda value: isinstance(value, list) and all(type(item) is int for item in value)),
    (re.compile(r"(cma|cmawm|sepcma):optimizer:.*"), lambda value: isinstance(value, str)),
    (re.compile(r".*relative_params:\d+"), lambda value: isinstance(value, str)),
]
"""What Optuna's samplers and pruners take for granted of the attributes that they read from other trials."""
_MOST_GENERATIONS = 10**6


def _may_be_optunas(name: str, value: object) -> bool:
    return all(is_right(value) for pattern, is_right in _IS_OF_OPTUNA if pattern.fullmatch(name))


class _Distributions:
    """Reads the distributions of a database; trials share them, for as long as somebody has such a trial.

    NB: Optuna never changes one, and a copy of a trial has a copy of it.
    """

    def __init__(self) -> None:
        self._known: WeakValueDictionary[str, BaseDistribution] = WeakValueDictionary()
        self._bytes = 0

    def __reduce__(self) -> "tuple[type[_Distributions], tuple[()]]":
        """A copy, in this process or another one, knows nothing yet: weak references cannot be sent."""
        return _Distributions, ()

    def read(self, text: str) -> BaseDistribution:
        """The distribution of a text.

        Raises:
            ValueError: it is none, or there are too many different ones already.
        """
        if known := self._known.get(text):
            return known
        if self._bytes + len(text) > _MOST_OF_DISTRIBUTIONS:
            raise ValueError(f"all distributions have {_MOST_OF_DISTRIBUTIONS} bytes without it")
        try:
            choices = _json(text)["attributes"].get("choices", [])
            if not all(choice is None or isinstance(choice, str | int | float) for choice in choices):
                raise ValueError("its choices are neither texts nor numbers")
            "".join(choice for choice in choices if isinstance(choice, str)).encode()
            made = json_to_distribution(text)
        except (AttributeError, KeyError, TypeError, ArithmeticError, RecursionError) as error:
            raise ValueError(f"its distribution cannot be read ({type(error).__name__})") from error
        self._known[text] = made
        self._bytes += len(text)
        finalize(made, self._forget, len(text)).atexit = False
        return made

    def _forget(self, size: int) -> None:
        self._bytes -= size


_MOST_OF_DISTRIBUTIONS = 8 * 1024 * 1024


def _external(distribution: BaseDistribution, value: object) -> Any:
    """A parameter's value.

    Raises:
        ValueError: the distribution has none for this number.
    """
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"its value is {value}")
    try:
        return distribution.to_external_repr(value)
    except (ArithmeticError, LookupError, TypeError) as error:
        raise ValueError(f"its value is none of its distribution ({type(error).__name__})") from error


_INFINITE = {"INF_POS": math.inf, "INF_NEG": -math.inf}


def _values(parts: list[_Part]) -> list[float] | None:
    """The results of a trial, in the order of the objectives; None if one of them is no number."""
    in_order = sorted(parts, key=lambda part: part.number)
    values = [_INFINITE.get(part.text, part.value) for part in in_order]
    return values if values and not any(value is None or math.isnan(value) for value in values) else None


def _report(value: float | None, kind: str) -> float:
    """A value that was reported: Optuna stores one that is not a number as none."""
    return _INFINITE.get(kind, math.nan if value is None else value)


def _local(moment: datetime | None) -> datetime | None:
    """As Optuna has it: UTC in the database, and local time without a zone in a trial."""
    return moment and moment.replace(tzinfo=UTC).astimezone().replace(tzinfo=None)
