"""What neither the schema nor a CEL rule can know of a spec: refused with the condition InvalidSpec."""

from collections.abc import Iterator
from itertools import chain
from typing import Any

from tuning_api.spec import StudySpec
from tuning_operator.model import Record


def fault(spec: StudySpec, stored: dict[str, Any] | None) -> str | None:
    """The first thing that is wrong with a spec, in words, or None.

    Args:
        spec: the spec as it stands in the resource.
        stored: the spec with which the trials in the database were made, if there are any.
    """
    faults = chain(_not_yet(spec), _contradictions(spec), _changes(spec, stored) if stored else ())
    return next(faults, None)


def foreign(spec: StudySpec, record: Record) -> str | None:
    """Why the study of this name in the database is another one, in words, or None."""
    advice = "create a study of another name, or delete the one in the database"
    directions = tuple(objective.direction for objective in spec.objectives)
    if record.has_trials and not record.stored_spec:
        return f"the database has a study of this name with trials that were not made by a TuningStudy: {advice}"
    if record.directions is not None and record.directions != directions:
        found, asked = (" and ".join(map(str, item)) or "nothing" for item in (record.directions, directions))
        return (
            f"the database has a study of this name that looks for {found}, and spec.objectives for {asked}: {advice}"
        )
    return None


def _not_yet(spec: StudySpec) -> Iterator[str]:
    """What the resource has words for and this version cannot do: said, never ignored."""
    if spec.database:
        yield "spec.database is not supported by this version: remove it, or install a version that has it"


def _contradictions(spec: StudySpec) -> Iterator[str]:
    if spec.trial.checkpoints and spec.trial.checkpoints.keep and len(spec.objectives) > 1:
        yield (
            "spec.trial.checkpoints.keep needs exactly one objective: of several, a trial that was among the best comes back"
            " when others are dominated, and its checkpoint would be gone; remove keep"
        )


def _changes(spec: StudySpec, stored: dict[str, Any]) -> Iterator[str]:
    """Differences to the trials in the database that Optuna cannot bridge."""
    advice = "create a study of another name, or delete this one with deletionPolicy Delete"
    new = spec.to_document()
    if new["objectives"] != stored.get("objectives"):
        yield f"spec.objectives differ from those of the trials in the database: {advice}"
    if new.get("constraints") != stored.get("constraints"):
        yield f"spec.constraints differ from those that the trials in the database were judged by: {advice}"
    for field in ("lightning", "objective"):
        if new["trial"].get(field) != stored.get("trial", {}).get(field):
            yield f"spec.trial.{field} differs from what the trials in the database ran: {advice}"
    known = {parameter["name"]: parameter for parameter in stored.get("searchSpace", [])}
    for parameter in spec.search_space:
        before = known.get(parameter.name)
        if before and _kind(parameter.to_document()) != _kind(before):
            yield f"parameter {parameter.name} has another type, log or choices than in the database: {advice}"


def _kind(parameter: dict[str, Any]) -> tuple[Any, ...]:
    return parameter.get("type"), bool(parameter.get("log")), parameter.get("choices")
