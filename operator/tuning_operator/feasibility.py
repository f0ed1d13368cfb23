"""Which constraints a trial breaks, told alike by the status, the study's page and the command line."""

from optuna.trial import FrozenTrial


def broken(trial: FrozenTrial) -> dict[str, float]:
    """The constraints that a trial breaks, and by how much; a trial without constraints breaks none."""
    return {name: amount for name, amount in trial.constraints.items() if amount > 0}
