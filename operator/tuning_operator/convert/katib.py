"""A Katib Experiment (kubeflow.org/v1beta1) as a study.

Numbers of its search space are texts there; the trial is a Kubernetes object whose arguments are placeholders, which here
becomes a function.
"""

import re
from collections.abc import Iterator
from typing import Any

from tuning_api.schema import Document
from tuning_operator.convert import pods, space
from tuning_operator.convert.draft import Conversion, Draft, leftovers, shell
from tuning_operator.convert.reading import ConversionError, as_number, count, items, mapping
from tuning_operator.convert.space import Dimension

ALGORITHMS: dict[str, Document] = {
    "random": {"type": "random"},
    "grid": {"type": "grid"},
    "tpe": {"type": "tpe", "multivariate": False},
    "multivariate-tpe": {"type": "tpe", "multivariate": True},
    "bayesianoptimization": {"type": "gp"},
    "cmaes": {"type": "cmaes"},
    "sobol": {"type": "qmc", "qmcType": "sobol"},
    "hyperband": {"type": "random"},
}
_SETTINGS = {
    "random_state": ("seed", ("random", "grid", "tpe", "gp", "cmaes", "qmc")),
    "n_startup_trials": ("nStartupTrials", ("tpe", "gp", "cmaes")),
    "n_initial_points": ("nStartupTrials", ("gp",)),
    "n_ei_candidates": ("nEiCandidates", ("tpe",)),
    "n_EI_candidates": ("nEiCandidates", ("tpe",)),
}
_HYPERBAND = ("resource_name", "r_l", "eta")
_PARALLEL_TRIALS = 3
"""Katib's default, as the next two are."""
_MEDIAN_TRIALS, _MEDIAN_STEP = 3, 4
_PLACEHOLDER = re.compile(r"\$\{trialParameters\.([^}]+)\}")
_BUDGET = "the trial's length, which the pruner decides now: train to the end, and report each step"


def recognises(document: Document) -> bool:
    """Whether it is an Experiment."""
    return document.get("kind") == "Experiment" and str(document.get("apiVersion", "")).startswith("kubeflow.org/")


def convert(document: Document, *, name: str) -> Conversion:
    """The study of an Experiment.

    Args:
        document: The Experiment.
        name: What the study is called if the Experiment has no name.

    Raises:
        ConversionError: a field is not what Katib takes.
    """
    spec = mapping(document, "spec")
    draft = Draft(name)
    _metadata(draft, mapping(document, "metadata"))
    draft.mapped("apiVersion", "apiVersion: tuningstudy.io/v1alpha1")
    draft.mapped("kind", "kind: TuningStudy")
    if "status" in document:
        draft.missing("status", "what the Experiment did is not taken over")
    _objective(draft, mapping(spec, "objective", path="spec"))
    budget = _algorithm(draft, mapping(spec, "algorithm", path="spec"))
    _early_stopping(draft, mapping(spec, "earlyStopping", path="spec"))
    for index, parameter in enumerate(items(spec, "parameters", path="spec")):
        _parameter(draft, parameter, path=f"spec.parameters[{index}]", budget=budget)
    _limits(draft, spec)
    _template(draft, mapping(spec, "trialTemplate", path="spec"))
    _others(draft, spec)
    return draft.finish(document)


def _metadata(draft: Draft, metadata: Document) -> None:
    for key in ("name", "generateName"):
        if metadata.get(key):
            draft.name = str(metadata[key])
            draft.mapped(f"metadata.{key}", "metadata.name")
    for key in ("namespace", "labels"):
        if metadata.get(key):
            draft.metadata[key] = metadata[key]
            draft.mapped(f"metadata.{key}", f"metadata.{key}")


def _objective(draft: Draft, objective: Document) -> None:
    path = "spec.objective"
    metric = str(objective.get("objectiveMetricName") or "objective")
    direction = str(objective.get("type") or "minimize")
    if direction not in {"minimize", "maximize"}:
        raise ConversionError(f"{path}.type: minimize or maximize is needed, and it is {direction!r}")
    draft.objectives = [{"metric": metric, "direction": direction}]
    draft.mapped(f"{path}.objectiveMetricName", f"objectives[0].metric: {metric}")
    draft.mapped(f"{path}.type", f"objectives[0].direction: {direction}")
    if objective.get("goal") is not None:
        target = space.plain(as_number(objective["goal"], path=f"{path}.goal"))
        draft.spec["stopWhen"] = {"target": target}
        draft.mapped(f"{path}.goal", f"stopWhen.target: {target}")
    if objective.get("additionalMetricNames"):
        draft.missing(
            f"{path}.additionalMetricNames", "they were recorded only: trial.set_user_attr keeps them with the trial"
        )
    words = "a trial's value is what the objective returns, not its best or latest log line: return the one you mean"
    draft.missing(f"{path}.metricStrategies", words)


def _algorithm(draft: Draft, algorithm: Document) -> str | None:
    """The sampler, and for Hyperband the pruner too and the name of the parameter that is the budget."""
    path = "spec.algorithm"
    name = str(algorithm.get("algorithmName") or "random")
    settings = dict(_settings(algorithm, path=path))
    sampler = dict(ALGORITHMS.get(name, {"type": "tpe"}))
    if name in ALGORITHMS:
        draft.mapped(f"{path}.algorithmName", f"sampler.type: {sampler['type']}")
    else:
        draft.changed(f"{path}.algorithmName", f"{name} has no counterpart: sampler.type tpe")
    for setting, (at, value) in settings.items():
        option, types = _SETTINGS.get(setting, ("", ()))
        if sampler["type"] in types and value != "None":
            whole = count(value, path=at)
            sampler[option] = whole % 2**31 if option == "seed" else whole
            draft.mapped(at, f"sampler.{option}: {sampler[option]}")
        elif not (name == "hyperband" and setting in _HYPERBAND):
            draft.missing(at, f"{setting} is no option of sampler {sampler['type']}")
    draft.spec["sampler"] = sampler
    draft.spec["pruner"] = {"type": "none"}
    return _hyperband(draft, settings) if name == "hyperband" else None


def _settings(node: Document, *, path: str) -> Iterator[tuple[str, tuple[str, Any]]]:
    """Name, and path and value, of each setting."""
    for index, setting in enumerate(items(node, "algorithmSettings", path=path)):
        yield str(setting.get("name")), (f"{path}.algorithmSettings[{index}]", setting.get("value"))


def _hyperband(draft: Draft, settings: dict[str, tuple[str, Any]]) -> str:
    at, longest = settings.get("r_l", ("spec.algorithm.algorithmSettings", 1))
    most = max(1, int(as_number(longest, path=at)))
    pruner = {"type": "hyperband", "minResource": 1, "maxResource": most}
    draft.changed(at, f"pruner.maxResource: {most}, in steps that the objective reports")
    if "eta" in settings:
        at, eta = settings["eta"]
        pruner["reductionFactor"] = max(2, round(as_number(eta, path=at)))
        draft.mapped(at, f"pruner.reductionFactor: {pruner['reductionFactor']}")
    draft.spec["pruner"] = pruner
    at, resource = settings.get("resource_name", ("", ""))
    if at:
        draft.changed(at, f"{resource} is {_BUDGET}")
    return str(resource)


def _early_stopping(draft: Draft, stopping: Document) -> None:
    path = "spec.earlyStopping"
    if not stopping:
        return
    if stopping.get("algorithmName") != "medianstop":
        draft.missing(f"{path}.algorithmName", f"{stopping.get('algorithmName')}: choose a pruner, such as median")
        return
    settings = dict(_settings(stopping, path=path))
    at_trials, trials = settings.get("min_trials_required", (path, _MEDIAN_TRIALS))
    at_step, step = settings.get("start_step", (path, _MEDIAN_STEP))
    draft.spec["pruner"] = {
        "type": "median",
        "nStartupTrials": count(trials, path=at_trials),
        "nWarmupSteps": max(0, count(step, path=at_step) - 1),
    }
    words = f"pruner: median, from trial {trials} and step {step} on, if the objective reports its steps from 0"
    draft.changed(path, f"{words}; it compares with the others' values at the same step, not with their means")


def _parameter(draft: Draft, parameter: Document, *, path: str, budget: str | None) -> None:
    name = str(parameter.get("name"))
    if budget is not None and name == budget:
        draft.missing(path, f"{name} is {_BUDGET}")
        return
    feasible = mapping(parameter, "feasibleSpace", path=path)
    draft.add(path, name, _dimension(str(parameter.get("parameterType")), feasible, path=f"{path}.feasibleSpace"))
    leftovers(draft, path, parameter, ("name", "parameterType", "feasibleSpace"))
    leftovers(draft, f"{path}.feasibleSpace", feasible, ("min", "max", "step", "list", "distribution"))


def _dimension(kind: str, feasible: Document, *, path: str) -> Dimension:
    values = [str(value) for value in items(feasible, "list", path=path)]
    match kind:
        case "categorical":
            changes = ("its numbers are texts, as in Katib",) if any(map(_is_number, values)) else ()
            return space.choices(values, path=f"{path}.list", changes=changes)
        case "discrete":
            numbers = [space.plain(as_number(value, path=f"{path}.list")) for value in values]
            return space.choices(numbers, path=f"{path}.list")
        case "int" | "double":
            return _range(feasible, whole=kind == "int", path=path)
        case _:
            raise ConversionError(
                f"{path.rpartition('.')[0]}.parameterType: int, double, discrete or categorical is needed, not {kind!r}"
            )


def _range(feasible: Document, *, whole: bool, path: str) -> Dimension:
    low, high = (as_number(feasible.get(key), path=f"{path}.{key}") for key in ("min", "max"))
    step = as_number(feasible["step"], path=f"{path}.step") if feasible.get("step") not in {None, ""} else None
    distribution = str(feasible.get("distribution") or "uniform")
    log = distribution in {"logUniform", "logNormal"}
    changes: tuple[str, ...] = ()
    if distribution in {"normal", "logNormal"}:
        changes = (f"Optuna has no {distribution}: sampled evenly{' on a logarithmic scale' if log else ''}",)
    return space.number(low, high, path=path, whole=whole, step=step, log=log, changes=changes)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _limits(draft: Draft, spec: Document) -> None:
    for key, name in (("maxTrialCount", "maxTrials"), ("maxFailedTrialCount", "maxFailedTrials")):
        if spec.get(key) is not None:
            draft.keep(spec, key, name, max(1, count(spec[key], path=f"spec.{key}")), path="spec")
    parallel = spec.get("parallelTrialCount", _PARALLEL_TRIALS)
    draft.spec["parallelism"] = count(parallel, path="spec.parallelTrialCount")
    draft.mapped("spec.parallelTrialCount", f"parallelism: {parallel}")


def _template(draft: Draft, template: Document) -> None:
    path = "spec.trialTemplate"
    references = _references(template)
    found = pods.find(template.get("trialSpec"), container=template.get("primaryContainerName"))
    if found is None:
        draft.missing(
            path, "the trial's object is not here, or has no pod: set trial.image, trial.gpus and podTemplate"
        )
        return
    draft.command = _PLACEHOLDER.sub(
        lambda match: f"<{references.get(match[1], match[1])}>",
        shell([*_list(found, "command"), *_list(found, "args")]),
    )
    draft.trial |= pods.trial_of(found)
    for words in pods.left_out(found):
        draft.missing(f"{path}.trialSpec", words)
    _object(draft, mapping(template, "trialSpec", path=path), path=f"{path}.trialSpec")
    draft.changed(
        f"{path}.trialSpec",
        "its command becomes trial.objective; image, GPUs, environment, volumes and resources are kept",
    )
    kind = str(template.get("trialSpec", {}).get("kind"))
    if kind != "Job":
        draft.missing(
            f"{path}.trialSpec.kind", f"{kind}: a trial is one process in one pod here, without other replicas"
        )
    for key, words in _MEANT.items():
        if key in template:
            draft.mapped(f"{path}.{key}", words)
    for key, words in _TEMPLATE_WORDS.items():
        if key in template:
            draft.missing(f"{path}.{key}", words)


def _object(draft: Draft, trial: Document, *, path: str) -> None:
    """What the trial's object says beside its pods."""
    if mapping(trial, "metadata", path=path):
        draft.missing(f"{path}.metadata", "of the trial's object; labels of its pods are kept")
    spec = mapping(trial, "spec", path=path)
    if seconds := spec.get("activeDeadlineSeconds"):
        draft.trial["timeout"] = f"{count(seconds, path=f'{path}.spec.activeDeadlineSeconds')}s"
        draft.mapped(f"{path}.spec.activeDeadlineSeconds", f"trial.timeout: {draft.trial['timeout']}")
    for key, child in spec.items():
        if key not in {"activeDeadlineSeconds", "trainer"} and not pods.has_pod(child):
            draft.missing(
                f"{path}.spec.{key}", _OBJECT_WORDS.get(key, "the operator writes the Job of a worker itself")
            )


_OBJECT_WORDS = {"backoffLimit": "a trial whose worker is lost is queued again; one that fails by itself counts"}
_MEANT = {
    "trialParameters": "trial.params, by the names of the search space",
    "primaryContainerName": "the container is called trial",
}
_TEMPLATE_WORDS = {
    "retain": "workers run many trials, and their logs stay for a while",
    "primaryPodLabels": "there is one pod, and nothing is injected",
    "successCondition": "a trial is complete when the objective returns a value",
    "failureCondition": "a trial has failed when the objective raises",
}


def _references(template: Document) -> dict[str, str]:
    """The parameter that each placeholder stands for."""
    found = items(template, "trialParameters", path="spec.trialTemplate")
    return {str(item.get("name")): str(item.get("reference")) for item in found if isinstance(item, dict)}


def _list(node: Document, key: str) -> list[Any]:
    value = node.get(key) or []
    return value if isinstance(value, list) else [value]


def _others(draft: Draft, spec: Document) -> None:
    if "metricsCollectorSpec" in spec:
        draft.missing("spec.metricsCollectorSpec", "nothing is collected from logs: return the value, report the steps")
    if "resumePolicy" in spec:
        draft.mapped("spec.resumePolicy", "every study can go on: raise maxTrials, also after its end")
    if "nasConfig" in spec:
        draft.missing("spec.nasConfig", "no architecture search: write the choices as categorical parameters")
