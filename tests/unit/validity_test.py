"""What neither schema nor CEL can know, refused in words."""

from typing import Any

import pytest
from tests.support.builders import DIGITS_TRIAL, a_spec, a_spec_document

from tuning_operator.decide import validity

TWO_OBJECTIVES = [{"metric": "val_acc", "direction": "maximize"}, {"metric": "latency", "direction": "minimize"}]
NOT_YET = {
    "objectives": ({"objectives": TWO_OBJECTIVES}, "spec.objectives with more than one objective"),
    "sampler": ({"sampler": {"type": "grid"}}, "spec.sampler.type grid"),
    "pruner": ({"pruner": {"type": "hyperband", "maxResource": 9}}, "spec.pruner.type hyperband"),
    "stopWhen": ({"stopWhen": {"target": 0.9}}, "spec.stopWhen"),
    "maxComputeSeconds": ({"maxComputeSeconds": 9}, "spec.maxComputeSeconds"),
    "enqueue": ({"enqueue": [{"hidden_dim": 8}]}, "spec.enqueue"),
    "warmStart": ({"warmStart": [{"name": "earlier"}]}, "spec.warmStart"),
    "objective": ({"trial": {"objective": "my.train:objective"}}, "spec.trial.objective"),
    "checkpoints in a bucket": (
        {"trial": DIGITS_TRIAL | {"checkpoints": {"uri": "s3://bucket/prefix"}}},
        "spec.trial.checkpoints.uri",
    ),
    "checkpoints of the best": (
        {"trial": DIGITS_TRIAL | {"checkpoints": {"persistentVolumeClaim": "c", "keep": 3}}},
        "spec.trial.checkpoints.keep above 0",
    ),
    "database": ({"database": {"secretName": "mine"}}, "spec.database"),
}


@pytest.mark.parametrize(("changes", "field"), NOT_YET.values(), ids=NOT_YET)
def test_what_this_version_cannot_do_is_said(changes: dict[str, Any], field: str) -> None:
    """The resource's whole shape is there from the start; nothing of it is ignored in silence."""
    fault = validity.fault(a_spec(**changes), None)
    assert fault == f"{field} is not supported by this version: remove it, or install a version that has it"


SPACE = a_spec_document()["searchSpace"]
CHANGES = {
    "another objective": ({"objectives": [{"metric": "val_loss", "direction": "minimize"}]}, "spec.objectives differ"),
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
