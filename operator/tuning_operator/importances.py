"""Which parameters matter, told alike by the status and by the study's page."""

import math
import warnings
from collections.abc import Container, Iterable

import optuna
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from typing_extensions import override

LEAST_TRIALS = 4


def importances(trials: Iterable[FrozenTrial], direction: StudyDirection) -> dict[str, float]:
    """The share of each parameter in what makes good trials differ from others; empty while that cannot be told.

    It is told for the first objective, and from finite values: an infinite one would be all of the difference.
    (PED-ANOVA: Watanabe et al., IJCAI 2023; Optuna's default since 5.0. A tenth of the trials is good.)

    Args:
        trials: Of a study.
        direction: Of the first objective, which says what is good.
    """
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE and trial.values]
    finite = [trial for trial in complete if math.isfinite(trial.values[0])]
    if len(finite) < LEAST_TRIALS or len({trial.values[0] for trial in finite}) == 1:
        return {}
    # Only here: it imports scikit-learn, which takes longer than all else together, and no study needs it at its start.
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances  # noqa: PLC0415

    sign = -1 if direction is StudyDirection.MAXIMIZE else 1
    with warnings.catch_warnings():
        # That low targets are good ones. And of a branch with few trials: the share gets better with more of them.
        warnings.simplefilter("ignore", UserWarning)
        return dict(
            get_param_importances(
                optuna.create_study(storage=_Known(finite)),
                evaluator=PedAnovaImportanceEvaluator(),
                target=lambda trial: sign * trial.values[0],
            )
        )


class _Known(InMemoryStorage):
    """A storage of trials as they are; to add them to one would copy each, which takes longer than to compare them."""

    def __init__(self, trials: list[FrozenTrial]) -> None:
        super().__init__()
        self._known = trials

    @override
    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        return [trial for trial in self._known if states is None or trial.state in states]
