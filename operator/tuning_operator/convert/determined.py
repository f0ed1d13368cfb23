"""An experiment of Determined as a study.

Hyperparameters may be nested mappings; whatever has no `type` of theirs is a constant.
"""

import math

from tuning_api.schema import Document
from tuning_api.search import MAX_CHOICES
from tuning_operator.convert import pods, space
from tuning_operator.convert.draft import Conversion, Draft, leftovers, shell
from tuning_operator.convert.reading import ConversionError, as_number, below, count, items, mapping, number
from tuning_operator.convert.space import Dimension

_TYPES = ("const", "int", "double", "log", "categorical")
_SEARCHERS = (
    "single",
    "random",
    "grid",
    "async_halving",
    "adaptive_asha",
    "adaptive_simple",
    "adaptive",
    "sync_halving",
)
_CONTAINER = "determined-container"
_PARALLEL_TRIALS, _RUNGS, _DIVISOR = 16, 5, 4
"""Determined's defaults."""
_WORDS = {
    "description": "a comment or an annotation of the manifest",
    "labels": "labels of the manifest, if they are legal ones",
    "workspace": "studies have namespaces",
    "project": "studies have namespaces",
    "data": "constants of the code: write them into the objective",
    "max_restarts": "a trial whose worker is lost is queued again; one that fails by itself counts as failed",
    "records_per_epoch": "the code's own matter",
    "scheduling_unit": "the code's own matter",
    "min_validation_period": "the code's own matter; with Lightning: trainer.val_check_interval",
    "min_checkpoint_period": "the code's own matter",
    "perform_initial_validation": "the code's own matter",
    "checkpoint_policy": "see trial.checkpoints",
    "checkpoint_storage": "see trial.checkpoints: a claim, or the uri of a bucket; its access keys belong into a Secret",
    "bind_mounts": "a volume in trial.podTemplate",
    "debug": "the code's own matter",
    "profiling": "the code's own matter; with Lightning: trainer.profiler",
    "optimizations": "the code's own matter; with Lightning: trainer.strategy",
    "log_policies": "failed trials are shown with their last error; maxFailedTrials stops the study",
    "retention_policy": "the cluster keeps the logs",
    "integrations": "nothing like it",
    "tensorboard_storage": "with Lightning: trainer.logger",
}


def recognises(document: Document) -> bool:
    """Whether it is an experiment's configuration."""
    searcher = document.get("searcher")
    return isinstance(searcher, dict) and searcher.get("name") in (*_SEARCHERS, "custom")


def convert(document: Document, *, name: str) -> Conversion:
    """The study of an experiment.

    Args:
        document: The experiment's configuration.
        name: What the study is called if the experiment has no name.

    Raises:
        ConversionError: a field is not what Determined takes.
    """
    draft = Draft(str(document.get("name") or name))
    if document.get("name"):
        draft.mapped("name", "metadata.name")
    searcher = mapping(document, "searcher")
    _objective(draft, searcher)
    _searcher(draft, searcher)
    hyperparameters = mapping(document, "hyperparameters")
    _hyperparameters(draft, hyperparameters, path="hyperparameters", prefix="", is_grid=searcher.get("name") == "grid")
    _resources(draft, document, searcher)
    _environment(draft, mapping(document, "environment"))
    if "entrypoint" in document:
        draft.command = shell(document["entrypoint"])
        draft.changed("entrypoint", "trial.objective: context.get_hparam becomes trial.params")
    if "reproducibility" in document:
        _seed(draft, mapping(document, "reproducibility"))
    for key, words in _WORDS.items():
        if key in document:
            draft.missing(key, words)
    return draft.finish(document)


def _objective(draft: Draft, searcher: Document) -> None:
    metric = str(searcher.get("metric") or "objective")
    smaller = searcher.get("smaller_is_better", True)
    direction = "minimize" if smaller else "maximize"
    draft.objectives = [{"metric": metric, "direction": direction}]
    draft.mapped("searcher.metric", f"objectives[0].metric: {metric}")
    draft.mapped("searcher.smaller_is_better", f"objectives[0].direction: {direction}")
    for key in ("source_trial_id", "source_checkpoint_uuid"):
        if searcher.get(key) is not None:
            draft.missing(f"searcher.{key}", "load those weights in the objective, from a volume of trial.podTemplate")


def _searcher(draft: Draft, searcher: Document) -> None:
    name = str(searcher.get("name"))
    draft.spec |= {"sampler": {"type": "grid" if name == "grid" else "random"}, "pruner": {"type": "none"}}
    if "max_trials" in searcher:
        trials = max(1, count(searcher["max_trials"], path="searcher.max_trials"))
        draft.keep(searcher, "max_trials", "maxTrials", trials, path="searcher")
    match name:
        case "random" | "grid":
            draft.mapped("searcher.name", f"sampler.type: {name}")
        case "single":
            draft.spec["maxTrials"] = 1
            draft.changed("searcher.name", "single: one trial, and nothing is searched")
        case "async_halving" | "adaptive_asha" | "adaptive_simple" | "adaptive" | "sync_halving":
            _halving(draft, searcher, name=name)
        case _:
            draft.changed("searcher.name", f"{name} has no counterpart: sampler.type random")
    if "max_length" in searcher:
        draft.missing("searcher.max_length", "how long a trial trains is the code's own matter: the steps it reports")


def _halving(draft: Draft, searcher: Document, *, name: str) -> None:
    longest, unit = _length(searcher)
    divisor = max(2, round(as_number(searcher.get("divisor", _DIVISOR), path="searcher.divisor")))
    rungs = _rungs(searcher, longest=longest, divisor=divisor)
    pruner: Document = {"type": "hyperband", "minResource": max(1, int(longest / float(divisor) ** (rungs - 1)))}
    if name in {"async_halving", "sync_halving"} or searcher.get("mode") == "aggressive":
        pruner["type"] = "successiveHalving"
    else:
        pruner["maxResource"] = max(1, int(longest))
    pruner["reductionFactor"] = divisor
    draft.spec["pruner"] = pruner
    draft.changed(
        "searcher.name", f"{name}: sampler.type random with pruner {pruner['type']}; tpe usually needs fewer trials"
    )
    for key in ("divisor", "max_rungs", "num_rungs", "mode", "bracket_rungs", "max_time", "time_metric", "stop_once"):
        if key in searcher:
            draft.changed(f"searcher.{key}", f"see pruner {pruner['type']}, {rungs} rungs at most")
    draft.decide(
        "searcher.max_time",
        f"the pruner counts what the objective reports, and these are {unit}: divide them by the {unit} of one report",
        at="spec.pruner",
    )


def _length(searcher: Document) -> tuple[float, str]:
    """How long a trial trains at most, and in which unit."""
    if searcher.get("max_time") is not None:
        return number(searcher, "max_time", path="searcher"), str(searcher.get("time_metric", "steps"))
    length = searcher.get("max_length")
    if isinstance(length, dict) and length:
        unit, value = next(iter(length.items()))
        return as_number(value, path=f"searcher.max_length.{unit}"), str(unit)
    if length is not None:
        return as_number(length, path="searcher.max_length"), "steps"
    raise ConversionError("searcher.max_time is missing: early stopping needs the length of a trial")


def _rungs(searcher: Document, *, longest: float, divisor: int) -> int:
    """As Determined's master counts them: the last rung has one trial at least, and the first rung one unit."""
    asked = searcher.get("max_rungs", searcher.get("num_rungs", _RUNGS))
    trials = as_number(searcher.get("max_trials", math.inf), path="searcher.max_trials")
    limits = [int(math.log(value, divisor)) + 1 for value in (longest, trials) if 1 <= value < math.inf]
    return max(1, min([count(asked, path="searcher.max_rungs"), *limits]))


def _hyperparameters(draft: Draft, node: Document, *, path: str, prefix: str, is_grid: bool) -> None:
    for key, value in node.items():
        name, at = f"{prefix}{key}", below(path, key)
        if not isinstance(value, dict):
            draft.fix(at, name, value)
        elif value.get("type") == "const":
            draft.fix(at, name, value.get("val"))
        elif value.get("type") in _TYPES:
            leftovers(draft, at, value, ("type", "minval", "maxval", "base", "count", "vals"))
            draft.add(at, name, _dimension(value, path=at, is_grid=is_grid))
        elif value:
            _hyperparameters(draft, value, path=at, prefix=f"{name}.", is_grid=is_grid)
        else:
            draft.fix(at, name, value)


def _dimension(value: Document, *, path: str, is_grid: bool) -> Dimension:
    if value["type"] == "categorical":
        return space.choices(items(value, "vals", path=path), path=f"{path}.vals")
    low, high = number(value, "minval", path=path), number(value, "maxval", path=path)
    if value.get("count") is not None:
        if is_grid:
            return _points(value, low, high, path=path)
        dimension = _range(value, low, high, path=path)
        return Dimension(dimension.fields, (*dimension.changes, "count is left out: it is for grid search"))
    return _range(value, low, high, path=path)


def _range(value: Document, low: float, high: float, *, path: str) -> Dimension:
    if value["type"] == "log":
        return space.exponents(low, high, as_number(value.get("base", 10), path=f"{path}.base"), path=path)
    return space.number(low, high, path=path, whole=value["type"] == "int")


def _points(value: Document, low: float, high: float, *, path: str) -> Dimension:
    """The values that a grid tries; as choices, since those of a logarithm have no step."""
    points = count(value["count"], path=f"{path}.count")
    if points > MAX_CHOICES:
        raise ConversionError(f"{path}.count: a parameter has at most {MAX_CHOICES} choices, not {value['count']!r}")
    gap = (high - low) / max(points - 1, 1)
    positions = [low + index * gap for index in range(points)]
    if value["type"] == "log":
        base = as_number(value.get("base", 10), path=f"{path}.base")
        positions = [base**position for position in positions]
    numbers = [
        round(position) if value["type"] == "int" else space.plain(space.rounded(position)) for position in positions
    ]
    return space.choices(numbers, path=path, changes=(f"the {points} points of the grid are choices",))


def _resources(draft: Draft, document: Document, searcher: Document) -> None:
    resources = mapping(document, "resources")
    slots = count(resources.get("slots_per_trial", 1), path="resources.slots_per_trial")
    draft.trial["gpus"] = slots
    draft.mapped("resources.slots_per_trial", f"trial.gpus: {slots}")
    for key in resources:
        if key not in {"slots_per_trial", "max_slots"}:
            draft.missing(f"resources.{key}", _RESOURCES.get(key, "trial.podTemplate has what a pod can have"))
    parallel = searcher.get("max_concurrent_trials", _PARALLEL_TRIALS)
    limits = [count(parallel, path="searcher.max_concurrent_trials"), draft.spec.get("maxTrials", math.inf)]
    if resources.get("max_slots"):
        limits.append(max(1, count(resources["max_slots"], path="resources.max_slots") // max(slots, 1)))
    draft.spec["parallelism"] = int(min(limit for limit in limits if limit))
    words = f"parallelism: {draft.spec['parallelism']}"
    draft.mapped("searcher.max_concurrent_trials", words)
    if "max_slots" in resources:
        draft.mapped("resources.max_slots", words)


_RESOURCES = {
    "resource_pool": "a node selector in trial.podTemplate, or a Kueue queue in queueName",
    "priority": "priorityClassName in trial.podTemplate, or a Kueue queue in queueName",
    "weight": "a Kueue queue in queueName",
    "shm_size": "workers have shared memory in /dev/shm",
    "native_parallel": "a trial is one process in one pod here",
}


def _environment(draft: Draft, environment: Document) -> None:
    image = _for_gpus(environment.get("image"))
    if image:
        draft.trial["image"] = str(image)
        draft.changed("environment.image", "trial.image: the trial image's worker must be in it (docs/user-guide.md)")
    variables = _for_gpus(environment.get("environment_variables"))
    pairs = [str(item).partition("=") for item in (variables if isinstance(variables, list) else [])]
    template = mapping(environment, "pod_spec", path="environment")
    container = pods.find(template, container=_CONTAINER) or {
        pods.POD: mapping(template, "spec"),
        pods.METADATA: mapping(template, "metadata"),
    }
    container["env"] = [*(container.get("env") or []), *({"name": key, "value": value} for key, _, value in pairs)]
    found = pods.trial_of(container)
    if "podTemplate" in found:
        draft.trial["podTemplate"] = found["podTemplate"]
    for words in pods.left_out(container):
        draft.missing("environment", words)
    for key in ("environment_variables", "pod_spec"):
        if environment.get(key):
            draft.mapped(f"environment.{key}", "trial.podTemplate, but for what is listed below")
    if "registry_auth" in environment:
        draft.missing("environment.registry_auth", "a pull Secret: imagePullSecrets in trial.podTemplate")


def _for_gpus(value: object) -> object:
    """One of the values for each kind of machine: that of GPUs, if it is a mapping of them."""
    if isinstance(value, dict):
        return next((value[key] for key in ("cuda", "gpu", "rocm", "cpu") if value.get(key)), None)
    return value


def _seed(draft: Draft, reproducibility: Document) -> None:
    if reproducibility.get("experiment_seed") is None:
        return
    seed = count(reproducibility["experiment_seed"], path="reproducibility.experiment_seed") % 2**31
    draft.spec["sampler"]["seed"] = seed
    draft.mapped("reproducibility.experiment_seed", f"sampler.seed: {seed}")
