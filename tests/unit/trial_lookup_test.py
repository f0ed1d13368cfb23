"""What the user's modules do while they are imported."""

from pathlib import Path

import optuna
import pytest

from tuning_trial import lookup, objective_runner, rehearsal
from tuning_trial.errors import InvalidConfigError

SCRIPT = """
import optuna


def objective(trial):
    return trial.suggest_float("x", 0, 1)


study = optuna.create_study()
study.optimize(objective, n_trials=10**9)
"""


def test_a_script_that_optimizes_at_its_end_is_refused_with_the_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would run all of its trials before the first of ours, in silence."""
    (tmp_path / "optimizes_at_its_end.py").write_text(SCRIPT)
    monkeypatch.syspath_prepend(tmp_path)
    words = (
        'optimizes_at_its_end.py:10 calls study.optimize when it is imported: put it under if __name__ == "__main__":'
    )
    with pytest.raises(InvalidConfigError, match=r"^optimizes_at_its_end\.py:10 calls study\.optimize"):
        lookup.find_module("optimizes_at_its_end")
    with pytest.raises(InvalidConfigError, match=r"^trial\.objective: optimizes_at_its_end\.py:10 calls"):
        objective_runner.load("optimizes_at_its_end:objective")
    assert words in " ".join(rehearsal._faults_of_objective("optimizes_at_its_end:objective"))


def test_a_study_within_an_objective_is_optimized_as_ever() -> None:
    """Nested studies are a way to choose."""
    study = optuna.create_study()
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    assert len(study.trials) == 2
