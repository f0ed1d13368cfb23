"""What neither schema nor CEL can know, refused in words."""

from typing import Any

import pytest
from tests.support.builders import DIGITS_TRIAL, a_spec, a_spec_document

from tuning_operator.decide import validity

TWO_OBJECTIVES = [{"metric": "val_acc", "direction": "maximize"}, {"metric": "latency", "direction": "minimize"}]
NOT_YET = {
    "database": ({"database": {"secretName": "mine"}}, "spec.database"),
}


@pytest.mark.parametrize(("changes", "field"), NOT_YET.values(), ids=NOT_YET)
def test_what_this_version_cannot_do_is_said(changes: dict[str, Any], field: str) -> None:
    """The resource's whole shape is there from the start; nothing of it is ignored in silence."""
    fault = validity.fault(a_spec(**changes), None)
    assert fault == f"{field} is not supported by this version: remove it, or install a version that has it"


KEPT = [
    {"persistentVolumeClaim": "c", "keep": 3},
    {"uri": "file:///data/ckpts", "keep": 3},
]


@pytest.mark.parametrize("checkpoints", KEPT, ids=str)
def test_the_best_of_several_objectives_keep_no_checkpoints(checkpoints: dict[str, Any]) -> None:
    """A trial may come back to the Pareto front after its checkpoint was removed; with one objective it cannot."""
    trial = DIGITS_TRIAL | {"checkpoints": checkpoints}
    assert validity.fault(a_spec(trial=trial), None) is None
    fault = validity.fault(a_spec(trial=trial, objectives=TWO_OBJECTIVES), None) or ""
    assert fault.startswith("spec.trial.checkpoints.keep needs exactly one objective: ")


def test_an_objective_needs_no_search_space() -> None:
    """Its code suggests; but not for samplers that plan ahead."""
    trial = {"objective": "my.train:objective"}
    assert validity.fault(a_spec(trial=trial, searchSpace=[]), None) is None
    with pytest.raises(ValueError, match="takes its points from searchSpace, which is empty: use tpe or random"):
        a_spec(trial=trial, searchSpace=[], sampler={"type": "grid"})


SPACE = a_spec_document()["searchSpace"]
CHANGES = {
    "another objective": ({"objectives": [{"metric": "val_loss", "direction": "minimize"}]}, "spec.objectives differ"),
    "other constraints": ({"constraints": [{"metric": "latency", "upper": 50}]}, "spec.constraints differ"),
    "another model": (
        {"trial": {"lightning": {"model": "${learning_rate} ${hidden_dim}"}}},
        "spec.trial.lightning differs",
    ),
    "other choices": (
        {"searchSpace": [SPACE[0], SPACE[1] | {"choices": [8, 64]}]},
        "parameter hidden_dim has another type, log or choices",
    ),
    "another scale": (
        {"searchSpace": [SPACE[0] | {"log": False}, SPACE[1]]},
        "parameter learning_rate has another type",
    ),
}


@pytest.mark.parametrize(("changes", "words"), CHANGES.values(), ids=CHANGES)
def test_trials_that_cannot_be_compared_are_not_mixed(changes: dict[str, Any], words: str) -> None:
    """A re-created resource resumes its trials only if they answer the same question."""
    fault = validity.fault(a_spec(**changes), a_spec().to_document())
    assert fault is not None
    assert words in fault


@pytest.mark.parametrize(
    "changes",
    [
        {"maxTrials": 99},
        {"timeout": "2h"},
        {"stopWhen": {"target": 0.9, "noImprovementTrials": 5}},
        {"maxComputeSeconds": 60},
        {"warmStart": [{"name": "earlier"}]},
        {"parallelism": 8},
        {"suspend": True},
        {"pruner": {"type": "none"}},
        {"sampler": {"type": "random"}},
        {"searchSpace": [SPACE[0] | {"low": 1e-3}, SPACE[1]]},
    ],
    ids=str,
)
def test_what_may_change_while_running_may_change(changes: dict[str, Any]) -> None:
    """Wide first, then narrow; more trials, other pruner: the study goes on."""
    assert validity.fault(a_spec(**changes), a_spec().to_document()) is None
