"""A sweep of Weights & Biases as a study.

Its reference is the JSON schema of github.com/wandb/sweeps. Its `log_uniform` takes natural logarithms as bounds, and
its `hyperband` is a successive halving: a run goes on at a rung if it is among the best 1/eta.
"""

import math

from tuning_api.schema import Document
from tuning_operator.convert import space
from tuning_operator.convert.draft import Conversion, Draft, leftovers, shell
from tuning_operator.convert.reading import ConversionError, as_number, count, items, mapping, number
from tuning_operator.convert.space import Dimension

METHODS: dict[str, Document] = {"bayes": {"type": "gp"}, "random": {"type": "random"}, "grid": {"type": "grid"}}
_METHODS = {*METHODS, "custom"}
_MOST_OBJECTIVES = 3
_MOST_RUNGS = 1024
"""Halvings of the largest number."""
_ETA = 3
_WORDS = {
    "project": "studies have namespaces",
    "entity": "studies have namespaces",
    "description": "a comment or an annotation of the manifest",
    "controller": "the operator decides, or `tuningstudy run`",
    "scheduler": "choose spec.sampler and spec.pruner",
    "job": "name its image in trial.image, and its function in trial.objective",
    "apiVersion": "it says nothing more",
    "kind": "it says nothing more",
}


def recognises(document: Document) -> bool:
    """Whether it is a sweep."""
    method = document.get("method")
    if method is None:
        # Schedulers of W&B Launch choose the method themselves.
        return isinstance(document.get("scheduler"), dict) and ("job" in document or "metric" in document)
    return (
        isinstance(method, str)
        and method in _METHODS
        and not {"searchSpace", "tuner", "hyperparameters"} & document.keys()
    )


def convert(document: Document, *, name: str) -> Conversion:
    """The study of a sweep.

    Args:
        document: The sweep's configuration.
        name: What the study is called if the sweep has no name.

    Raises:
        ConversionError: a field is not what W&B takes.
    """
    draft = Draft(str(document.get("name") or name))
    if document.get("name"):
        draft.mapped("name", "metadata.name")
    _objectives(draft, document)
    _method(draft, document)
    _parameters(draft, mapping(document, "parameters"), path="parameters", prefix="")
    _early_terminate(draft, mapping(document, "early_terminate"))
    _limits(draft, document)
    _program(draft, document)
    for key, words in _WORDS.items():
        if key in document:
            draft.missing(key, words)
    return draft.finish(document)


def _objectives(draft: Draft, document: Document) -> None:
    metrics = [(f"metrics[{index}]", item) for index, item in enumerate(items(document, "metrics"))]
    if "metric" in document:
        metrics = [("metric", mapping(document, "metric")), *metrics]
    if not metrics:
        draft.objectives = [{"metric": "objective", "direction": "minimize"}]
        draft.decide("metric", "the sweep names none: which value, and which way is better?", at="spec.objectives")
    for path, metric in metrics[:_MOST_OBJECTIVES]:
        _objective(draft, metric, path=path, is_only=len(metrics) == 1)
    for path, _ in metrics[_MOST_OBJECTIVES:]:
        draft.missing(path, f"a study has at most {_MOST_OBJECTIVES} objectives")


def _objective(draft: Draft, metric: Document, *, path: str, is_only: bool) -> None:
    name, goal = str(metric.get("name") or "objective"), str(metric.get("goal") or "minimize")
    if goal not in {"minimize", "maximize"}:
        raise ConversionError(f"{path}.goal: minimize or maximize is needed, and it is {goal!r}")
    number_ = len(draft.objectives)
    draft.objectives.append({"metric": name, "direction": goal})
    draft.mapped(f"{path}.name", f"objectives[{number_}].metric: {name}")
    draft.mapped(f"{path}.goal", f"objectives[{number_}].direction: {goal}")
    for key in ("impute", "impute_while_running"):
        if key in metric:
            draft.missing(f"{path}.{key}", "a failed trial has no value, and the sampler does without")
    if metric.get("target") is None:
        return
    if not is_only:
        draft.missing(f"{path}.target", "with several objectives there is no single best value to watch")
        return
    target = space.plain(as_number(metric["target"], path=f"{path}.target"))
    draft.spec["stopWhen"] = {"target": target}
    draft.mapped(f"{path}.target", f"stopWhen.target: {target}")


def _method(draft: Draft, document: Document) -> None:
    method = str(document.get("method") or "custom")
    has_several = len(draft.objectives) > 1
    sampler = {"type": "tpe"} if has_several else METHODS.get(method, {"type": "tpe"})
    draft.spec["sampler"] = dict(sampler)
    draft.spec["pruner"] = {"type": "none"}
    words = f"sampler.type: {sampler['type']}"
    if method in METHODS and not has_several:
        more = " (a Gaussian process, as there; tpe is faster beyond some hundred trials)" if method == "bayes" else ""
        draft.mapped("method", words + more)
    else:
        draft.changed("method", f"{method} becomes {words}")


def _parameters(draft: Draft, parameters: Document, *, path: str, prefix: str) -> None:
    for key, parameter in parameters.items():
        name, at = f"{prefix}{key}", f"{path}.{key}"
        if not isinstance(parameter, dict):
            raise ConversionError(
                f"{at}: a mapping with value, values, or min and max is needed, and it is {parameter!r}"
            )
        if "parameters" in parameter:
            _parameters(draft, mapping(parameter, "parameters", path=at), path=f"{at}.parameters", prefix=f"{name}.")
            continue
        leftovers(draft, at, parameter, _KNOWN)
        if "value" in parameter:
            draft.fix(at, name, parameter["value"])
        else:
            draft.add(at, name, _dimension(parameter, path=at))


_KNOWN = ("value", "values", "probabilities", "min", "max", "q", "mu", "sigma", "a", "b", "distribution")


def _dimension(parameter: Document, *, path: str) -> Dimension:
    distribution = str(parameter.get("distribution") or _usual_distribution(parameter))
    dimension = _of(distribution, parameter, path=path)
    unused = sorted(parameter.keys() & set(_KNOWN) - {"distribution", *_USED.get(distribution, _KNOWN)})
    words = tuple(f"{key} is left out, which {distribution} does not have" for key in unused)
    return Dimension(dimension.fields, (*dimension.changes, *words))


_USED = {
    "categorical": ("values",),
    "categorical_w_probabilities": ("values", "probabilities"),
    **dict.fromkeys(
        (
            *("int_uniform", "uniform", "log_uniform", "inv_log_uniform"),
            *("log_uniform_values", "inv_log_uniform_values"),
        ),
        ("min", "max"),
    ),
    **dict.fromkeys(("q_uniform", "q_log_uniform", "q_log_uniform_values"), ("min", "max", "q")),
    **dict.fromkeys(("normal", "log_normal"), ("mu", "sigma")),
    **dict.fromkeys(("q_normal", "q_log_normal"), ("mu", "sigma", "q")),
}
"""The fields that a distribution looks at; those of a beta distribution are spoken of with it."""


def _of(distribution: str, parameter: Document, *, path: str) -> Dimension:
    log = "log" in distribution
    step = as_number(parameter.get("q", 1), path=f"{path}.q") if distribution.startswith("q_") else None
    match distribution:
        case "categorical" | "categorical_w_probabilities":
            changes = ("the probabilities are left out: all are alike",) if "probabilities" in parameter else ()
            return space.choices(items(parameter, "values", path=path), path=path, changes=changes)
        case "int_uniform" | "uniform" | "log_uniform_values" | "inv_log_uniform_values":
            low, high = number(parameter, "min", path=path), number(parameter, "max", path=path)
            return space.number(low, high, path=path, whole=distribution == "int_uniform", log=log)
        case "q_uniform" | "q_log_uniform_values":
            low, high = number(parameter, "min", path=path), number(parameter, "max", path=path)
            return space.quantised(low, high, step or 1, path=path, log=log)
        case "log_uniform" | "q_log_uniform" | "inv_log_uniform":
            return _from_exponents(parameter, step, is_inverse=distribution == "inv_log_uniform", path=path)
        case "normal" | "q_normal" | "log_normal" | "q_log_normal":
            mu = as_number(parameter.get("mu", 0), path=f"{path}.mu")
            sigma = as_number(parameter.get("sigma", 1), path=f"{path}.sigma")
            return space.normal(mu, sigma, path=path, step=step, log=log)
        case "beta" | "q_beta":
            changes = ("Optuna has no beta distribution: sampled evenly",)
            return (
                space.quantised(0, 1, step, path=path, changes=changes)
                if step is not None
                else space.number(0, 1, path=path, changes=changes)
            )
        case _:
            raise ConversionError(f"{path}.distribution: W&B has no {distribution!r}")


def _usual_distribution(parameter: Document) -> str:
    """What W&B takes where none is named."""
    if "probabilities" in parameter:
        return "categorical_w_probabilities"
    if "values" in parameter:
        return "categorical"
    bounds = (parameter.get("min"), parameter.get("max"))
    return "int_uniform" if all(isinstance(bound, int) for bound in bounds) else "uniform"


def _from_exponents(parameter: Document, step: float | None, *, is_inverse: bool, path: str) -> Dimension:
    low, high = number(parameter, "min", path=path), number(parameter, "max", path=path)
    if is_inverse:
        low, high = -high, -low
    return space.exponents(low, high, math.e, path=path, step=step)


def _early_terminate(draft: Draft, early: Document) -> None:
    if not early:
        return
    path = "early_terminate"
    if len(draft.objectives) > 1:
        draft.missing(path, "nothing is pruned with several objectives")
        return
    if early.get("type") != "hyperband":
        draft.missing(path, f"{early.get('type')}: choose a pruner, such as median")
        return
    eta = as_number(early.get("eta", _ETA), path=f"{path}.eta")
    factor = max(2, round(eta))
    first = _first_rung(early, eta, path=path)
    draft.spec["pruner"] = {"type": "successiveHalving", "minResource": first, "reductionFactor": factor}
    rungs = ", ".join(str(first * factor**rung) for rung in range(3))
    words = f"pruner: successiveHalving, judged at steps {rungs}, ..., counted from 0: one report later than there"
    if not early.get("strict"):
        words += "; by the value at that step, not by a run's best so far"
    draft.changed(path, words + ("" if factor == eta else f"; eta {eta:g} is not whole"))


def _first_rung(early: Document, eta: float, *, path: str) -> int:
    # NB: with both, W&B takes max_iter (hyperband_stopping.py of wandb/sweeps).
    if early.get("max_iter") is None and early.get("min_iter") is not None:
        return max(1, count(early["min_iter"], path=f"{path}.min_iter"))
    longest = number(early, "max_iter", path=path)
    rungs = as_number(early.get("s", 1), path=f"{path}.s")
    for _ in range(int(min(rungs, _MOST_RUNGS))):
        if longest / eta < 1:
            break
        longest /= eta
    return max(1, int(longest))


def _limits(draft: Draft, document: Document) -> None:
    if document.get("run_cap") is not None:
        draft.keep(document, "run_cap", "maxTrials", count(document["run_cap"], path="run_cap"))
    scheduler = document.get("scheduler")
    workers = scheduler.get("num_workers") if isinstance(scheduler, dict) else None
    draft.spec["parallelism"] = count(workers, path="scheduler.num_workers") if workers is not None else 1
    if workers is not None:
        draft.mapped("scheduler.num_workers", f"parallelism: {workers}")
    else:
        draft.decide("", "how many agents ran at the same time?", at="spec.parallelism")


def _program(draft: Draft, document: Document) -> None:
    if document.get("image_uri"):
        draft.trial["image"] = str(document["image_uri"])
        draft.mapped("image_uri", "trial.image")
    program, command = document.get("program"), document.get("command")
    draft.command = shell(command).replace("${program}", str(program or "")) if command else str(program or "")
    for key in ("program", "command"):
        if key in document:
            draft.changed(key, "trial.objective: wandb.config becomes trial.params, wandb.log becomes trial.report")
