"""Which values are the best, of one objective or of several.

NB: not Optuna's. Decisions are pure and know trials by their values alone; a test holds them to `Study.best_trials`.
"""

import math
from collections.abc import Sequence
from typing import TypeVar

from tuning_api.search import Direction

Item = TypeVar("Item")


def front(values: Sequence[tuple[float, ...]], directions: Sequence[Direction]) -> list[int]:
    """Places of the values that no other value dominates: none is as good everywhere and better somewhere.

    Sorted from the best of the first objective on; equal values are all there. With one objective it is the best value.
    Values that are infinite, or of another number of objectives, are no values.
    """
    losses = [_losses(item, directions) for item in values]
    if len(directions) == 1:
        best = min(filter(None, losses), default=None)
        return [place for place, loss in enumerate(losses) if loss == best]
    # In this order nothing is dominated by what comes after it, so a look at the front so far is enough.
    order = sorted((place for place, loss in enumerate(losses) if loss), key=lambda place: (losses[place], place))
    found: list[int] = []
    for place in order:
        if not any(_dominates(losses[other], losses[place]) for other in found):
            found.append(place)
    return found


def even_choice(items: Sequence[Item], *, most: int) -> list[Item]:
    """At most so many of things in an order, such as a sorted front, with both its ends."""
    if len(items) <= most:
        return list(items)
    last = len(items) - 1
    return [items[round(step * last / (most - 1))] for step in range(most)]


def _losses(values: tuple[float, ...], directions: Sequence[Direction]) -> tuple[float, ...]:
    """Values as something to minimise; empty where there is nothing to compare."""
    if len(values) != len(directions) or not all(math.isfinite(value) for value in values):
        return ()
    signed = zip(values, directions, strict=True)
    return tuple(-value if direction is Direction.MAXIMIZE else value for value, direction in signed)


def _dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(mine <= theirs for mine, theirs in zip(one, other, strict=True))
