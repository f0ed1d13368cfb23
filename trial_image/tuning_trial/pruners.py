"""Optuna's pruners as the spec describes them. They keep nothing of their own: what they judge by is in the trials."""

import warnings

from optuna.exceptions import ExperimentalWarning
from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    PatientPruner,
    PercentilePruner,
    SuccessiveHalvingPruner,
    ThresholdPruner,
    WilcoxonPruner,
)

from tuning_api.search import Pruner, PrunerType, WrappedPruner
from tuning_trial.errors import MisconfiguredError
from tuning_trial.samplers import given


def build_pruner(spec: Pruner) -> BasePruner:
    """The pruner.

    Raises:
        MisconfiguredError: this image does not know the type.
    """
    with warnings.catch_warnings():
        # Of patient and wilcoxon: whoever writes their name has chosen them.
        warnings.simplefilter("ignore", ExperimentalWarning)
        if spec.type is not PrunerType.PATIENT:
            return _build(spec)
        wrapped = _build(spec.wrapped) if spec.wrapped else None
        return PatientPruner(wrapped, **given(patience=spec.patience, min_delta=spec.min_delta))


def _build(spec: Pruner | WrappedPruner) -> BasePruner:  # noqa: PLR0911 - one for each type
    match spec.type:
        case PrunerType.NONE:
            return NopPruner()
        case PrunerType.MEDIAN:
            return MedianPruner(**_of_ranks(spec))
        case PrunerType.PERCENTILE:
            return PercentilePruner(**given(percentile=spec.percentile), **_of_ranks(spec))
        case PrunerType.SUCCESSIVE_HALVING:
            return SuccessiveHalvingPruner(
                min_resource=spec.min_resource or 1,  # NB: `auto` is fixed by what each process has seen first
                **given(
                    reduction_factor=spec.reduction_factor,
                    min_early_stopping_rate=spec.min_early_stopping_rate,
                    bootstrap_count=spec.bootstrap_count,
                ),
            )
        case PrunerType.HYPERBAND:
            return HyperbandPruner(
                **given(
                    min_resource=spec.min_resource,
                    max_resource=spec.max_resource,
                    reduction_factor=spec.reduction_factor,
                    bootstrap_count=spec.bootstrap_count,
                )
            )
        case PrunerType.THRESHOLD:
            return ThresholdPruner(
                **given(
                    lower=spec.lower,
                    upper=spec.upper,
                    n_warmup_steps=spec.n_warmup_steps,
                    interval_steps=spec.interval_steps,
                )
            )
        case PrunerType.WILCOXON:
            return WilcoxonPruner(**given(p_threshold=spec.p_threshold, n_startup_steps=spec.n_startup_steps))
        case unknown:
            raise MisconfiguredError(f"this trial image knows no pruner {unknown}: use a newer image")


def _of_ranks(spec: Pruner | WrappedPruner) -> dict[str, int]:
    return given(
        n_startup_trials=spec.n_startup_trials,
        n_warmup_steps=spec.n_warmup_steps,
        interval_steps=spec.interval_steps,
        n_min_trials=spec.n_min_trials,
    )
