"""Which trials keep their checkpoint, as tables; and that workers agree, whatever each of them knows."""

import math
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import FrozenTrial, TrialState, create_trial

from tuning_api.contract import COPIED_ATTRIBUTE
from tuning_api.search import Direction
from tuning_trial import checkpoints, keeping

COMPLETE, PRUNED, FAIL, RUNNING = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING
MAXIMIZE, MINIMIZE = Direction.MAXIMIZE, Direction.MINIMIZE


def a_trial(number: int, value: float | None, *, state: TrialState = COMPLETE, excess: float = 0.0) -> FrozenTrial:
    constraints = {"latency <= 1": excess}
    trial = create_trial(state=state, value=value, constraints=constraints)
    trial.number = number
    trial.datetime_start = datetime(2026, 1, 1)  # noqa: DTZ001 - as Optuna stores it
    return trial


def trials(*values: float | None) -> list[FrozenTrial]:
    return [a_trial(number, value, state=FAIL if value is None else COMPLETE) for number, value in enumerate(values)]


@pytest.mark.parametrize(
    ("values", "keep", "direction", "numbers"),
    [
        ((0.1, 0.9, 0.5), 2, MAXIMIZE, {1, 2}),
        ((0.1, 0.9, 0.5), 2, MINIMIZE, {0, 2}),
        ((0.5, 0.5, 0.5), 2, MAXIMIZE, {0, 1}),
        ((None, 0.9, None), 2, MAXIMIZE, {1}),
        ((math.inf, 0.5), 1, MAXIMIZE, {1}),
        ((0.1,), 0, MAXIMIZE, set()),
        ((), 3, MAXIMIZE, set()),
    ],
)
def test_the_best_complete_trials_keep_theirs(
    values: tuple[float | None, ...], keep: int, direction: Direction, numbers: set[int]
) -> None:
    """Of equals the first, as the status names the best."""
    assert keeping.best(trials(*values), keep=keep, direction=direction) == numbers


def test_only_results_of_the_study_itself_are_kept() -> None:
    """Not those that break a constraint, were pruned, run still, or come from an earlier study."""
    copied = a_trial(4, 0.9)
    copied.set_user_attr(COPIED_ATTRIBUTE, {"study": "earlier", "trial": 1})
    rows = [
        a_trial(0, 0.9, excess=0.1),
        a_trial(1, 0.9, state=PRUNED),
        create_trial(state=RUNNING),
        a_trial(3, 0.2),
        copied,
    ]
    assert keeping.best(rows, keep=5, direction=MAXIMIZE) == {3}


@pytest.mark.parametrize(
    ("value", "direction", "may"),
    [
        (0.6, MAXIMIZE, True),
        (0.5, MAXIMIZE, False),
        (0.4, MAXIMIZE, False),
        (0.4, MINIMIZE, True),
        (0.95, MINIMIZE, False),
    ],
)
def test_what_cannot_be_among_the_best_is_not_written_at_all(value: float, direction: Direction, may: bool) -> None:  # noqa: FBT001
    """A file of gigabytes that the next moment removes; an equal one came later."""
    assert keeping.may_be_kept(value, trials(0.5, 0.9), keep=2, direction=direction) is may


@given(
    values=st.lists(st.integers(0, 5), min_size=1, max_size=12),
    keep=st.integers(1, 4),
    direction=st.sampled_from(Direction),
    lags=st.lists(st.integers(0, 3), min_size=12, max_size=12),
)
def test_workers_that_look_at_different_moments_leave_the_same_files(
    values: list[int], keep: int, direction: Direction, lags: list[int]
) -> None:
    """Each trial's worker removes by what it saw, which may lack the last few; the last one sees all."""
    ended: list[FrozenTrial] = []
    files: set[int] = set()
    for number, value in enumerate(values):
        if keeping.may_be_kept(value, ended[: max(0, len(ended) - lags[number])], keep=keep, direction=direction):
            files.add(number)
        ended.append(a_trial(number, value))
        seen = ended if number == len(values) - 1 else ended[: len(ended) - min(lags[number], len(ended))]
        known = {trial.number for trial in seen}
        files -= known - keeping.best(seen, keep=keep, direction=direction)
    assert files == keeping.best(ended, keep=keep, direction=direction)


def test_all_files_of_a_trial_are_discarded_but_the_one_that_is_kept(tmp_path: Path) -> None:
    """What another trial of its lineage left, an objective's folder, and what a killed process had begun."""
    file = checkpoints.of_trial(tmp_path, study="digits", first=3)
    file.folder.mkdir(parents=True)
    for path in (file.path, file.final(3), file.final(9), file.folder / "model", tmp_path / "digits" / "trial-33.ckpt"):
        path.write_text("weights")
    (tmp_path / "digits" / "trial-3.final-9.ckpt.1a2b.tmp").touch()
    assert file.relative(file.final(9)) == "digits/trial-3.final-9.ckpt"
    file.discard(but="digits/trial-3.final-9.ckpt")
    assert sorted(path.name for path in (tmp_path / "digits").iterdir()) == ["trial-3.final-9.ckpt", "trial-33.ckpt"]
    file.discard()
    assert [path.name for path in (tmp_path / "digits").iterdir()] == ["trial-33.ckpt"]
