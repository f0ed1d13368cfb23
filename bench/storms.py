"""Storms over two studies: whether every trial ends once, and what each kind of fault costs.

The storms are those of `tests.storm`; docs/operations.md tells what happens in them, and what has to agree afterwards.
"""

import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.aim import Aim, spread
from bench.conditions import ROOT

Storm = dict[str, Any]
"""What `python -m tests.storm --json` writes."""
Figures = dict[str, Any]

TITLE = "Storms"
ABOUT = """\
Storms over a training of Lightning's and an objective of one's own, 200 trials of 8 workers together, as `make storm` brings
them: [operations](operations.md#what-has-been-tried-the-storm) tells what happens and what has to agree afterwards. The
seed decides which fault comes when, and the faults of a storm overlap. `LONGER=1` takes ten seeds instead of one, and adds a
storm that brings each fault only when all is well after the one before: its times are those of one fault.
"""
SEEDS_OF_LONGER = 10
MINUTES, MINUTES_APART = 3, 10
STORM_SECONDS = 3600
_VICTIMS = ("workers killed", "all workers killed", "pods deleted")
_SERVERS = ("operator killed", "Postgres away", "API server away")
_WISHES = ("parallelism changed", "suspended")


def measure(*, longer: bool, say: Callable[[str], None]) -> Figures:
    """See `catalogue.Bench`."""
    storms = []
    for seed in range(1, 1 + (SEEDS_OF_LONGER if longer else 1)):
        say(f"seed {seed}")
        storms.append(_storm(f"--seed={seed}", f"--minutes={MINUTES}"))
    if longer:
        say("one fault at a time")
        storms.append(_storm("--seed=7", f"--minutes={MINUTES_APART}", "--apart"))
    return {"storms": storms}


def _storm(*options: str) -> Storm:
    """Run one to its end.

    Raises:
        RuntimeError: it never came to its tables; with the last that it said.
    """
    with tempfile.TemporaryDirectory() as folder:
        figures = Path(folder) / "figures.json"
        said = subprocess.run(
            [sys.executable, "-m", "tests.storm", *options, f"--json={figures}"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=STORM_SECONDS,
        )
        if not figures.exists():
            raise RuntimeError(f"the storm {' '.join(options)}: {said.stdout[-2000:]}")
        storm: Storm = json.loads(figures.read_text())
        return storm


def tell(figures: Figures) -> Iterator[str]:
    """See `catalogue.Bench`."""
    together = [storm for storm in figures["storms"] if not storm["size"]["apart"]]
    yield from _storms(together)
    for apart in (storm for storm in figures["storms"] if storm["size"]["apart"]):
        yield ""
        yield from _times(apart)


def _storms(storms: Sequence[Storm]) -> Iterator[str]:
    yield (
        "| seed | trials that ended | stuck | killed or deleted pods | operator, Postgres, API server away"
        " | rescaled, suspended | queued again | epochs lost each time | violations |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    for storm in storms:
        yield (
            f"| {storm['size']['seed']} | {storm['ended']} of {storm['size']['trials']} | {storm['stuck']}"
            f" | {sum(storm['killed'].get(kind, 0) for kind in _VICTIMS)}"
            f" | {_times_of(storm, _SERVERS)} | {_times_of(storm, _WISHES)}"
            f" | {storm['retried']} | {spread(storm['lost_epochs'], '.0f') if storm['lost_epochs'] else '-'}"
            f" | {'; '.join(storm['violations']) or 'none'} |"
        )
    yield ""
    killed: Counter[str] = sum((Counter(storm["killed"]) for storm in storms), Counter())
    yield f"Pods that were hit: {killed.total()} ({', '.join(f'{kind} {killed[kind]}' for kind in _VICTIMS)})."


def _times_of(storm: Storm, kinds: Iterable[str]) -> str:
    return ", ".join(str(storm["faults"].get(kind, 0)) for kind in kinds)


def _times(apart: Storm) -> Iterator[str]:
    yield "| fault, one at a time | times | seconds until all is well | never |"
    yield "|---|---|---|---|"
    for kind in (*_VICTIMS, *_SERVERS, *_WISHES):
        times = apart["recoveries"].get(kind, [])
        known = [seconds for seconds in times if seconds is not None]
        yield f"| {kind} | {len(times)} | {spread(known) if known else '-'} | {len(times) - len(known)} |"


def aims(figures: Figures) -> list[Aim]:
    """See `catalogue.Bench`."""
    storms = figures["storms"]
    ended, wanted = sum(storm["ended"] for storm in storms), sum(storm["size"]["trials"] for storm in storms)
    violations = [words for storm in storms for words in storm["violations"]]
    lost = max((epochs for storm in storms for epochs in storm["lost_epochs"]), default=0)
    return [
        Aim("trials of the storms that ended, each once", str(wanted), str(ended), reached=ended == wanted),
        Aim("most epochs lost by one kill", "1", str(lost), reached=lost <= 1),
        Aim(
            "disagreements of rows, the trials' own notes and the status",
            "0",
            str(len(violations)),
            reached=not violations,
            cause="; ".join(violations),
        ),
    ]
