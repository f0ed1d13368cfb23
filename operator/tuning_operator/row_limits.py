"""The rules for how large a worker's rows may be, and how many a trial may have, as SQL that can be repeated.

They belong to `rights`, and like those bind the worker role alone. What they refuse is a `data_exception`, which Optuna
raises: an integrity error it would pass over, and an operational one the worker would wait for.

NB: named before `only_while_it_runs`, since triggers run in the order of their names: these take the lock on the trial that is
the stronger one. With it, several connections cannot each write as much as one may.
"""

from collections.abc import Iterator

from tuning_api import row_limits as limits
from tuning_api.tables import PARAMS, REPORTS, SYSTEM_ATTRIBUTES, USER_ATTRIBUTES, VALUES

_TEXTS = {
    USER_ATTRIBUTES: ("trial attribute", "key", "value_json"),
    SYSTEM_ATTRIBUTES: ("trial attribute of Optuna's", "key", "value_json"),
    PARAMS: ("parameter", "param_name", "distribution_json"),
}
"""Tables of texts: what a row is to a person, and the columns of its name and its text."""


def triggers(schema: str) -> Iterator[str]:
    """The rules of a schema. Its name comes from `naming.database_schema` and holds nothing but [a-z0-9_]."""
    is_worker = f"current_user OPERATOR(pg_catalog.=) '{schema}'::pg_catalog.name"
    for table, (what, name, text) in _TEXTS.items():
        body = _OF_TEXTS.format(schema=schema, table=table.name, name=name, text=text, **_words(what))
        yield rule_function(schema, f"limit_{table.name}", body, declared="size bigint; held bigint; bytes bigint;")
        yield _trigger(schema, table.name, is_worker)
    # Steps are whole numbers that differ, so that those within the limit need no counting, and a report takes no longer.
    yield rule_function(
        schema, f"limit_{REPORTS.name}", _OF_REPORTS.format(schema=schema, table=REPORTS.name, **_REPORT_WORDS)
    )
    is_far = f"(NEW.step OPERATOR(pg_catalog.<) 0 OR NEW.step OPERATOR(pg_catalog.>=) {limits.MOST_REPORTS})"
    yield _trigger(schema, REPORTS.name, f"{is_worker} AND {is_far}")
    yield rule_function(schema, f"limit_{VALUES.name}", _REFUSE.format(words=_quoted(limits.TOO_MANY_VALUES)))
    is_none = f"(NEW.objective OPERATOR(pg_catalog.<) 0 OR NEW.objective OPERATOR(pg_catalog.>=) {limits.MOST_VALUES})"
    yield _trigger(schema, VALUES.name, f"{is_worker} AND {is_none}")


def _trigger(schema: str, table: str, condition: str) -> str:
    return (
        f'CREATE OR REPLACE TRIGGER limit_rows BEFORE INSERT OR UPDATE ON "{schema}".{table} FOR EACH ROW'
        f' WHEN ({condition}) EXECUTE FUNCTION "{schema}".limit_{table}()'
    )


def rule_function(schema: str, name: str, body: str, *, declared: str = "") -> str:
    """Return the statement that makes the function of a rule, of these limits or of `rights`.

    NB: with a search path of its own, for the caller's may lead to operators that the caller has made. It names pg_temp,
    and last: where it is not named, temporary types and tables come first (PostgreSQL, "Writing SECURITY DEFINER Functions
    Safely").
    """
    return (
        f'CREATE OR REPLACE FUNCTION "{schema}".{name}() RETURNS trigger LANGUAGE plpgsql'
        " SET search_path = pg_catalog, pg_temp"
        f" AS $body$ {f'DECLARE {declared} ' if declared else ''}BEGIN {body} END $body$"
    )


def _words(what: str) -> dict[str, str]:
    """The sentences of a rule, those of `tuning_api.row_limits`; `%` is where a number or a name goes."""
    return {
        "bad_name": _quoted(limits.bad_name(what)),
        "too_long": _quoted(limits.too_long(what, "%", size=0).replace("has 0 bytes", "has % bytes")),
        "too_many": _quoted(limits.too_many(what)),
        "longest_name": str(limits.LONGEST_NAME),
        "longest_text": str(limits.LONGEST_TEXT),
        "most_rows": str(limits.MOST_ROWS),
        "most_bytes": str(limits.MOST_BYTES),
        "ours": ", ".join(map(_quoted, limits.WORKERS_ATTRIBUTES)),
    }


def _quoted(text: str) -> str:
    escaped = text.replace("'", "''")
    return f"'{escaped}'"


_REPORT_WORDS = {"words": _quoted(limits.TOO_MANY_REPORTS), "most": str(limits.MOST_REPORTS)}

# ruff: noqa: S608 - names of a schema and of tables, which no user chooses

_LOCK = """
PERFORM 1 FROM "{schema}".trials AS trial WHERE trial.trial_id = NEW.trial_id FOR NO KEY UPDATE;
"""

_REFUSE = """
RAISE EXCEPTION USING MESSAGE = {words}, ERRCODE = 'data_exception';
"""

_OF_TEXTS = (
    """
size := octet_length(NEW.{text});
IF NEW.{name} IS NULL OR size IS NULL OR octet_length(NEW.{name}) > {longest_name} THEN
  RAISE EXCEPTION USING MESSAGE = {bad_name}, ERRCODE = 'data_exception';
END IF;
IF size > {longest_text} THEN
  RAISE EXCEPTION {too_long}, left(NEW.{name}, 100), size USING ERRCODE = 'data_exception';
END IF;
IF NEW.{name} IN ({ours}) THEN
  RETURN NEW;
END IF;
"""
    + _LOCK
    + """
SELECT count(*), sum(octet_length(other.{text})) INTO held, bytes FROM "{schema}".{table} AS other
  WHERE other.trial_id = NEW.trial_id AND other.{name} <> NEW.{name} AND other.{name} NOT IN ({ours});
IF held >= {most_rows} OR coalesce(bytes, 0) + size > {most_bytes} THEN
  RAISE EXCEPTION USING MESSAGE = {too_many}, ERRCODE = 'data_exception';
END IF;
RETURN NEW;
"""
)

_OF_REPORTS = (
    _LOCK
    + """
IF (SELECT count(*) FROM (SELECT 1 FROM "{schema}".{table} AS other
  WHERE other.trial_id = NEW.trial_id AND other.step <> NEW.step LIMIT {most}) AS others) >= {most} THEN
  RAISE EXCEPTION USING MESSAGE = {words}, ERRCODE = 'data_exception';
END IF;
RETURN NEW;
"""
)
