"""PURE: which faults a storm brings, and when. The seed alone decides, so that a storm can be had again."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

WORKERS_AT_ONCE = 3
"""So many are killed in one moment at most, but for the kind that kills all."""


class Kind(StrEnum):
    """What can happen to a study that is nobody's fault."""

    WORKERS_KILLED = "workers killed"
    ALL_WORKERS_KILLED = "all workers killed"
    POD_DELETED = "pods deleted"
    OPERATOR_KILLED = "operator killed"
    POSTGRES_AWAY = "Postgres away"
    API_SERVER_AWAY = "API server away"
    PARALLELISM_CHANGED = "parallelism changed"
    SUSPENDED = "suspended"


_SECONDS_AWAY: dict[Kind, tuple[float, float]] = {
    Kind.OPERATOR_KILLED: (0, 8),
    Kind.POSTGRES_AWAY: (1, 15),
    Kind.API_SERVER_AWAY: (0, 8),
    Kind.SUSPENDED: (3, 10),
}
"""How long a fault lasts, from and to; one of another kind is over at once."""
_DECK = (*Kind, Kind.WORKERS_KILLED, Kind.WORKERS_KILLED, Kind.POD_DELETED)
_ONE_BY_ONE = frozenset(_SECONDS_AWAY)
"""Kinds of which no two may overlap: what is away cannot be taken away."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault; times are in seconds from the beginning of the storm."""

    number: int
    kind: Kind
    begins: float
    ends: float
    study: int
    """Which study is suspended or gets another parallelism; the other kinds concern all."""
    amount: int
    """Workers that are killed or deleted, or the new parallelism."""


@dataclass(frozen=True)
class Step:
    """The beginning or the end of a fault."""

    at: float
    fault: Fault
    is_end: bool


def draw(seed: int, *, seconds: float, gap: float, studies: int, workers: int) -> tuple[Fault, ...]:
    """The faults of a storm. Every kind comes before one comes twice more often than others.

    Args:
        seed: Decides everything.
        seconds: No fault begins or lasts later.
        gap: Seconds between two beginnings, on average.
        studies: How many there are.
        workers: Workers of each study, when nothing is changed; 1 at least.
    """
    rng = random.Random(seed)
    found: list[Fault] = []
    free_at = dict.fromkeys(Kind, 0.0)
    for number, (at, kind) in enumerate(zip(_moments(rng, gap=gap), _kinds(rng), strict=False)):
        begins = max(at, free_at[kind])
        ends = begins + rng.uniform(*_SECONDS_AWAY.get(kind, (0, 0)))
        fault = Fault(
            number=number,
            kind=kind,
            begins=begins,
            ends=ends,
            study=rng.randrange(studies),
            amount=rng.randint(1, 2 * workers if kind is Kind.PARALLELISM_CHANGED else WORKERS_AT_ONCE),
        )
        if at >= seconds:
            break
        if kind in _ONE_BY_ONE:
            free_at[kind] = ends + gap / 4
        if ends < seconds:
            found.append(fault)
    return tuple(found)


def steps(faults: tuple[Fault, ...]) -> tuple[Step, ...]:
    """The beginnings and ends in the order of time; what is over at once has no end of its own."""
    begins = [Step(fault.begins, fault, is_end=False) for fault in faults]
    ends = [Step(fault.ends, fault, is_end=True) for fault in faults if fault.kind in _SECONDS_AWAY]
    return tuple(sorted(begins + ends, key=lambda step: (step.at, step.fault.number, step.is_end)))


def _moments(rng: random.Random, *, gap: float) -> Iterator[float]:
    at = 0.0
    while True:
        at += rng.uniform(0.25 * gap, 1.75 * gap)
        yield at


def _kinds(rng: random.Random) -> Iterator[Kind]:
    while True:
        deck = list(_DECK)
        rng.shuffle(deck)
        yield from deck
