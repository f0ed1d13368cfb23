"""Plain Optuna objectives: found, called and understood, as tables."""

import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.pruners import MedianPruner, NopPruner
from optuna.samplers import RandomSampler
from optuna.trial import TrialState
from tests.support import trial_objectives

from tuning_trial import objective_runner, outcomes
from tuning_trial.errors import InvalidConfigError
from tuning_trial.outcomes import Completed, Failed, Pruned

MODULE = "tests.support.trial_objectives"


@pytest.mark.parametrize(
    ("result", "metrics", "values"),
    [
        (0.5, ["loss"], (0.5,)),
        (3, ["loss"], (3.0,)),
        (np.float32(0.25), ["loss"], (0.25,)),
        (np.array(0.25), ["loss"], (0.25,)),
        ([0.5], ["loss"], (0.5,)),
        ((1, 2.5), ["loss", "time"], (1.0, 2.5)),
    ],
)
def test_numbers_and_sequences_of_them_are_values(
    result: object, metrics: list[str], values: tuple[float, ...]
) -> None:
    """As Optuna takes them."""
    assert outcomes.returned(result, metrics=metrics) == Completed(values)


@pytest.mark.parametrize(
    ("result", "metrics", "reason", "message"),
    [
        (None, ["loss"], "InvalidValue", "the objective returned None as loss, which is no number"),
        ("0.5", ["loss"], "InvalidValue", "the objective returned '0.5' as loss, which is no number"),
        ({"loss": 1}, ["loss"], "InvalidValue", "the objective returned {'loss': 1} as loss, which is no number"),
        (1j, ["loss"], "InvalidValue", "the objective returned 1j as loss, which is no number"),
        (np.ones(2), ["loss"], "InvalidValue", "the objective returned array([1., 1.]) as loss, which is no number"),
        (10**400, ["loss"], "InvalidValue", "as loss, which is no number"),
        ("x" * 999, ["loss"], "InvalidValue", "x… as loss, which is no number"),
        ((1, None), ["loss", "time"], "InvalidValue", "the objective returned None as time, which is no number"),
        ((1, 2), ["loss"], "InvalidValue", "the objective returned (1, 2), and should return one value, loss"),
        ([], ["loss"], "InvalidValue", "the objective returned [], and should return one value, loss"),
        (
            0.5,
            ["loss", "time"],
            "InvalidValue",
            "the objective returned 0.5, and should return one value for each of loss, time",
        ),
        (math.nan, ["loss"], "NotFinite", "the objective returned nan as loss"),
        (math.inf, ["loss"], "NotFinite", "the objective returned inf as loss"),
        ((0, -math.inf), ["loss", "time"], "NotFinite", "the objective returned -inf as time"),
    ],
    ids=str,
)
def test_what_is_no_value_fails_the_trial_in_words(
    result: object, metrics: list[str], reason: str, message: str
) -> None:
    """A trial without a value must not look complete, and -inf must not be the best of a study for ever."""
    failed = outcomes.returned(result, metrics=metrics)
    assert isinstance(failed, Failed)
    assert failed.failure.reason == reason
    assert failed.failure.message.endswith(message)
    assert len(failed.failure.message) < 200


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (f"{MODULE}:quadratics", "has no function 'quadratics' (did you mean 'quadratic'?)"),
        (f"{MODULE}:nothing_like_it", "has no function 'nothing_like_it'"),
        (f"{MODULE}:A_NUMBER", "is no function, it is of type int"),
        (f"{MODULE}:Class", "is a class: name a function, or an instance that can be called with a trial"),
        (f"{MODULE}:no_trial", "is called with the trial and nothing else, and it takes no argument"),
        (
            f"{MODULE}:two_arguments",
            "is called with the trial and nothing else, and its arguments are (trial: optuna.trial._trial.Trial, data: str)",
        ),
        (
            "tests.support.trial_objective:quadratic",
            "there is no module 'tests.support.trial_objective' (did you mean 'tests.support.trial_objectives'?)",
        ),
        ("optunna.study:objective", "there is no module 'optunna' (did you mean 'optuna'?)"),
    ],
)
def test_an_objective_that_cannot_be_called_is_said_with_the_nearest_name(path: str, words: str) -> None:
    """Before any trial runs, by `validate`; and by every trial."""
    with pytest.raises(InvalidConfigError) as caught:
        objective_runner.load(path)
    assert str(caught.value).startswith("trial.objective: ")
    assert words in str(caught.value)


def test_a_module_that_their_module_lacks_is_their_own_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a misspelt objective: the traceback says which line imports it."""
    (tmp_path / "lacks_a_module.py").write_text("import no_such_library_of_theirs\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_library_of_theirs"):
        objective_runner.load("lacks_a_module:objective")


def test_an_instance_that_can_be_called_is_an_objective(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A way to give it data."""
    lines = "class Objective:\n    def __call__(self, trial):\n        return 1\n\nobjective = Objective()\n"
    (tmp_path / "an_instance.py").write_text(lines)
    monkeypatch.syspath_prepend(tmp_path)
    assert objective_runner.load("an_instance:objective")(object()) == 1  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _environment_of_this_test(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (objective_runner.FOLDER, objective_runner.CHECKPOINTS):
        monkeypatch.setenv(name, "")  # what a run sets is taken back


def a_trial(study: optuna.Study, **fixed: Any) -> optuna.Trial:
    if fixed:
        study.enqueue_trial(fixed)
    study.ask()
    return objective_runner.trial_of(study, study.get_trials()[-1], sampler=RandomSampler(seed=1), pruner=study.pruner)


def run(
    name: str, trial: optuna.Trial, folder: Path, *, metrics: tuple[str, ...] = ("value",), seed: int = 1
) -> object:
    objective = objective_runner.load(f"{MODULE}:{name}")
    return objective_runner.run(objective, trial, metrics=metrics, seed=seed, folder=folder / "trial", checkpoints=None)


def test_several_values_are_those_of_the_objectives(tmp_path: Path) -> None:
    """In their order."""
    study = optuna.create_study(directions=["minimize", "maximize"])
    assert run("two_values", a_trial(study, x=0.25), tmp_path, metrics=("a", "b")) == Completed((0.25, 0.75))


def test_a_name_of_enqueue_that_nothing_suggests_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Without a search space the objective alone knows its names: what is misspelt would be left aside in silence."""
    study = optuna.create_study(directions=["minimize", "maximize"])
    run("two_values", a_trial(study, x=0.25, lerning_rate=0.1), tmp_path, metrics=("a", "b"))
    assert "spec.enqueue gives lerning_rate, which the objective has not suggested" in caplog.text


def test_a_parameter_that_was_chosen_before_keeps_its_value(tmp_path: Path) -> None:
    """The spec's parameters come first; what the code suggests under the same name is that value."""
    study = optuna.create_study()
    asked = study.ask()
    chosen = asked.suggest_float("x", -10, 10)
    trial = objective_runner.trial_of(study, study.get_trials()[0], sampler=RandomSampler(seed=9), pruner=NopPruner())
    assert run("quadratic", trial, tmp_path) == Completed(((chosen - 2) ** 2,))


def test_the_pruner_is_asked_and_its_answer_is_a_pruned_trial(tmp_path: Path) -> None:
    """By optuna.TrialPruned, which is no failure."""
    study = optuna.create_study(direction="maximize", pruner=MedianPruner(n_startup_trials=1))
    first = a_trial(study, scenario="is good", quality=0.9)
    study.tell(first.number, run("scenario", first, tmp_path).values)  # type: ignore[attr-defined]
    assert run("scenario", a_trial(study, scenario="is good", quality=0.1), tmp_path) == Pruned()


@pytest.mark.parametrize("name", list(objective_runner._REFUSED))
def test_what_would_change_the_study_is_refused_with_what_to_do_instead(name: str) -> None:
    """Its trials are the operator's; a nested `study.optimize` would take them from the other workers."""
    trial = a_trial(optuna.create_study())
    with pytest.raises(RuntimeError, match=rf"an objective runs one trial and cannot call trial\.study\.{name}: \w+"):
        getattr(trial.study, name)("anything", n_trials=1)


def test_the_study_can_be_read() -> None:
    """Its trials, its best value, its attributes: an objective may look at what others found."""
    study = optuna.create_study()
    study.add_trial(optuna.trial.create_trial(state=TrialState.COMPLETE, value=0.5))
    study.set_user_attr("known", 1)
    seen = a_trial(study).study
    assert (seen.best_value, len(seen.trials), seen.user_attrs) == (0.5, 2, {"known": 1})
    assert isinstance(seen, optuna.Study)


def test_global_random_numbers_follow_the_trials_seed(tmp_path: Path) -> None:
    """All forks of one worker would begin with the same ones."""
    drawn = []
    for seed in (1, 1, 2):
        run("quadratic", a_trial(optuna.create_study()), tmp_path, seed=seed)
        drawn.append((random.random(), float(np.random.rand())))
    assert drawn[0] == drawn[1] != drawn[2]


def test_an_objective_finds_its_folders_in_the_environment(tmp_path: Path) -> None:
    """Both are there: code that saves its state needs no case for a study without a place for checkpoints."""
    study = optuna.create_study()
    assert run("saves", a_trial(study, x=0.5), tmp_path) == Completed((0.5,))
    assert (tmp_path / "trial" / "checkpoints" / "model.txt").read_text() == "0.5"
    durable = tmp_path / "durable"
    objective_runner.run(
        trial_objectives.saves,
        a_trial(study, x=0.25),
        metrics=["value"],
        seed=1,
        folder=tmp_path / "trial",
        checkpoints=durable,
    )
    assert (durable / "model.txt").read_text() == "0.25"
