"""Results as files: one for each benchmark, written as soon as it was measured."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.catalogue import NAMES, Figures
from bench.conditions import ROOT, Conditions

FOLDER = ROOT / "bench" / "results"


@dataclass(frozen=True, kw_only=True)
class Result:
    """What one benchmark measured, and under what conditions."""

    name: str
    conditions: Conditions
    figures: Figures


def save(result: Result, folder: Path = FOLDER) -> None:
    """Write a result, in place of an earlier one."""
    folder.mkdir(exist_ok=True)
    # NB: not asdict of all: it builds each mapping anew from pairs, of which a Counter counts each once (python/cpython#84110).
    document = {"name": result.name, "conditions": asdict(result.conditions), "figures": result.figures}
    (folder / f"{result.name}.json").write_text(json.dumps(document, indent=2) + "\n")


def load(name: str, folder: Path = FOLDER) -> Result:
    """Read a result.

    Raises:
        FileNotFoundError: it was not measured yet.
    """
    document = json.loads((folder / f"{name}.json").read_text())
    return Result(name=name, conditions=Conditions(**document["conditions"]), figures=document["figures"])


def load_all(folder: Path = FOLDER) -> list[Result]:
    """The results that are there, in the document's order."""
    return [load(name, folder) for name in NAMES if (folder / f"{name}.json").exists()]
