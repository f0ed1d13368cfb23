"""The worker of a study: claims a trial, chooses its parameters, trains it in a process of its own, tells the result.

It runs in a pod or as a process on a laptop, and knows only its database (`tuning_api.contract`). Nothing here imports
the operator, and importing a module here imports torch only where its name says so (`lightning_*`, `pruning`).

For objectives (`trial.objective`) there is `PruningCallback`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tuning_trial.pruning import PruningCallback

__all__ = ["PruningCallback"]


def __getattr__(name: str) -> Any:
    """Import Lightning only for who asks for its callback: a worker starts without it (PEP 562)."""
    if name != "PruningCallback":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tuning_trial.pruning import PruningCallback  # noqa: PLC0415

    return PruningCallback
