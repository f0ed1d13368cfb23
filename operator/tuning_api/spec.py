"""What a person asks for: the spec of a TuningStudy.

The resource's words and rules are described in docs/user-guide.md. Whatever a schema or a CEL rule can refuse is
refused there, at `kubectl apply`; the validators below say the same again for everyone who reads a manifest without an
API server, and what neither can know becomes the condition InvalidSpec.
"""

import json
import re
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Any, Literal, Self
from urllib.parse import unquote, urlsplit

from pydantic import ConfigDict, Field, model_validator

from tuning_api.schema import IMMUTABLE, MAX_LIST_ITEMS, Document, Duration, Name, Schema, kubernetes, rule
from tuning_api.search import (
    EXHAUSTIVE,
    PLANNED,
    UNCONDITIONAL,
    Objective,
    Parameter,
    Pruner,
    PrunerType,
    Sampler,
    SamplerType,
)
from tuning_api.space import faults_of_point, faults_of_search, size

GROUP = "tuningstudy.io"
VERSION = "v1alpha1"
KIND = "TuningStudy"
PLURAL = "tuningstudies"

PLACEHOLDER = re.compile(r"\$\{([^${}]+)\}")
"""`${name}` in a trial's configuration."""
MOST_BYTES = 262_144
"""Of trial.podTemplate and of trial.lightning: each Job has a copy of the one, each trial reads the other."""
MOST_BYTES_OF_ENQUEUE = 65_536
BUILT_IN_PLACEHOLDERS = frozenset({"trial.number", "trial.dir", "study.name"})


class DeletionPolicy(StrEnum):
    """What becomes of the study's rows in Postgres when the resource is deleted."""

    RETAIN = "Retain"
    DELETE = "Delete"


class StopWhen(Schema):
    """Reasons to stop before the budget is spent."""

    target: float | None = None
    """Stop once the best value is at least as good as this. Move it, or remove it, to go on."""
    no_improvement_trials: int | None = Field(default=None, ge=1)
    """Stop once this many trials in a row have ended without a better value (complete, pruned or failed; counted from the
    first value on). Raise it, or remove it, to go on."""


_A_BOUND = "a constraint needs upper or lower"
_BOUNDS_IN_ORDER = "lower must not be greater than upper"


class Constraint(Schema):
    """What a trial must keep to, or it is no result, however good its value is."""

    model_config = ConfigDict(
        json_schema_extra=kubernetes(
            rules=[
                rule("has(self.upper) || has(self.lower)", _A_BOUND),
                rule(
                    "!has(self.upper) || !has(self.lower) || self.lower <= self.upper",
                    _BOUNDS_IN_ORDER,
                    field_path=".lower",
                ),
            ]
        )
    )

    metric: str = Field(min_length=1, max_length=128)
    """A key of `trainer.callback_metrics`; its last value counts."""
    upper: float | None = None
    """The largest value that is allowed."""
    lower: float | None = None
    """The smallest value that is allowed."""

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        if self.upper is None and self.lower is None:
            raise ValueError(f"constraint {self.metric}: {_A_BOUND}")
        if self.upper is not None and self.lower is not None and self.lower > self.upper:
            raise ValueError(f"constraint {self.metric}: {_BOUNDS_IN_ORDER}, and {self.lower:g} > {self.upper:g}")
        return self

    def violations(self, value: float) -> dict[str, float]:
        """How far a value is beyond each bound, by the name of the rule; 0 or less: it is kept, as Optuna counts."""
        found: dict[str, float] = {}
        if self.upper is not None:
            found[f"{self.metric} <= {self.upper:g}"] = value - self.upper
        if self.lower is not None:
            found[f"{self.metric} >= {self.lower:g}"] = self.lower - value
        return found


class Code(Schema):
    """A folder of user code, without an image build."""

    config_map_name: Name
    """A ConfigMap of the namespace whose files are put on PYTHONPATH, and so is the archive code.zip among them."""


_ONE_PLACE = "checkpoints need either persistentVolumeClaim or uri"
_URI = r"^(file://[^/]*/.*|[a-z][a-z0-9.+-]*://[^/?#*\s\[\]{}:]+(:[0-9]+)?(/[^?#*\s\[\]{}]*)?)$"
_URI_SHAPE = "uri must be protocol://bucket/prefix, such as s3://bucket/prefix, or a folder, file:///folder"
_USER = r"^[^/]*//[^/]*:[^/]*@"
_NO_USER = "no credentials in uri: give them to the workers as environment from a Secret, by trial.podTemplate"


class Checkpoints(Schema):
    """Where checkpoints are kept."""

    model_config = ConfigDict(
        json_schema_extra=kubernetes(
            rules=[
                rule("has(self.persistentVolumeClaim) != has(self.uri)", _ONE_PLACE),
                rule(
                    f"!has(self.uri) || self.uri.matches(r'{_USER}') || self.uri.matches(r'{_URI}')",
                    _URI_SHAPE,
                    field_path=".uri",
                ),
                rule(f"!has(self.uri) || !self.uri.matches(r'{_USER}')", _NO_USER, field_path=".uri"),
            ]
        )
    )

    persistent_volume_claim: Name | None = None
    """A claim of the namespace, mounted into every worker."""
    uri: str | None = Field(default=None, min_length=1, max_length=1024)
    """A bucket, such as s3://bucket/prefix, of any protocol that fsspec knows and the image has a package for; its credentials
    are the workers' environment. Or a folder that all workers share, file:///data/checkpoints, mounted by trial.podTemplate."""
    keep: int = Field(default=0, ge=0, le=1000)
    """How many of the study's best trials keep their checkpoint after their end; 0: it is there to go on from, and removed."""

    @property
    def folder(self) -> str | None:
        """The path that a file:// URI means; None of any other place."""
        parts = urlsplit(self.uri or "")
        return unquote(parts.path) if parts.scheme == "file" else None

    @property
    def bucket(self) -> str | None:
        """The URI of what is reached over the network; None of a folder and of a claim."""
        return None if self.folder else self.uri

    @property
    def place(self) -> str | None:
        """What a worker is told: the path of a folder, or the URI of a bucket; None of a claim."""
        return self.folder or self.bucket

    def location(self, path: str) -> str:
        """The URI of a file below this place; a claim's as KServe writes it, `pvc://claim/path`."""
        return f"{self.uri.rstrip('/')}/{path}" if self.uri else f"pvc://{self.persistent_volume_claim}/{path}"

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.persistent_volume_claim is None) == (self.uri is None):
            raise ValueError(_ONE_PLACE)
        if self.uri and re.search(_USER, self.uri):
            raise ValueError(_NO_USER)
        if self.uri and not re.search(_URI, self.uri):
            raise ValueError(_URI_SHAPE)
        return self


def _immutable(field: str, why: str) -> dict[str, str]:
    return rule(IMMUTABLE, f"{field} is immutable: {why}, create a new study")


_EXACTLY_ONE_TASK = "trial needs exactly one of lightning and objective"


class Trial(Schema):
    """What one trial runs, and in which kind of pod."""

    model_config = ConfigDict(
        json_schema_extra=kubernetes(
            rules=[
                rule("has(self.lightning) != has(self.objective)", _EXACTLY_ONE_TASK),
                rule(
                    "has(self.objective) == has(oldSelf.objective)"
                    " && (!has(self.objective) || self.objective == oldSelf.objective)",
                    "objective is immutable: trials of different code differ, create a new study",
                    field_path=".objective",
                ),
            ]
        )
    )

    lightning: Document | None = Field(
        default=None, json_schema_extra=kubernetes(rules=[_immutable("lightning", "trials of different code differ")])
    )
    """A LightningCLI configuration (model, data, trainer, optimizer, lr_scheduler); `${name}` becomes the trial's typed
    value. Also ${trial.number}, ${trial.dir} and ${study.name}."""
    objective: str | None = Field(
        default=None, max_length=253, pattern=r"^[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*$"
    )
    """An Optuna objective as package.module:function: it is called with the trial and returns a value for each of objectives.
    Its parameters may be in its code, in searchSpace, or in both."""
    image: str | None = Field(default=None, min_length=1, max_length=1024)
    """The image of the workers; default: the chart's trial image."""
    code: Code | None = None
    """User code to put on PYTHONPATH."""
    isolation: Literal["fork", "process"] = "fork"
    """fork: a trial starts in milliseconds with everything imported. process: a fresh interpreter for each trial, for code
    that cannot be forked."""
    gpus: int = Field(default=1, ge=0, le=64)
    """GPUs of each worker; 0 trains on the CPU."""
    gpu_resource: str = Field(default="nvidia.com/gpu", min_length=1, max_length=253)
    """The extended resource that a GPU is: nvidia.com/gpu, nvidia.com/mig-1g.10gb, amd.com/gpu."""
    timeout: Duration | None = None
    """The wall clock of one trial; a trial that takes longer fails with reason TimedOut."""
    progress_timeout: Duration | None = None
    """How long a trial may stand still: no batch has ended and, of an objective, nothing was reported. One that stands still
    for longer fails with reason Stalled. Default: no limit, for nobody but you knows how long a step may take."""
    out_of_memory: Literal["infeasible", "fail"] | None = None
    """What a trial is that ran out of memory. infeasible (default): a result, since its parameters do not fit; the sampler
    learns to stay away from such parameters, and maxFailedTrials does not count it. fail: a failure like any other."""
    checkpoints: Checkpoints | None = None
    """Where trials save their state, so that they go on where they were interrupted."""
    pod_template: Document | None = None
    """A PodTemplateSpec that is merged under the workers' own; the container's name is `trial`."""

    @property
    def learns_what_fits(self) -> bool:
        """Whether a trial that ran out of memory is infeasible, see `out_of_memory`."""
        return self.out_of_memory != "fail"

    @model_validator(mode="after")
    def _one_task(self) -> Self:
        if (self.lightning is None) == (self.objective is None):
            raise ValueError(_EXACTLY_ONE_TASK)
        return self


class Database(Schema):
    """A database other than the operator's."""

    secret_name: Name
    """A Secret of the namespace with a `uri` key, or with host, port, dbname, username and password."""


class WarmStart(Schema):
    """An earlier study to learn from."""

    name: Name
    """A study of the same namespace. The trials that it has finished are taken over once, when it is first named here."""


_ONE_OBJECTIVE_TO_STOP = "stopWhen needs exactly one objective: there is no single best value to watch, remove it"
_METRICS_OF_LIGHTNING = "constraints need trial.lightning: an objective of your own calls trial.set_constraint"
_UNCOMPARABLE = "trials with different objectives cannot be compared"
_ONE_OBJECTIVE_TO_PRUNE = "pruning needs exactly one objective: remove the pruner, or set its type to none"
_OBJECTIVES_DIFFER = "two objectives have the same metric: results are told by its name"
_CONDITIONS_NAME_PARAMETERS = rule(
    "self.all(p, !has(p.when) || self.exists(o, o.name == p.when.parameter && o.name != p.name))",
    "when.parameter must name another parameter of the search space",
)


def _for_samplers(samplers: Iterable[SamplerType], condition: str, message: str) -> dict[str, str]:
    """A rule for studies with one of some samplers."""
    kinds = sorted(map(str, samplers))
    return rule(
        f"!has(self.sampler) || !(self.sampler.type in {kinds}) || {condition}", message, field_path=".sampler.type"
    )


_SAMPLERS_FIT_THE_SPACE = [
    _for_samplers(
        PLANNED,
        "(has(self.searchSpace) && size(self.searchSpace) > 0)",
        "this sampler takes its points from searchSpace, which is empty: use tpe or random",
    ),
    _for_samplers(
        EXHAUSTIVE,
        "self.searchSpace.all(p, p.type != 'float' || has(p.step) || (has(p.low) && has(p.high) && p.low == p.high))",
        "this sampler tries every point, and a float without step has no end of values: give it a step, or use tpe",
    ),
    _for_samplers(
        UNCONDITIONAL,
        "self.searchSpace.all(p, !has(p.when))",
        "this sampler knows no conditions: use bruteforce, tpe or random, or remove when",
    ),
    _for_samplers(
        [SamplerType.CMAES],
        "size(self.objectives) == 1",
        "sampler cmaes needs exactly one objective: use nsga2 or tpe",
    ),
]


class StudySpec(Schema):
    """The spec of a TuningStudy."""

    model_config = ConfigDict(
        json_schema_extra=kubernetes(
            rules=[
                rule(
                    "size(self.objectives) == 1 || !has(self.pruner) || self.pruner.type == 'none'",
                    _ONE_OBJECTIVE_TO_PRUNE,
                    field_path=".pruner",
                ),
                rule(
                    "size(self.objectives) == 1 || !has(self.stopWhen)",
                    _ONE_OBJECTIVE_TO_STOP,
                    field_path=".stopWhen",
                ),
                rule(
                    "!has(self.constraints) || has(self.trial.lightning)",
                    _METRICS_OF_LIGHTNING,
                    field_path=".constraints",
                ),
                rule(
                    "has(self.constraints) == has(oldSelf.constraints)"
                    " && (!has(self.constraints) || self.constraints == oldSelf.constraints)",
                    "constraints is immutable: the sampler has learned from the bounds as they were, create a new study",
                    field_path=".constraints",
                ),
                rule(
                    "has(self.database) == has(oldSelf.database)"
                    " && (!has(self.database) || self.database == oldSelf.database)",
                    "database is immutable: a study lives in one database, create a new study",
                    field_path=".database",
                ),
                *_SAMPLERS_FIT_THE_SPACE,
                rule(
                    "!has(self.trial.lightning) || (has(self.searchSpace) && size(self.searchSpace) > 0)",
                    "searchSpace needs at least one parameter",
                    field_path=".searchSpace",
                ),
            ]
        )
    )

    objectives: list[Objective] = Field(
        min_length=1,
        max_length=3,
        json_schema_extra=kubernetes(
            rules=[
                _immutable("objectives", _UNCOMPARABLE),
                rule("self.all(o, self.exists_one(other, other.metric == o.metric))", _OBJECTIVES_DIFFER),
            ]
        ),
    )
    """What the study optimises: one objective, or two or three for a Pareto front."""
    constraints: list[Constraint] | None = Field(
        default=None, min_length=1, max_length=16, json_schema_extra=kubernetes(list_map_keys=["metric"])
    )
    """Bounds that other metrics must keep, such as a latency. A trial that breaks one is infeasible: it counts, the sampler
    learns from it, and it is never the best."""
    search_space: list[Parameter] = Field(
        default=[],
        max_length=MAX_LIST_ITEMS,
        json_schema_extra=kubernetes(list_map_keys=["name"], rules=[_CONDITIONS_NAME_PARAMETERS]),
    )
    """The parameters and where to look for their best values. Bounds may be moved while the study runs: trials that have not
    started follow them, and the sampler then learns from the trials that lie within them."""
    sampler: Sampler | None = None
    """How the next parameters are chosen; default: tpe."""
    pruner: Pruner | None = None
    """Which trials are stopped early; default: median with one objective, none with several."""
    max_trials: int = Field(ge=1, le=100_000)
    """Trials that end (complete, pruned or failed) before the study is complete; never exceeded. Raise it to go on."""
    timeout: Duration | None = None
    """The wall clock of the study while it is not suspended."""
    max_compute_seconds: int | None = Field(default=None, ge=1)
    """Seconds of all trials together, across preemptions and suspensions: four trials at a time spend four in a second. Raise
    it to go on."""
    max_failed_trials: int = Field(default=10, ge=1, le=100_000)
    """The study fails once this many trials have failed, and says with which error. Raise it to go on. Trials that ran out of
    memory count only with trial.outOfMemory: fail."""
    stop_when: StopWhen | None = None
    """Reasons to stop early; with one objective."""
    parallelism: int = Field(default=1, ge=0, le=1000)
    """Workers at the same time; also set by `kubectl scale`."""
    suspend: bool = False
    """Stop all workers and keep everything; false goes on."""
    enqueue: list[Document] | None = Field(default=None, max_length=MAX_LIST_ITEMS)
    """Known good points, tried first and once each, also when they are appended while the study runs. Parameters that are left
    out are sampled. A point that is removed before it started is not tried."""
    warm_start: list[WarmStart] | None = Field(
        default=None, max_length=16, json_schema_extra=kubernetes(list_map_keys=["name"])
    )
    """Earlier studies of the namespace to learn from: their finished trials that fit the search space teach the sampler and
    the pruner. They are not counted, and never the best."""
    deletion_policy: DeletionPolicy = DeletionPolicy.RETAIN
    """Retain: the trials stay in the database and a study of the same name resumes them. Delete: they go with the study."""
    trial: Trial
    """What one trial runs."""
    queue_name: Name | None = None
    """A Kueue LocalQueue that admits the workers."""
    database: Database | None = None
    """A database of your own; default: the operator's, a schema and a role for each namespace."""

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        if fault := next(_faults(self), None):
            raise ValueError(fault)
        return self

    @property
    def most_trials(self) -> int:
        """maxTrials, or as many as the search space has points where each is tried once. NB: of rows only the budget knows."""
        points = size(self.search_space) if self.resolved_sampler.type in EXHAUSTIVE else None
        return self.max_trials if points is None else min(self.max_trials, points)

    @property
    def resolved_sampler(self) -> Sampler:
        """The sampler, with the default where none is given."""
        return self.sampler or Sampler()

    @property
    def resolved_pruner(self) -> Pruner:
        """The pruner, with the default where none is given."""
        if self.pruner is not None:
            return self.pruner
        return Pruner(type=PrunerType.MEDIAN if len(self.objectives) == 1 else PrunerType.NONE)


def _faults(spec: StudySpec) -> Iterator[str]:
    yield from _size_faults(spec)
    yield from _search_faults(spec)
    yield from _faults_of_goals(spec)
    if spec.trial.pod_template is not None and not _is_pod_template(spec.trial.pod_template):
        yield (
            "trial.podTemplate must be a PodTemplateSpec: containers (ours: trial), env, volumes and volumeMounts are lists"
            " in which each has a name, and each of volumeMounts a mountPath"
        )
    if spec.trial.lightning is not None:
        yield from _placeholder_faults(spec.trial.lightning, spec)


def _size_faults(spec: StudySpec) -> Iterator[str]:
    """What is too large. NB: no schema can bound what is free-form; the operator reads it in each pass."""
    parts: tuple[tuple[str, Any, int], ...] = (
        ("trial.podTemplate", spec.trial.pod_template, MOST_BYTES),
        ("trial.lightning", spec.trial.lightning, MOST_BYTES),
        ("enqueue", spec.enqueue, MOST_BYTES_OF_ENQUEUE),
    )
    for name, value, most in parts:
        if value and (length := len(json.dumps(value))) > most:
            yield f"{name} may have {most:,} bytes as JSON, and has {length:,}: give the pods what is large by a ConfigMap"


def _search_faults(spec: StudySpec) -> Iterator[str]:
    names = [parameter.name for parameter in spec.search_space]
    if duplicates := sorted({name for name in names if names.count(name) > 1}):
        yield f"searchSpace: two parameters are called {', '.join(duplicates)}"
    for parameter in spec.search_space:
        if parameter.when and parameter.when.parameter not in set(names) - {parameter.name}:
            yield f"parameter {parameter.name}: when.parameter names {parameter.when.parameter}, which is no other parameter"
    yield from faults_of_search(spec.search_space, spec.resolved_sampler, objectives=len(spec.objectives))
    for index, point in enumerate(spec.enqueue or []):
        yield from (f"enqueue[{index}] {fault}" for fault in faults_of_point(spec.search_space, point))


def _faults_of_goals(spec: StudySpec) -> Iterator[str]:
    if len({objective.metric for objective in spec.objectives}) < len(spec.objectives):
        yield _OBJECTIVES_DIFFER
    if len(spec.objectives) > 1 and spec.pruner is not None and spec.pruner.type is not PrunerType.NONE:
        yield _ONE_OBJECTIVE_TO_PRUNE
    if len(spec.objectives) > 1 and spec.stop_when is not None:
        yield _ONE_OBJECTIVE_TO_STOP
    if spec.constraints and spec.trial.lightning is None:
        yield _METRICS_OF_LIGHTNING
    limited = [constraint.metric for constraint in spec.constraints or []]
    if duplicates := sorted({metric for metric in limited if limited.count(metric) > 1}):
        yield f"constraints: two are about {', '.join(duplicates)}: write its upper and lower as one"
    earlier = [item.name for item in spec.warm_start or []]
    if duplicates := sorted({name for name in earlier if earlier.count(name) > 1}):
        yield f"warmStart: {', '.join(duplicates)} is named twice"


def _is_pod_template(template: dict[str, Any]) -> bool:
    """Whether it can be merged; what its fields may hold, the API server knows."""
    pod = template.get("spec", {})
    if not isinstance(pod, dict) or not isinstance(template.get("metadata", {}), dict):
        return False
    lists = [pod.get(name, []) for name in ("containers", "initContainers", "volumes")]
    if not all(map(_are_named, lists)):
        return False
    return all(
        _are_named(item.get("env", [])) and _are_named(item.get("volumeMounts", []), "name", "mountPath")
        for item in lists[0]
    )


def _are_named(items: object, *names: str) -> bool:
    """Whether it is a list of mappings with texts by these names."""
    return isinstance(items, list) and all(
        isinstance(item, dict) and all(isinstance(item.get(name), str) for name in names or ("name",)) for item in items
    )


def _placeholder_faults(config: dict[str, Any], spec: StudySpec) -> Iterator[str]:
    names = [parameter.name for parameter in spec.search_space]
    if not names:
        yield "searchSpace needs at least one parameter"
    used = placeholders(config)
    if unknown := sorted(used - set(names) - BUILT_IN_PLACEHOLDERS):
        yield f"trial.lightning uses ${{{unknown[0]}}}, and searchSpace has no such parameter (it has {', '.join(names)})"
    used |= {parameter.when.parameter for parameter in spec.search_space if parameter.when}
    if unused := [name for name in names if name not in used]:
        yield f"searchSpace has {unused[0]}, and nothing uses it: write ${{{unused[0]}}} in trial.lightning, or remove it"


def placeholders(value: object) -> set[str]:
    """The names of all `${name}` in a configuration."""
    if isinstance(value, str):
        return set(PLACEHOLDER.findall(value))
    if isinstance(value, dict):
        return {name for item in value.values() for name in placeholders(item)}
    if isinstance(value, list):
        return {name for item in value for name in placeholders(item)}
    return set()


def class_paths(node: object) -> Iterator[str]:
    """Every class that a configuration names with its module, in the order of the text."""
    if isinstance(node, dict):
        for key, item in node.items():
            if key == "class_path" and isinstance(item, str):
                if "." in item and not placeholders(item):
                    yield item
            else:
                yield from class_paths(item)
    elif isinstance(node, list):
        for item in node:
            yield from class_paths(item)
