"""What the benchmarks compute from what they measured."""

from typing import Any

import pytest
from bench import pruning
from bench.pruning import Pair, Study

from tuning_api.spec import StudySpec


def a_study(*, seed: int, pruned: bool, epochs: int, best: float) -> Study:
    return Study(task="digits", seed=seed, pruned=pruned, trials=30, trials_pruned=9, epochs=epochs, best=best)


STUDIES = [
    a_study(seed=1, pruned=False, epochs=360, best=0.98),
    a_study(seed=0, pruned=True, epochs=180, best=0.97),
    a_study(seed=0, pruned=False, epochs=360, best=0.96),
    a_study(seed=1, pruned=True, epochs=270, best=0.98),
]


def test_studies_of_a_seed_are_compared_with_each_other() -> None:
    """In the order of the seeds, whichever ran first."""
    first, second = pruning.pairs(STUDIES)
    assert first == Pair(seed=0, epochs_without=360, epochs_with=180, best_without=0.96, best_with=0.97)
    assert (first.saved, first.gain) == (0.5, pytest.approx(0.01))
    assert (second.saved, second.gain) == (0.25, 0.0)


def test_the_table_ends_with_medians_and_their_range() -> None:
    """A single number would hide how much seeds differ."""
    *_, last = pruning.table("digits", STUDIES)
    assert "38% (25% to 50%)" in last
    assert "+0.0050 (+0.0000 to +0.0100)" in last


@pytest.mark.parametrize("task", pruning.TASKS)
@pytest.mark.parametrize("pruned", [True, False])
def test_the_studies_that_are_compared_differ_in_the_pruner_alone(task: str, *, pruned: bool) -> None:
    """And are valid."""
    document = pruning.with_seed(pruning.TASKS[task](), seed=7, pruned=pruned)
    spec = StudySpec.model_validate(document["spec"])
    assert spec.resolved_sampler.seed == 7
    assert (spec.resolved_pruner.type == "none") is not pruned
    other: dict[str, Any] = pruning.with_seed(pruning.TASKS[task](), seed=7, pruned=not pruned)
    assert document["spec"] | {"pruner": None} == other["spec"] | {"pruner": None}
