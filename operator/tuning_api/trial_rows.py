"""What a trial is as rows of Optuna's tables, but for the trial's id; tests compare with what Optuna writes."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from optuna.distributions import distribution_to_json
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial

Row = dict[str, Any]


def param_rows(trial: FrozenTrial) -> Iterator[Row]:
    """Its parameters."""
    for name, value in trial.params.items():
        distribution = trial.distributions[name]
        yield {
            "param_name": name,
            "param_value": distribution.to_internal_repr(value),
            "distribution_json": distribution_to_json(distribution),
        }


def value_rows(values: Iterable[float]) -> Iterator[Row]:
    """Its values."""
    for objective, value in enumerate(values):
        stored, kind = models.TrialValueModel.value_to_stored_repr(value)
        yield {"objective": objective, "value": stored, "value_type": kind}


def report_rows(trial: FrozenTrial) -> Iterator[Row]:
    """What it reported."""
    for step, value in trial.intermediate_values.items():
        stored, kind = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr(value)
        yield {"step": step, "intermediate_value": stored, "intermediate_value_type": kind}


def attribute_rows(attributes: Mapping[str, Any]) -> Iterator[Row]:
    """Attributes, of whichever table."""
    for key, value in attributes.items():
        yield {"key": key, "value_json": json.dumps(value)}
