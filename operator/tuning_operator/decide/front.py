"""Which values are the best, of one objective or of several.

NB: not Optuna's. Decisions are pure and know trials by their values alone; a test holds them to `Study.best_trials`.
"""

import math
from bisect import bisect_right
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
    best_losses = _undominated(sorted({loss for loss in losses if loss}))
    found = [place for place, loss in enumerate(losses) if loss in best_losses]
    return sorted(found, key=lambda place: (losses[place], place))


def _undominated(ordered: Sequence[tuple[float, ...]]) -> set[tuple[float, ...]]:
    """Of different losses in their order, two or three numbers each, those that no other dominates.

    None is dominated by what comes after it, so what is left of those before it is a staircase in the other objectives:
    one is dominated if the step at its place is as low. NB: compared with each of the front, 100,000 trials of which most
    are in it would take an hour.
    """
    found: set[tuple[float, ...]] = set()
    steps: list[tuple[float, float]] = []
    for loss in ordered:
        second, third = (*loss[1:], 0.0)[:2]
        place = bisect_right(steps, (second, math.inf))
        if place and steps[place - 1][1] <= third:
            continue
        found.add(loss)
        end = place
        while end < len(steps) and steps[end][1] >= third:
            end += 1
        if place and steps[place - 1][0] == second:
            place -= 1
        steps[place:end] = [(second, third)]
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
