"""Which parameters matter, told alike by the status, the page and the command.

A parameter's importance is its share of what makes trials differ: the Sobol index of its total effect, of all of them. It is
read off a model of the trials, a Gaussian process whose kernel is a product of one factor for each parameter, each of mean zero
over that parameter's range, so that the indices are sums over the trials (Durrande et al., ANOVA kernels and RKHS of zero mean
functions for model-based sensitivity analysis, 2013). The model sees the order of the values and not their size: one trial that
diverged would be all of the difference. A pruned trial counts with the value that it last reported: what a bad value of a
parameter does is seen in those above all. ADR 0029 compares it with others.
"""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

LEAST_TRIALS = 4
MOST_TRIALS = 200
"""Of more, an even choice is looked at: the time grows with their cube."""
MOST_CELLS = 2_560_000
"""Pairs of trials, over all parameters, that are kept in memory: 200 trials of 64 parameters take 60 MB."""
HALVES = 20
"""So many halves of the trials say how sure an importance is."""
SURE = 0.6
"""The share of the halves that have to agree on the most important parameter. Where no parameter has a say in the values, one
study in ten comes so far."""

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Share:
    """The importance of a parameter, from 0 to 1, and where it is in eight of ten halves of the trials."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Importances:
    """The importances of all parameters, largest first; empty while nothing can be told."""

    shares: dict[str, Share] = field(default_factory=dict)
    is_sure: bool = False
    """Whether most halves of the trials have the same parameter first."""
    trials: int = 0
    """Those that were looked at."""

    @property
    def doubt(self) -> str | None:
        """What to say where the order cannot be relied upon."""
        if self.is_sure or not any(share.value for share in self.shares.values()):
            return None
        return f"{self.trials} trials are too few to tell which parameter matters most: halves of them disagree."


def judged(trials: Iterable[FrozenTrial]) -> list[tuple[FrozenTrial, float]]:
    """Trials with the value that they count with: their first result, or of a pruned one what it last reported."""
    values = ((trial, _value(trial)) for trial in trials)
    return [(trial, value) for trial, value in values if value is not None and not math.isnan(value)]


def _value(trial: FrozenTrial) -> float | None:
    if trial.state in {TrialState.COMPLETE, TrialState.PRUNED} and trial.values:
        return float(trial.values[0])  # of a pruned one, its last report: the operator reads no others
    if trial.state is TrialState.PRUNED and trial.intermediate_values:
        return float(trial.intermediate_values[max(trial.intermediate_values)])
    return None


def shares(trials: Iterable[FrozenTrial]) -> dict[str, float]:
    """The importance of each parameter for the first objective; empty while that cannot be told."""
    known = _known(trials)
    return _named(known, _indices(known, np.arange(len(known.values)))) if known else {}


def importances(trials: Iterable[FrozenTrial]) -> Importances:
    """The same, with how sure it is: the model is fitted to random halves of the trials, too.

    A half leaves out as many as it takes, so that the spread among halves is about that of the whole (Efron, The jackknife,
    the bootstrap and other resampling plans, 1982).
    """
    known = _known(trials)
    if known is None:
        return Importances()
    count = len(known.values)
    whole = _indices(known, np.arange(count))
    chance = np.random.default_rng(0)
    # NB: with less than four trials, all models are alike.
    size = max(LEAST_TRIALS, count // 2)
    halves = np.array([_indices(known, chance.permutation(count)[:size]) for _ in range(HALVES)])
    low, high = np.quantile(halves, (0.1, 0.9), axis=0)
    agree = np.mean(halves.argmax(axis=1) == whole.argmax())
    found = {
        name: Share(share, min(share, float(low[at])), max(share, float(high[at])))
        for at, (name, share) in enumerate(zip(known.names, whole.tolist(), strict=True))
    }
    ordered = dict(sorted(found.items(), key=lambda item: -item[1].value))
    return Importances(ordered, is_sure=bool(agree >= SURE), trials=count)


# What the model sees


@dataclass(frozen=True)
class _Known:
    names: tuple[str, ...]
    values: Array
    scales: tuple["_Scale", ...]
    """One for each of the names."""


@dataclass(frozen=True)
class _Scale:
    """A parameter of the trials: places from 0 to 1, or the ranks of choices; NaN where a trial has no such parameter."""

    places: Array
    choices: int | None


def _known(trials: Iterable[FrozenTrial]) -> _Known | None:
    """What there is to tell importances by; None while there is too little."""
    found = judged(trials)
    names = tuple(dict.fromkeys(name for trial, _ in found for name in trial.params))
    if not names:
        return None
    most = min(MOST_TRIALS, math.isqrt(MOST_CELLS // len(names)))
    chosen = found if len(found) <= most else [found[at * len(found) // most] for at in range(most)]
    values = np.array([value for _, value in chosen])
    if len(chosen) < LEAST_TRIALS or len(set(values.tolist())) == 1:
        return None
    return _Known(names, values, tuple(_scale(name, [trial for trial, _ in chosen]) for name in names))


def _scale(name: str, trials: Sequence[FrozenTrial]) -> _Scale:
    distributions = [trial.distributions[name] for trial in trials if name in trial.distributions]
    if all(isinstance(item, FloatDistribution | IntDistribution) for item in distributions):
        values = np.array([float(trial.params.get(name, math.nan)) for trial in trials])
        return _Scale(_placed(values, distributions), None)
    # As JSON: choices may be lists, and 1, true and "1" are three.
    texts = [as_json(trial.params[name]) if name in trial.params else None for trial in trials]
    ranks = {text: rank for rank, text in enumerate(dict.fromkeys(text for text in texts if text is not None))}
    return _Scale(np.array([math.nan if text is None else float(ranks[text]) for text in texts]), len(ranks))


def as_json(choice: Any) -> str:
    """A choice as a text that no other choice has."""
    return json.dumps(choice, sort_keys=True, default=repr)


def _placed(values: Array, distributions: Sequence[BaseDistribution]) -> Array:
    """Values as places in the range of all the distributions: a range may be moved while a study runs."""
    numeric = [item for item in distributions if isinstance(item, FloatDistribution | IntDistribution)]
    low = float(min((item.low for item in numeric), default=0))
    high = float(max((item.high for item in numeric), default=0))
    if low > 0 and any(item.log for item in numeric):
        values, low, high = np.log(values), math.log(low), math.log(high)
    return (values - low) / (high - low) if high > low else values * 0


# The model

_GRID: Array = (np.arange(32) + 0.5) / 32
_LENGTH = 0.2
"""Over such a share of a parameter's range the model expects the values to change."""
_WEIGHT, _NOISE, _VARIANCE = math.log(0.3), math.log(0.1), math.log(0.5)
"""What the model expects before it has seen a trial; each may be wrong by a factor of seven, and is then unlikely."""
_SPREAD = 2.0
_BOUNDS = (-7.0, 4.0)
_JITTER = 1e-6
_STEPS = 60


def _indices(known: _Known, chosen: npt.NDArray[np.intp]) -> Array:
    """The share of each parameter in what makes the chosen trials differ."""
    result = np.zeros(len(known.names))
    kernels = [_kernel(scale, chosen) for scale in known.scales]
    alive = [at for at, kernel in enumerate(kernels) if kernel is not None]
    scores = _normal_scores(known.values[chosen])
    if not alive or not scores.any():
        return result
    grams = np.array([kernel[0] for kernel in kernels if kernel])
    weights, noise, variance = _fitted(grams, scores)
    matrix = variance * np.prod(1 + weights[:, None, None] * grams, axis=0)
    pull = np.linalg.solve(matrix + (noise + _JITTER) * np.eye(len(scores)), scores)
    parts = np.array([_mean_product(weights[at], kernel[1]) for at, kernel in enumerate(filter(None, kernels))])
    totals = np.einsum("i,kij,kij,j->k", pull, parts, _all_but_one(1 + parts), pull, optimize=True).clip(0)
    result[alive] = totals / totals.sum() if totals.sum() else 0
    return result


def _mean_product(weight: float, across: Array) -> Array:
    """For each two trials, the mean over a parameter's range of the product of their factors."""
    product: Array = weight**2 * (across @ across.T) / across.shape[1]
    return product


def _kernel(scale: _Scale, chosen: npt.NDArray[np.intp]) -> tuple[Array, Array] | None:
    """A parameter's factor between each two trials, and between trials and its range; None where its trials are all alike.

    A trial without the parameter has none: that it has not got it is what the parameter says which it depends on.
    """
    places = scale.places[chosen]
    here = ~np.isnan(places)
    if len(set(places[here].tolist())) < 2:  # noqa: PLR2004 - between them there is a difference
        return None
    both, there = np.outer(here, here), here[:, None] * math.sqrt(here.mean())
    if scale.choices:
        across = (places[:, None] == np.arange(scale.choices)) - 1 / scale.choices
        same = (places[:, None] == places) - 1 / scale.choices
        return same / (1 - 1 / scale.choices) * both, across / (1 - 1 / scale.choices) * there
    at = np.where(here, places, 0.5)
    inside = _matern(_GRID, _GRID)
    means, mean = inside.mean(axis=0), inside.mean()
    own = _matern(at, _GRID)
    height = 1 - (means**2).mean() / mean
    gram = (_matern(at, at) - np.outer(own.mean(axis=1), own.mean(axis=1)) / mean) / height
    return gram * both, (own - np.outer(own.mean(axis=1), means) / mean) / height * there


def _matern(some: Array, others: Array) -> Array:
    distance: Array = math.sqrt(5) / _LENGTH * np.abs(some[:, None] - others)
    result: Array = (1 + distance + distance**2 / 3) * np.exp(-distance)
    return result


def _normal_scores(values: Array) -> Array:
    """Values by their order, as a normal distribution has them; equal ones stay equal."""
    from scipy.special import ndtri  # noqa: PLC0415 - takes a second, and no study needs it at its start

    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - counts / 2
    scores: Array = ndtri(ranks[place] / len(values))
    centred: Array = scores - scores.mean()
    return centred / (centred.std() or 1)


def _fitted(grams: Array, scores: Array) -> tuple[Array, float, float]:
    """The weight of each parameter, the noise and the variance that are most likely, given the scores."""
    from scipy.linalg import LinAlgError, cho_factor, cho_solve  # noqa: PLC0415 - as above
    from scipy.optimize import minimize  # noqa: PLC0415

    count, eye = len(grams), np.eye(len(scores))
    expected = np.array([*[_WEIGHT] * count, _NOISE, _VARIANCE])

    def loss(logs: Array) -> tuple[float, Array]:
        weights, noise, variance = np.exp(logs[:count]), math.exp(logs[count]), math.exp(logs[count + 1])
        factors = 1 + weights[:, None, None] * grams
        signal = variance * np.prod(factors, axis=0)
        try:
            factor = cho_factor(signal + (noise + _JITTER) * eye, lower=True)
        except LinAlgError:
            return math.inf, np.zeros_like(logs)
        pull = cho_solve(factor, scores)
        slope = np.outer(pull, pull) - cho_solve(factor, eye)
        of_weights = variance * np.einsum("ij,kij,kij->k", slope, _all_but_one(factors), grams, optimize=True)
        slopes = np.array([*(weights * of_weights), noise * np.trace(slope), np.vdot(slope, signal)])
        off = (logs - expected) / _SPREAD
        likelihood = scores @ pull / 2 + np.log(np.diag(factor[0])).sum()
        return float(likelihood + off @ off / 2), off / _SPREAD - slopes / 2

    best = minimize(
        loss, expected, jac=True, method="L-BFGS-B", bounds=[_BOUNDS] * len(expected), options={"maxiter": _STEPS}
    ).x
    return np.exp(best[:count]), math.exp(best[count]), math.exp(best[count + 1])


def _all_but_one(factors: Array) -> Array:
    """For each factor, the product of the others."""
    before, after = np.ones_like(factors), np.ones_like(factors)
    np.cumprod(factors[:-1], axis=0, out=before[1:])
    after[:-1] = np.cumprod(factors[:0:-1], axis=0)[::-1]
    result: Array = before * after
    return result


def _named(known: _Known, found: Array) -> dict[str, float]:
    return dict(sorted(zip(known.names, found.tolist(), strict=True), key=lambda item: -item[1]))
