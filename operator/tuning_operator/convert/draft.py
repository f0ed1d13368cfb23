"""A manifest in the making, with a note for every field that it was made from.

A conversion that leaves out a field in silence is worse than none. So each converter says of every field that it knows
what became of it, and `Draft.finish` says of all others that they have no counterpart.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from pydantic import ValidationError

from tuning_api.schema import Document
from tuning_api.search import EXHAUSTIVE, Parameter, Sampler
from tuning_api.space import faults_of_search, size
from tuning_api.spec import BUILT_IN_PLACEHOLDERS, GROUP, KIND, VERSION
from tuning_operator.convert.reading import ConversionError, below
from tuning_operator.convert.space import Dimension

OBJECTIVE = "my_package.train:objective"
"""Stands where the person's own code is to be named."""
DEFAULT_TRIALS = 100

_SHOWN_PARAMETERS = 4
_MOST_FAILURES = 100_000
_MOST_PARAMETERS = 1000
"""A study has 64, which the manifest's own check says: what is above that, a person can still take out of the manifest."""
_IS_DOCUMENTED = "docs/converting.md has the fields of each system"


class Kind(StrEnum):
    """What became of a field."""

    MAPPED = "mapped"
    CHANGED = "changed"
    MISSING = "no counterpart"
    DECIDE = "to decide"


@dataclass(frozen=True)
class Note:
    """What became of one field of the document."""

    kind: Kind
    path: str
    words: str


@dataclass(frozen=True)
class Conversion:
    """A manifest, where a person must look at it, and how it came about."""

    manifest: Document
    comments: dict[str, list[str]]
    """Lines by the path of the field that they stand above, such as spec.trial.objective."""
    notes: list[Note]


@dataclass
class Draft:
    """What is known of the study so far; a converter fills it in."""

    name: str
    metadata: Document = field(default_factory=dict)
    objectives: list[Document] = field(default_factory=list)
    space: list[Document] = field(default_factory=list)
    spec: Document = field(default_factory=dict)
    """The other fields of the spec."""
    trial: Document = field(default_factory=dict)
    command: str = ""
    """What a trial ran."""
    fixed: Document = field(default_factory=dict)
    """Values that every trial had."""
    notes: list[Note] = field(default_factory=list)
    comments: dict[str, list[str]] = field(default_factory=dict)

    def mapped(self, path: str, words: str) -> None:
        """The field means the same there."""
        self.notes.append(Note(Kind.MAPPED, path, words))

    def changed(self, path: str, words: str) -> None:
        """The field means something else there."""
        self.notes.append(Note(Kind.CHANGED, path, words))

    def missing(self, path: str, words: str) -> None:
        """There is nothing like it; the words advise."""
        self.notes.append(Note(Kind.MISSING, path, words))

    def decide(self, path: str, words: str, *, at: str) -> None:
        """A person has to choose; `at` is the manifest's field, which the words stand above."""
        self.notes.append(Note(Kind.DECIDE, path, words))
        self.comments.setdefault(at, []).append(f"To decide: {words}")

    def keep(self, node: Document, key: str, name: str, value: object, *, path: str = "") -> None:
        """Take over a field of the spec, if the document has it."""
        if node.get(key) is not None:
            self.spec[name] = value
            self.mapped(below(path, key), f"{name}: {value}")

    def add(self, path: str, name: str, dimension: Dimension, *, when: Document | None = None) -> str:
        """Add a parameter, and return its name here.

        Raises:
            ConversionError: there are far more than a study has.
        """
        if len(self.space) == _MOST_PARAMETERS:
            raise ConversionError(f"{path}: the search space has more than {_MOST_PARAMETERS} parameters")
        legal = self._legal(name)
        self.space.append({"name": legal} | dimension.fields | ({"when": when} if when else {}))
        changes = [*dimension.changes]
        if legal != name:
            changes.insert(0, f"its name {name!r} is no legal one")
        if changes:
            self.changed(path, f"searchSpace {legal}: {'; '.join(changes)}")
        else:
            self.mapped(path, f"searchSpace {legal}")
        return legal

    def fix(self, path: str, name: str, value: object) -> None:
        """A value that every trial has: an objective knows it by itself."""
        self.fixed[name] = value
        self.missing(path, f"fixed at {value!r}: write it into the objective, or into trial.lightning")

    def _legal(self, name: str) -> str:
        legal = re.sub(r"[^A-Za-z0-9_.-]", "_", name)[:120]
        if not re.match(r"[A-Za-z_]", legal) or legal in BUILT_IN_PLACEHOLDERS:
            legal = f"p_{legal}"
        taken = {parameter["name"] for parameter in self.space}
        return next(item for item in _numbered(legal) if item not in taken)

    def finish(self, document: Document) -> Conversion:
        """The manifest, and a note for each field of the document."""
        try:
            self._settle_sampler()
            self._settle_trials()
            self._settle_failures()
        except ValidationError as error:
            raise ConversionError(f"the study would be none: {_first(error)}") from error
        if not self.space:
            self.decide("", "no parameter was found to search: add some", at="spec.searchSpace")
        spec = self.spec | {
            "objectives": self.objectives,
            "searchSpace": self.space,
            "trial": {"objective": OBJECTIVE} | self.trial,
        }
        self.comments.setdefault("spec.trial.objective", []).extend(self._task())
        self.notes.append(
            Note(Kind.DECIDE, "", f"spec.trial.objective: {OBJECTIVE} stands for code of yours, see the comment there")
        )
        known = set(paths(document))
        self.notes = [_as_default(note, known=known) for note in self.notes]
        self.notes += [
            Note(Kind.MISSING, path, f"unknown to the converter, left out ({_IS_DOCUMENTED})")
            for path in unmentioned(document, {note.path for note in self.notes})
        ]
        manifest = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": KIND,
            "metadata": {"name": study_name(self.name)} | self.metadata,
            "spec": {name: spec[name] for name in _ORDER if name in spec},
        }
        return Conversion(manifest, self.comments, self.notes)

    def _settle_sampler(self) -> None:
        """The document's own, or the nearest one that can search this space."""
        asked = self.spec.get("sampler", {"type": "tpe"})
        kept = {name: asked[name] for name in ("seed",) if name in asked}
        others = [{"type": name} | kept for name in (*_INSTEAD.get(asked["type"], ()), "random")]
        faults = [self._fault_of_sampler(sampler) for sampler in (asked, *others)]
        if faults[0] is None or all(faults):
            return
        chosen = others[faults.index(None) - 1]
        self.spec["sampler"] = chosen
        self.changed("", f"sampler.type: {chosen['type']}, since {faults[0]}")

    def _fault_of_sampler(self, sampler: Document) -> str | None:
        searched = [Parameter.model_validate(parameter) for parameter in self.space]
        return next(faults_of_search(searched, Sampler.model_validate(sampler), objectives=len(self.objectives)), None)

    def _settle_failures(self) -> None:
        """The others go on however many trials fail, and a study ends after ten where nothing is said."""
        if "maxFailedTrials" not in self.spec:
            self.spec["maxFailedTrials"] = min(self.spec["maxTrials"], _MOST_FAILURES)
            self.changed(
                "", f"maxFailedTrials: {self.spec['maxFailedTrials']}, for the document has no limit of failures"
            )

    def _settle_trials(self) -> None:
        if "maxTrials" in self.spec:
            return
        points = size([Parameter.model_validate(parameter) for parameter in self.space])
        if self.spec.get("sampler", {}).get("type") in EXHAUSTIVE and points is not None:
            self.spec["maxTrials"] = points
            self.changed("", f"maxTrials: {points}, which is every combination")
            return
        self.spec["maxTrials"] = DEFAULT_TRIALS
        self.decide("", "how many trials; the document has no limit", at="spec.maxTrials")

    def _task(self) -> Iterator[str]:
        yield "To decide: what a trial runs. Name a function of your code, which has the trial's parameters already:"
        yield "  def objective(trial):"
        names = [parameter["name"] for parameter in self.space]
        for name in names[:_SHOWN_PARAMETERS]:
            yield f'      {re.sub(r"[^A-Za-z0-9_]", "_", name)} = trial.params["{name}"]'
        if len(names) > _SHOWN_PARAMETERS:
            yield f"      ...                      # and {len(names) - _SHOWN_PARAMETERS} more"
        if self.spec.get("pruner", {}).get("type", "none") != "none":
            yield "      for step in range(steps):"
            yield "          ...                  # train and validate"
            yield "          trial.report(value, step)"
            yield "          if trial.should_prune(): raise optuna.TrialPruned"
        else:
            yield "      ...                      # train and validate"
        returned = ", ".join(str(objective["metric"]) for objective in self.objectives)
        yield f"      return value             # {returned}"
        if any("when" in parameter for parameter in self.space):
            yield 'A parameter whose condition is not met is not there: trial.params.get("...").'
        if self.command:
            yield f"It ran: {self.command}"
        if self.fixed:
            yield f"Fixed in every trial: {', '.join(f'{name} = {value!r}' for name, value in self.fixed.items())}"
        yield "Or describe a LightningModule instead: remove objective, and write trial.lightning (tuningstudy init)."


_INSTEAD = {"grid": ("bruteforce", "qmc"), "cmaes": ("tpe",), "gp": ("tpe",)}
"""What is tried where a sampler cannot search the space; random can always."""
_ORDER = (
    "objectives",
    "searchSpace",
    "sampler",
    "pruner",
    "maxTrials",
    "timeout",
    "maxFailedTrials",
    "stopWhen",
    "parallelism",
    "trial",
)


def _first(error: ValidationError) -> str:
    """The first fault, with the names of what is wrong."""
    fault = error.errors()[0]
    name = fault["input"].get("name", "") if isinstance(fault["input"], dict) else ""
    place = ".".join(str(part) for part in (error.title.lower(), name, *fault["loc"]) if part != "")
    return f"{place}: {fault['msg']}"


def _numbered(name: str) -> Iterator[str]:
    yield name
    number = 2
    while True:
        yield f"{name}_{number}"
        number += 1


def study_name(text: str) -> str:
    """A legal name of a Kubernetes object that resembles the text."""
    name = re.sub(r"[^a-z0-9]+", "-", text.lower())[:63].strip("-")
    return name or "study"


def unmentioned(document: Document, mentioned: set[str]) -> Iterator[str]:
    """The fields of a document that no note is about, neither by themselves nor as a part of another."""
    above = {path[: end.start()] for path in mentioned for end in re.finditer(r"[.\[]", path)}
    yield from _unmentioned(document, mentioned, above, "")


def _unmentioned(node: object, mentioned: set[str], above: set[str], path: str) -> Iterator[str]:
    for at, child in _children(node, path):
        if at in mentioned:
            continue
        if at in above:
            yield from _unmentioned(child, mentioned, above, at)
        else:
            yield at


def paths(node: object, path: str = "") -> Iterator[str]:
    """The paths of all fields of a document."""
    for at, child in _children(node, path):
        yield at
        yield from paths(child, at)


def _as_default(note: Note, *, known: set[str]) -> Note:
    return note if not note.path or note.path in known else replace(note, words=f"{note.words} (the default there)")


def _children(node: object, path: str) -> Iterator[tuple[str, object]]:
    if isinstance(node, dict):
        yield from ((below(path, str(key)), child) for key, child in node.items())
    elif isinstance(node, list):
        yield from ((f"{path}[{index}]", child) for index, child in enumerate(node))


def leftovers(draft: Draft, path: str, node: Document, known: Sequence[str]) -> None:
    """Say of the fields of a parameter that its converter does not know."""
    for key in node:
        if key not in known:
            draft.missing(below(path, key), "unknown to the converter, left out")


def shell(command: Any) -> str:
    """A command as one reads it, whether it was written as a line or as a list."""
    if isinstance(command, list):
        return " ".join(str(part) for part in command)
    return " ".join(str(command or "").split())
