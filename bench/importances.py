"""How well importances tell what is known: functions whose Sobol indices have a formula, and the digits.

Compared are the importances of this project with each of Optuna's evaluators, on the same trials. What is true is the index of
the total effect (Homma and Saltelli, 1996): how much of the values' variance is lost when all but this parameter are known.
"""

import json
import math
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import yaml
from optuna.importance import (
    FanovaImportanceEvaluator,
    MeanDecreaseImpurityImportanceEvaluator,
    PedAnovaImportanceEvaluator,
    get_param_importances,
)
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, Trial

from bench.aim import Aim
from bench.pruning import digits, with_seed
from tuning_operator.importances import importances, shares

Document = dict[str, Any]

TITLE = "Whether importances hold"
ABOUT = """\
Four functions whose importances have a formula: Ishigami's (three parameters, one of which acts through another alone), Sobol's
g (six, of which two matter), a sum of five, and one with a logarithmic parameter, choices, whole numbers and a parameter that
only one choice has. Each is searched at random and by TPE; after 30, 100 and 300 trials the importances are ranked, and the
ranks correlated (Spearman) with those of the indices of the total effect. Ours stand beside Optuna's evaluators, each as it is
by default, on the same trials. The digits are the sample `manifests/samples/digits.yaml`, run by `tuningstudy run` with another
seed each: 30 trials, about half of them pruned, and the learning rate, over three decades, is what matters. `LONGER=1` takes
ten seeds of all instead of three.
"""
OURS = "ours"
SIZES = (30, 100, 300)
SECONDS_PER_STUDY = 1800
WANTED_OF_TEN = 9

_COEFFICIENTS_OF_G = (0.0, 1.0, 4.5, 9.0, 49.0, 99.0)
_COEFFICIENTS_OF_SUM = (5.0, 4.0, 3.0, 2.0, 1.0)
_OPTIMIZERS = {"adam": 0.0, "adamw": 0.1, "sgd": 0.6}
_ACTIVATIONS = {"relu": 0.0, "gelu": 0.05, "tanh": 0.15}


@dataclass(frozen=True)
class Function:
    """What is searched, and what is true of it."""

    value: Callable[[Trial], float]
    truth: Mapping[str, float]
    """Sobol's index of each parameter's total effect."""


def _ishigami(trial: Trial) -> float:
    one, two, three = (trial.suggest_float(f"x{at}", -math.pi, math.pi) for at in (1, 2, 3))
    return math.sin(one) + 7 * math.sin(two) ** 2 + 0.1 * three**4 * math.sin(one)


def _truth_of_ishigami() -> dict[str, float]:
    first, second = (1 + 0.1 * math.pi**4 / 5) ** 2 / 2, 7**2 / 8
    both = 0.1**2 * math.pi**8 * (1 / 18 - 1 / 50)
    whole = first + second + both
    return {"x1": (first + both) / whole, "x2": second / whole, "x3": both / whole}


def _g(trial: Trial) -> float:
    places = [trial.suggest_float(f"x{at}", 0, 1) for at in range(len(_COEFFICIENTS_OF_G))]
    return math.prod((abs(4 * x - 2) + a) / (1 + a) for x, a in zip(places, _COEFFICIENTS_OF_G, strict=True))


def _truth_of_g() -> dict[str, float]:
    single = [1 / 3 / (1 + a) ** 2 for a in _COEFFICIENTS_OF_G]
    product = math.prod(1 + variance for variance in single)
    return {f"x{at}": own * product / (1 + own) / (product - 1) for at, own in enumerate(single)}


def _sum(trial: Trial) -> float:
    return math.fsum(c * trial.suggest_float(f"x{at}", 0, 1) for at, c in enumerate(_COEFFICIENTS_OF_SUM))


def _truth_of_sum() -> dict[str, float]:
    whole = math.fsum(c**2 for c in _COEFFICIENTS_OF_SUM)
    return {f"x{at}": c**2 / whole for at, c in enumerate(_COEFFICIENTS_OF_SUM)}


def _mixed(trial: Trial) -> float:
    optimizer = trial.suggest_categorical("optimizer", list(_OPTIMIZERS))
    exponent = (math.log10(trial.suggest_float("learning_rate", 1e-5, 1e-1, log=True)) + 5) / 4
    value = _OPTIMIZERS[optimizer] + 4 * (exponent - 0.6) ** 2
    value += _ACTIVATIONS[trial.suggest_categorical("activation", list(_ACTIVATIONS))]
    value += 0.05 * trial.suggest_int("layers", 1, 4)
    return value + 0.8 * (trial.suggest_float("momentum", 0, 1) - 0.9) ** 2 if optimizer == "sgd" else value


def _truth_of_mixed() -> dict[str, float]:
    """NB: the momentum's is that of a parameter that is always drawn, and counts with sgd alone."""
    places = (np.arange(10_000) + 0.5) / 10_000
    of_momentum = 0.8 * (places - 0.9) ** 2
    table = np.array([np.full_like(places, value) for value in _OPTIMIZERS.values()])
    table[list(_OPTIMIZERS).index("sgd")] += of_momentum
    parts = {
        "learning_rate": (4 * (places - 0.6) ** 2).var(),
        "activation": np.var(list(_ACTIVATIONS.values())),
        "layers": np.var(0.05 * np.arange(1, 5)),
    }
    whole = float(sum(parts.values()) + table.var())
    parts |= {"optimizer": table.var(axis=0).mean(), "momentum": of_momentum.var() / len(_OPTIMIZERS)}
    return {name: float(part) / whole for name, part in parts.items()}


FUNCTIONS = {
    "Ishigami": Function(_ishigami, _truth_of_ishigami()),
    "Sobol g": Function(_g, _truth_of_g()),
    "sum": Function(_sum, _truth_of_sum()),
    "mixed": Function(_mixed, _truth_of_mixed()),
}
SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "random": lambda seed: RandomSampler(seed=seed),
    "TPE": lambda seed: TPESampler(seed=seed),
}


def _of_optuna(evaluator: Callable[[], Any]) -> Callable[[optuna.Study], dict[str, float]]:
    return lambda study: dict(get_param_importances(study, evaluator=evaluator()))


METHODS: dict[str, Callable[[optuna.Study], dict[str, float]]] = {
    OURS: lambda study: shares(study.get_trials(deepcopy=False)),
    "fANOVA": _of_optuna(lambda: FanovaImportanceEvaluator(seed=0)),
    "MDI": _of_optuna(lambda: MeanDecreaseImpurityImportanceEvaluator(seed=0)),
    "PED-ANOVA": _of_optuna(PedAnovaImportanceEvaluator),
}


@dataclass(frozen=True)
class Row:
    """Importances of one function, of one size and sampler: means over the seeds."""

    function: str
    sampler: str
    trials: int
    correlations: dict[str, float]
    seconds: dict[str, float]


@dataclass(frozen=True)
class Digits:
    """A study of the digits: what each method has first."""

    seed: int
    trials: int
    pruned: int
    first: dict[str, str]
    is_sure: bool


def correlation(found: Mapping[str, float], truth: Mapping[str, float]) -> float:
    """Spearman's, over the parameters that have a truth; one that was left out counts as 0, and equal ones as none."""
    ours, true = (
        np.array([_ranks(item)[name] for name in truth]) for item in ({**dict.fromkeys(truth, 0.0), **found}, truth)
    )
    if not ours.std() or not true.std():
        return 0.0
    return float(np.corrcoef(ours, true)[0, 1])


def _ranks(values: Mapping[str, float]) -> dict[str, float]:
    ordered = sorted(values.values())
    return {name: ordered.index(value) + (ordered.count(value) - 1) / 2 for name, value in values.items()}


def rows_of(name: str, sampler: str, *, seeds: int) -> list[Row]:
    """The rows of one function and sampler, for each size."""
    function = FUNCTIONS[name]
    found: dict[int, list[tuple[dict[str, float], dict[str, float]]]] = {size: [] for size in SIZES}
    for seed in range(seeds):
        study = optuna.create_study(sampler=SAMPLERS[sampler](seed))
        study.optimize(function.value, n_trials=max(SIZES))
        for size in SIZES:
            found[size].append(_compared(study.get_trials(deepcopy=False)[:size], function.truth))
    return [
        Row(
            name,
            sampler,
            size,
            *({method: float(np.mean([one[at][method] for one in ones])) for method in METHODS} for at in (0, 1)),
        )
        for size, ones in found.items()
    ]


def _compared(trials: list[FrozenTrial], truth: Mapping[str, float]) -> tuple[dict[str, float], dict[str, float]]:
    study = optuna.create_study()
    study.add_trials(trials)
    correlations, seconds = {}, {}
    for method, tell in METHODS.items():
        started = time.perf_counter()
        correlations[method] = correlation(tell(study), truth)
        seconds[method] = time.perf_counter() - started
    return correlations, seconds


def run_digits(seed: int) -> Digits:
    """Run the sample.

    Raises:
        RuntimeError: it did not complete; with the last that it said.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "study.yaml"
        file.write_text(yaml.safe_dump(with_seed(digits(), seed=seed, pruned=True)))
        command = [
            sys.executable,
            "-m",
            "tuning_operator.cli",
            "run",
            str(file),
            "--no-report",
            f"--folder={folder}/out",
        ]
        said = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=SECONDS_PER_STUDY
        )
        if said.returncode:
            raise RuntimeError(f"digits, seed {seed}: {said.stdout[-2000:]}")
        return digits_of(seed, Path(folder) / "out" / "study.db")


def digits_of(seed: int, database: Path) -> Digits:
    """What each method says of a study of the digits."""
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{database}")
    trials = study.get_trials(deepcopy=False)
    return Digits(
        seed=seed,
        trials=len(trials),
        pruned=sum(trial.state is optuna.trial.TrialState.PRUNED for trial in trials),
        first={method: _largest(tell(study)) for method, tell in METHODS.items()},
        is_sure=importances(trials).is_sure,
    )


def _largest(found: Mapping[str, float]) -> str:
    return max(found, key=lambda name: found[name])


def measure(*, longer: bool, say: Callable[[str], None]) -> Document:
    """See `catalogue.Bench`."""
    seeds = 10 if longer else 3
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    rows: list[Row] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # branches with few trials
        for name in FUNCTIONS:
            for sampler in SAMPLERS:
                say(f"{name}, {sampler}")
                rows += rows_of(name, sampler, seeds=seeds)
        studies = []
        for seed in range(seeds):
            say(f"digits, seed {seed}")
            studies.append(run_digits(seed))
    return figures_of(rows, studies, seeds=seeds)


def figures_of(rows: list[Row], studies: list[Digits], *, seeds: int) -> Document:
    """The figures as they are kept."""
    return json.loads(json.dumps({"seeds": seeds, "rows": [*map(asdict, rows)], "digits": [*map(asdict, studies)]}))  # type: ignore[no-any-return]


def _read(figures: Document) -> tuple[list[Row], list[Digits]]:
    return [Row(**row) for row in figures["rows"]], [Digits(**study) for study in figures["digits"]]


def _mean(rows: list[Row], method: str) -> float:
    return float(np.mean([row.correlations[method] for row in rows]))


def tell(figures: Document) -> Iterator[str]:
    """See `catalogue.Bench`."""
    rows, studies = _read(figures)
    yield f"Mean rank correlation with the truth over {figures['seeds']} seeds; 1 is the right order, 0 is none."
    yield ""
    yield f"| function | sampler | trials | {' | '.join(METHODS)} |"
    yield f"|---|---|---|{'---|' * len(METHODS)}"
    for row in rows:
        cells = " | ".join(f"{row.correlations[method]:.2f}" for method in METHODS)
        yield f"| {row.function} | {row.sampler} | {row.trials} | {cells} |"
    for size in SIZES:
        of_size = [row for row in rows if row.trials == size]
        yield f"| **mean** | | {size} | {' | '.join(f'**{_mean(of_size, method):.2f}**' for method in METHODS)} |"
    for size in SIZES:
        of_size = [row for row in rows if row.trials == size]
        times = (float(np.mean([row.seconds[method] for row in of_size])) for method in METHODS)
        yield f"| seconds | | {size} | {' | '.join(f'{seconds:.2f}' for seconds in times)} |"
    yield ""
    yield "The most important parameter of the digits, by seed:"
    yield ""
    yield f"| seed | trials, of them pruned | {' | '.join(METHODS)} | ours is sure |"
    yield f"|---|---|{'---|' * len(METHODS)}---|"
    for study in studies:
        first = " | ".join(study.first[method] for method in METHODS)
        yield f"| {study.seed} | {study.trials}, {study.pruned} | {first} | {'yes' if study.is_sure else 'no'} |"


def aims(figures: Document) -> list[Aim]:
    """See `catalogue.Bench`."""
    rows, studies = _read(figures)
    found = []
    for size in SIZES:
        means = {method: _mean([row for row in rows if row.trials == size], method) for method in METHODS}
        best = max(value for method, value in means.items() if method != OURS)
        found.append(
            Aim(
                what=f"rank correlation of the importances with the truth, {size} trials",
                wanted=f"at least {best:.2f}, the best of Optuna's",
                measured=f"{means[OURS]:.2f}",
                reached=means[OURS] >= best,
            )
        )
    right = sum(study.first[OURS] == "learning_rate" or not study.is_sure for study in studies)
    wanted = math.ceil(len(studies) * WANTED_OF_TEN / 10)
    found.append(
        Aim(
            what="digits: the learning rate first, or too few trials to tell",
            wanted=f"at least {wanted} of {len(studies)} seeds",
            measured=f"{right} of {len(studies)}",
            reached=right >= wanted,
        )
    )
    return found
