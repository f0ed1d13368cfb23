"""Which parameters matter, told alike by the status and by the study's page."""

import math
import warnings
from collections.abc import Iterable

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from tuning_operator.decide.front import even_choice

LEAST_TRIALS = 4
MOST_TRIALS = 1000
"""Of more trials an even choice is looked at: it tells as much, and all of 10,000 would take seconds."""


def importances(trials: Iterable[FrozenTrial]) -> dict[str, float]:
    """The share of each parameter in what makes complete trials differ; empty while that cannot be told.

    It is told for the first objective, and from finite values: an infinite one would be all of the difference.
    (PED-ANOVA: Watanabe et al., IJCAI 2023; Optuna's default since 5.0.)
    """
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE and trial.values]
    finite = [trial for trial in complete if math.isfinite(trial.values[0])]
    if len(finite) < LEAST_TRIALS or len({trial.values[0] for trial in finite}) == 1:
        return {}
    # Only here: it imports scikit-learn, which takes longer than all else together, and no study needs it at its start.
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances  # noqa: PLC0415

    study = optuna.create_study()
    study.add_trials(
        create_trial(value=trial.values[0], params=trial.params, distributions=trial.distributions)
        for trial in even_choice(finite, most=MOST_TRIALS)
    )
    with warnings.catch_warnings():
        # Of a branch with few trials: the share is said as it is, and gets better with more of them.
        warnings.simplefilter("ignore", UserWarning)
        return dict(get_param_importances(study, evaluator=PedAnovaImportanceEvaluator()))
