"""The state of CMA-ES in rows: read to the last digit, and never obeyed."""

import logging
import math
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cmaes
import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.samplers import CmaEsSampler
from optuna.trial import FrozenTrial

from tuning_api.search import Sampler
from tuning_trial import cmaes_state
from tuning_trial.cmaes_state import UnreadableState
from tuning_trial.samplers import CmaEs, build_sampler
from tuning_trial.search import trial_seed

BOUNDS = np.array([[0.0, 1.0]] * 3)
MEAN = np.full(3, 0.5)
STEPS = np.array([0.0, 0.25, 0.0])
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "with margin": {"with_margin": True},
    "separable": {"use_separable_cma": True},
    "with learning rates": {"lr_adapt": True},
    "of pruned trials": {"consider_pruned_trials": True},
    "of four": {"popsize": 4},
}
MAKE: dict[str, Callable[[int], Any]] = {
    "plain": lambda size: cmaes.CMA(MEAN, 0.2, BOUNDS, 30, 1, size),
    "with margin": lambda size: cmaes.CMAwM(MEAN, 0.2, BOUNDS, STEPS, 30, 1, size),
    "with no steps": lambda size: cmaes.CMAwM(MEAN, 0.2, BOUNDS, np.zeros(3), 30, 1, size),
    "separable": lambda size: cmaes.SepCMA(MEAN, 0.2, BOUNDS, 30, 1, size),
    "with learning rates": lambda size: cmaes.CMA(MEAN, 0.2, BOUNDS, 30, 1, size, lr_adapt=True),
}
PREFIX = "cma:optimizer"


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Optuna says each trial."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(before)


def points(build: type[CmaEsSampler], options: dict[str, Any], *, trials: int = 60) -> list[dict[str, Any]]:
    """The points of a study, whose sampler is made for each trial, as workers make it."""
    study = optuna.create_study(direction="maximize")
    for number in range(trials):
        study.sampler = build(seed=trial_seed(5, number), warn_independent_sampling=False, **options)
        trial = study.ask()
        x, y = trial.suggest_float("x", -3, 3), trial.suggest_float("y", 1e-4, 1, log=True)
        z = trial.suggest_int("z", 0, 9)
        trial.report(-x * x, 0)
        if number % 7 == 6 and options.get("consider_pruned_trials"):
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            study.tell(trial, -(x * x) - abs(math.log(y)) - (z - 4) ** 2)
    return [trial.params for trial in study.trials]


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_points_are_those_of_optuna_to_the_last_digit(options: dict[str, Any]) -> None:
    """Through more than six generations, each from a state that was read."""
    assert points(CmaEs, options) == points(CmaEsSampler, options)


def advanced(optimizer: Any, generations: int = 3) -> Any:
    """An optimizer that has learned something."""
    for _ in range(generations):
        told = [ask[1] if isinstance(ask := optimizer.ask(), tuple) else ask for _ in range(optimizer.population_size)]
        optimizer.tell([(x, float(np.sum((x - 0.3) ** 2))) for x in told])
    return optimizer


@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.parametrize("size", [4, 7, 30])
@pytest.mark.parametrize("variant", MAKE)
def test_a_state_is_read_as_it_was(variant: str, size: int, protocol: int) -> None:
    """It goes on as what Python reads, whatever its population. NB: a state has half of a matrix, rounded otherwise."""
    pickled = pickle.dumps(advanced(MAKE[variant](size)), protocol)
    told = []
    for optimizer in (pickle.loads(pickled), cmaes_state.read(pickled, make=MAKE[variant])):  # noqa: S301 - our own
        optimizer._rng.seed(3)
        told.append(np.asarray(advanced(optimizer, 2).ask()))
    assert np.array_equal(*told)


def test_a_state_of_an_older_numpy_is_read() -> None:
    """Its modules had another name."""
    pickled = pickle.dumps(advanced(MAKE["plain"](6)))
    old = pickled.replace(b"\x8c\x16numpy._core.multiarray", b"\x8c\x15numpy.core.multiarray")
    assert old != pickled
    assert cmaes_state.read(old, make=MAKE["plain"]).generation == 3


class Obeyed:
    """A pickle that calls a function of its choice."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.called = function, arguments

    def __reduce__(self) -> Any:
        return self.called


class OfObjects:
    """A number of numpy's, whose bytes numpy takes for a pickle."""

    def __init__(self, inner: bytes) -> None:
        self.inner = inner

    def __reduce__(self) -> Any:
        scalar = np.float64(1).__reduce__()[0]
        return scalar, (np.dtype("O"), self.inner)


def huge_array() -> bytes:
    """An array of 80 GB, which says nothing of what is in it."""
    reconstruct = np.zeros(1).__reduce__()[0]
    return pickle.dumps(Obeyed(reconstruct, np.ndarray, (10**10,), b"b"))


def with_attribute(**attributes: Any) -> bytes:
    """A state with other attributes."""
    optimizer = advanced(MAKE["plain"](6))
    vars(optimizer).update(attributes)
    return pickle.dumps(optimizer)


def attacks(file: Path) -> dict[str, bytes]:
    """States that end a worker, or do as somebody else says."""
    touch = Obeyed(os.system, f"touch {file}")
    good = pickle.dumps(advanced(MAKE["plain"](6)))
    return {
        "a program": pickle.dumps(touch),
        "a program in an attribute": with_attribute(_g=touch),
        "a program in a number of objects": pickle.dumps(OfObjects(pickle.dumps(touch))),
        "a program in an array of objects": with_attribute(_mean=np.array([touch] * 3, dtype=object)),
        "another function of numpy's": pickle.dumps(Obeyed(np.load, str(file))),
        "another class of cmaes": pickle.dumps(cmaes.XNES(MEAN, 0.2)),
        "another variant": pickle.dumps(MAKE["separable"](6)),
        "by its name alone": b"\x80\x04\x8c\tcmaes._cma\x8c\x03CMA\x93.",
        "an object of builtins": pickle.dumps(Obeyed(getattr, cmaes.CMA, "__init__")),
        "an array of eighty gigabytes": huge_array(),
        "memory by a number": b"\x80\x04Nr\xff\xff\xff\x7f.",
        "bytes by a number": b"\x80\x05\x96\xff\xff\xff\xff\xff\x00\x00\x00.",
        "a million instructions": b"\x80\x04" + b"N" * 10**6 + b".",
        "a tower of tuples": b"\x80\x04)" + b"\x85" * 4000 + b".",
        "itself": b"\x80\x04}\x94\x8c\x01a\x94h\x00s.",
        "other numbers of times": with_attribute(_n_max_resampling=10**12),
        "a population without weights": with_attribute(_popsize=10**9),
        "a negative population": with_attribute(_popsize=-1),
        "another dimension": pickle.dumps(cmaes.CMA(np.zeros(9), 1.0)),
        "a mean that is no number": with_attribute(_mean=np.array([np.nan] * 3)),
        "a mean without bounds": with_attribute(_mean=np.array([1e300] * 3)),
        "an infinite step": with_attribute(_sigma=math.inf),
        "a generation of text": with_attribute(_g="3"),
        "a generation without an end": with_attribute(_g=10**600),
        "integers for floats": with_attribute(_mean=np.array([1, 2, 3])),
        "an attribute too many": with_attribute(ask="me"),
        "half of it": good[: len(good) // 2],
        "nothing": b"",
        "its end alone": b".",
        "an empty stack": b"\x80\x04b.",
        "text": b"hello",
    }


@pytest.mark.parametrize("attack", attacks(Path("file")))
def test_what_no_worker_has_written_is_refused_and_does_nothing(attack: str, tmp_path: Path) -> None:
    """In words, without a call, and without more memory than it has itself."""
    file = tmp_path / "obeyed"
    with pytest.raises(UnreadableState):
        cmaes_state.read(attacks(file)[attack], make=MAKE["plain"])
    assert not file.exists()


@settings(max_examples=200)
@given(st.data())
def test_a_damaged_state_is_read_or_refused(data: st.DataObject) -> None:
    """Whatever bytes are changed."""
    pickled = bytearray(pickle.dumps(advanced(MAKE["plain"](4))))
    for _ in range(data.draw(st.integers(1, 4))):
        pickled[data.draw(st.integers(0, len(pickled) - 1))] = data.draw(st.integers(0, 255))
    try:
        read = cmaes_state.read(bytes(pickled), make=MAKE["plain"])
    except UnreadableState:
        return
    assert read.dim == 3


PARTS: dict[str, dict[str, Any]] = {
    "a part is missing": {f"{PREFIX}:0": "00", f"{PREFIX}:2": "00"},
    "a part has another name": {f"{PREFIX}:x": "00"},
    "a part is a number": {f"{PREFIX}:0": 7},
    "a part is nothing": {f"{PREFIX}:0": None},
    "it is not hexadecimal": {f"{PREFIX}:0": "zz"},
    "it has half a byte": {f"{PREFIX}:0": "000"},
    "it has too many digits": {f"{PREFIX}:0": "0" * (cmaes_state.LONGEST + 2)},
    "it is empty": {f"{PREFIX}:0": ""},
}


@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
def test_a_state_that_cannot_be_read_counts_as_none(parts: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    """The search goes on from the state before, and says it in one line; the worker lives."""
    caplog.set_level(logging.WARNING, logger="tuning_trial")
    honest, damaged = a_search(), a_search()
    last = damaged.get_trials(deepcopy=False)[-1]
    write(damaged, last, {name: value for name, value in last.system_attrs.items() if PREFIX not in name} | parts)
    write(honest, last, {name: value for name, value in last.system_attrs.items() if PREFIX not in name})
    assert asked(damaged) == asked(honest)
    (line,) = (record.getMessage() for record in caplog.records)
    assert line.startswith(f"the state of CMA-ES in trial {last.number} counts as none: ")


def test_a_search_without_a_state_that_can_be_read_begins_once_more(caplog: pytest.LogCaptureFixture) -> None:
    """Every row is garbage: the next trial has parameters all the same, and one line says so."""
    study = a_search()
    for trial in study.get_trials(deepcopy=False):
        write(study, trial, trial.system_attrs | {f"{PREFIX}:0": "80"})
    assert -3 <= asked(study)["x"] <= 3
    assert len([record for record in caplog.records if record.name == "tuning_trial"]) == 1


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("point", [None, "x", [], [0.5], [0.5, "y"], [0.5, math.nan], [0.5, 1e300], [[0.5], [0.5]]])
def test_a_result_that_cannot_be_learned_from_is_passed_over(point: Any) -> None:
    """With margin, what an optimizer is told stands in a row, too."""
    study = a_search(with_margin=True)
    for trial in study.get_trials(deepcopy=False)[::3]:
        write(study, trial, trial.system_attrs | {"x_for_tell": point})
    assert -3 <= asked(study, with_margin=True)["x"] <= 3


def a_search(trials: int = 43, **options: Any) -> optuna.Study:
    """A study whose last trial has a state."""
    study = optuna.create_study()
    for _ in range(trials):
        asked(study, **options)
    while not any(PREFIX.split(":")[1] in name for name in study.get_trials(deepcopy=False)[-1].system_attrs):
        asked(study, **options)
    return study


def asked(study: optuna.Study, **options: Any) -> dict[str, Any]:
    """The parameters of one more trial."""
    study.sampler = CmaEs(seed=7, warn_independent_sampling=False, **options)
    trial = study.ask()
    study.tell(trial, trial.suggest_float("x", -3, 3) ** 2 + trial.suggest_float("y", -3, 3) ** 2)
    return trial.params


def write(study: optuna.Study, trial: FrozenTrial, attributes: dict[str, Any]) -> None:
    """Change a trial that has ended, as only rows can be changed."""
    storage: Any = study._storage
    _, number = storage._trial_id_to_study_id_and_number[trial._trial_id]
    stored = storage._studies[study._study_id].trials[number]
    stored._system_attrs = attributes


def test_the_sampler_of_a_worker_is_this_one() -> None:
    """And not Optuna's, which unpickles."""
    assert type(build_sampler(Sampler.model_validate({"type": "cmaes"}), seed=1, conditional=False)) is CmaEs
