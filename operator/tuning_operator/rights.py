"""What the workers of a namespace may do in its schema, as SQL that can be repeated.

Grants say which tables and columns; triggers say which rows. What has ended stays as it is, trials begin to wait only by
the operator's hand, and the attributes that decide what counts against the budget are the operator's.

NB: triggers, not row-level security: a policy for UPDATE also hides rows from `SELECT ... FOR UPDATE`, with which Optuna
looks at a trial before it ends it, so that Optuna would miss the trial (KeyError) instead of finding that it has ended
(UpdateFinishedTrialError). And a policy that does not hold changes nothing in silence, where a trigger says no.
"""

from collections.abc import Iterator

from tuning_api.contract import (
    CANCELLED_ATTRIBUTE,
    COPIED_ATTRIBUTE,
    GIVEN_ATTRIBUTE,
    OWNER_ATTRIBUTE,
    REQUEUED_ATTRIBUTE,
    RETRY_OF_ATTRIBUTE,
)
from tuning_api.naming import CHARTS_ROLE
from tuning_operator import row_limits
from tuning_operator.row_limits import rule_function

OPERATORS_ATTRIBUTES = (
    REQUEUED_ATTRIBUTE,
    RETRY_OF_ATTRIBUTE,
    CANCELLED_ATTRIBUTE,
    COPIED_ATTRIBUTE,
    GIVEN_ATTRIBUTE,
)
"""Attributes of trials that only the operator writes: a trial that is marked lost or withdrawn does not count, so whoever
could write them could run trials without an end."""

_PARTS = {
    "trial_params": ("param_id", ()),
    "trial_values": ("trial_value_id", ("value", "value_type")),
    "trial_intermediate_values": (
        "trial_intermediate_value_id",
        ("intermediate_value", "intermediate_value_type"),
    ),
    "trial_user_attributes": ("trial_user_attribute_id", ("value_json",)),
    "trial_system_attributes": ("trial_system_attribute_id", ("value_json",)),
    "trial_heartbeats": ("trial_heartbeat_id", ("heartbeat",)),
}
"""What belongs to a trial: the key of each table, and the columns of a row that may change."""


def grants(schema: str, *, charts: bool) -> Iterator[str]:
    """What the worker role of a schema, which has the schema's name, may do; and what the charts server's may read.

    What an earlier version granted beyond that is taken back. Names come from `naming.database_schema` and hold nothing
    but [a-z0-9_]; DDL takes no bound parameters.
    """
    yield f'GRANT USAGE ON SCHEMA "{schema}" TO "{schema}"'
    yield f'REVOKE ALL ON ALL TABLES IN SCHEMA "{schema}" FROM "{schema}"'
    yield f'REVOKE ALL ON ALL SEQUENCES IN SCHEMA "{schema}" FROM "{schema}"'
    yield f'GRANT SELECT ON ALL TABLES IN SCHEMA "{schema}" TO "{schema}"'
    yield f'GRANT UPDATE (state, datetime_start, datetime_complete) ON "{schema}".trials TO "{schema}"'
    for table, (key, changing) in _PARTS.items():
        yield f'GRANT INSERT ON "{schema}".{table} TO "{schema}"'
        yield f'GRANT USAGE ON SEQUENCE "{schema}".{table}_{key}_seq TO "{schema}"'
        if changing:
            yield f'GRANT UPDATE ({", ".join(changing)}) ON "{schema}".{table} TO "{schema}"'
    if charts:
        yield f'GRANT USAGE ON SCHEMA "{schema}" TO "{CHARTS_ROLE}"'
        yield f'GRANT SELECT ON ALL TABLES IN SCHEMA "{schema}" TO "{CHARTS_ROLE}"'


def triggers(schema: str) -> Iterator[str]:
    """The rules for rows, which bind the worker role alone: the operator, and a person who mends by hand, are free."""
    is_worker = f"current_user = '{schema}'"
    yield rule_function(schema, "keep_ended_trials", _KEEP_ENDED_TRIALS)
    yield (
        f'CREATE OR REPLACE TRIGGER keep_ended_trials BEFORE UPDATE ON "{schema}".trials FOR EACH ROW'
        f" WHEN ({is_worker} AND (OLD.state NOT IN ('WAITING', 'RUNNING') OR NEW.state = 'WAITING'))"
        f' EXECUTE FUNCTION "{schema}".keep_ended_trials()'
    )
    yield rule_function(schema, "only_while_it_runs", _ONLY_WHILE_IT_RUNS.format(schema=schema))
    for table in _PARTS:
        yield (
            f'CREATE OR REPLACE TRIGGER only_while_it_runs BEFORE INSERT OR UPDATE ON "{schema}".{table} FOR EACH ROW'
            f' WHEN ({is_worker}) EXECUTE FUNCTION "{schema}".only_while_it_runs()'
        )
    keys = ", ".join(f"'{key}'" for key in OPERATORS_ATTRIBUTES)
    yield rule_function(schema, "keep_attributes", _KEEP_ATTRIBUTES)
    # Who runs a trial is said once, when it is claimed.
    for event, kept in (("INSERT", keys), ("UPDATE", f"{keys}, '{OWNER_ATTRIBUTE}'")):
        yield (
            f"CREATE OR REPLACE TRIGGER keep_attributes_on_{event.lower()} BEFORE {event}"
            f' ON "{schema}".trial_user_attributes FOR EACH ROW WHEN ({is_worker} AND NEW.key IN ({kept}))'
            f' EXECUTE FUNCTION "{schema}".keep_attributes()'
        )
    yield from row_limits.triggers(schema)


# NB: what a worker may do until another one, or the operator, ends the trial is an integrity error, which Optuna takes
# for what it is: somebody was faster. What it may never do is a missing privilege.

_KEEP_ENDED_TRIALS = """
RAISE EXCEPTION 'permission denied: trial % is %, and a worker cannot make it %', OLD.number, OLD.state, NEW.state
  USING ERRCODE = 'insufficient_privilege';
"""

_ONLY_WHILE_IT_RUNS = """
PERFORM 1 FROM "{schema}".trials AS trial WHERE trial.trial_id = NEW.trial_id
  -- Or it was ended by this very transaction: Optuna writes the state first and the values after it.
  AND (trial.state = 'RUNNING' OR trial.xmin = pg_catalog.pg_current_xact_id()::pg_catalog.xid)
  -- So that nobody ends it before this is committed.
  FOR SHARE;
IF NOT FOUND THEN
  RAISE EXCEPTION 'trial % does not run: what has ended stays as it is', NEW.trial_id USING ERRCODE = 'check_violation';
END IF;
RETURN NEW;
"""

_KEEP_ATTRIBUTES = """
RAISE EXCEPTION 'permission denied: a worker cannot write %', NEW.key USING ERRCODE = 'insufficient_privilege';
"""
