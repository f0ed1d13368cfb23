"""What neither the schema nor a CEL rule can know of a spec: refused with the condition InvalidSpec."""

from collections.abc import Iterator
from typing import Any

from tuning_api.search import PrunerType, SamplerType
from tuning_api.spec import StudySpec

SUPPORTED_SAMPLERS = frozenset({SamplerType.TPE, SamplerType.RANDOM})
SUPPORTED_PRUNERS = frozenset({PrunerType.MEDIAN, PrunerType.NONE})


def fault(spec: StudySpec, stored: dict[str, Any] | None) -> str | None:
    """The first thing that is wrong with a spec, in words, or None.

    Args:
        spec: the spec as it stands in the resource.
        stored: the spec with which the trials in the database were made, if there are any.
    """
    return next(_not_yet(spec), None) or (next(_changes(spec, stored), None) if stored else None)


def _not_yet(spec: StudySpec) -> Iterator[str]:
    """What the resource has words for and this version cannot do: said, never ignored."""
    checkpoints = spec.trial.checkpoints
    asked: list[tuple[str, object]] = [
        ("spec.objectives with more than one objective", len(spec.objectives) > 1),
        (f"spec.sampler.type {spec.resolved_sampler.type}", spec.resolved_sampler.type not in SUPPORTED_SAMPLERS),
        (f"spec.pruner.type {spec.resolved_pruner.type}", spec.resolved_pruner.type not in SUPPORTED_PRUNERS),
        ("spec.searchSpace[].when", any(parameter.when for parameter in spec.search_space)),
        ("spec.stopWhen", spec.stop_when),
        ("spec.maxComputeSeconds", spec.max_compute_seconds),
        ("spec.enqueue", spec.enqueue),
        ("spec.warmStart", spec.warm_start),
        ("spec.trial.objective", spec.trial.objective),
        ("spec.trial.checkpoints.uri", checkpoints and checkpoints.uri),
        ("spec.trial.checkpoints.keep above 0", checkpoints and checkpoints.keep),
        ("spec.database", spec.database),
    ]
    for field, is_asked in asked:
        if is_asked:
            yield f"{field} is not supported by this version: remove it, or install a version that has it"


def _changes(spec: StudySpec, stored: dict[str, Any]) -> Iterator[str]:
    """Differences to the trials in the database that Optuna cannot bridge."""
    advice = "create a study of another name, or delete this one with deletionPolicy Delete"
    new = spec.to_document()
    if new["objectives"] != stored.get("objectives"):
        yield f"spec.objectives differ from those of the trials in the database: {advice}"
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
