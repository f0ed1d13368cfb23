"""Experiments of other systems as studies: what maps, what changes, and that nothing is left out in silence."""

import contextlib
import copy
import math
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuning_api import manifest
from tuning_operator.cli import writing
from tuning_operator.convert import Conversion, ConversionError, System, convert, nni, recognise
from tuning_operator.convert.draft import Kind, paths

Document = dict[str, Any]


def a_katib(*parameters: Document, **changes: Any) -> Document:
    """An Experiment with one command and a GPU; keyword arguments replace fields of its spec."""
    container = {
        "name": "training-container",
        "image": "registry.example/mnist:1",
        "command": ["python3", "train.py", "--lr=${trialParameters.learningRate}", "--epochs=3"],
        "resources": {"limits": {"nvidia.com/gpu": 2, "memory": "4Gi"}},
    }
    template = {
        "primaryContainerName": "training-container",
        "trialParameters": [{"name": "learningRate", "reference": "lr"}],
        "trialSpec": {"kind": "Job", "spec": {"template": {"spec": {"containers": [container]}}}},
    }
    rate = {"name": "lr", "parameterType": "double", "feasibleSpace": {"min": "0.01", "max": "0.05"}}
    return {
        "apiVersion": "kubeflow.org/v1beta1",
        "kind": "Experiment",
        "metadata": {"name": "mnist", "namespace": "research"},
        "spec": {
            "objective": {"type": "maximize", "objectiveMetricName": "accuracy"},
            "algorithm": {"algorithmName": "random"},
            "parameters": list(parameters) or [rate],
            "maxTrialCount": 12,
            "trialTemplate": template,
        }
        | changes,
    }


def a_sweep(**changes: Any) -> Document:
    """A sweep of W&B; a keyword argument that is None removes a field."""
    sweep = {
        "program": "train.py",
        "method": "random",
        "metric": {"name": "val/loss", "goal": "minimize"},
        "parameters": {"lr": {"min": 0.001, "max": 0.1}},
        "run_cap": 20,
    }
    return {key: value for key, value in (sweep | changes).items() if value is not None}


def a_determined(**changes: Any) -> Document:
    """An experiment of Determined; keyword arguments replace its fields."""
    return {
        "name": "digits",
        "entrypoint": "python3 train.py --epochs 1",
        "hyperparameters": {"lr": {"type": "log", "base": 10, "minval": -5, "maxval": -1}},
        "searcher": {"name": "random", "metric": "val_loss", "max_trials": 16},
    } | changes


def an_nni(**changes: Any) -> Document:
    """An experiment of NNI, as version 2 has it; keyword arguments replace its fields."""
    return {
        "searchSpace": {"lr": {"_type": "loguniform", "_value": [0.0001, 0.1]}},
        "trialCommand": "python3 mnist.py",
        "trialConcurrency": 4,
        "maxTrialNumber": 10,
        "tuner": {"name": "TPE", "classArgs": {"optimize_mode": "maximize"}},
        "trainingService": {"platform": "local"},
    } | changes


EXAMPLES = {
    System.KATIB: a_katib(),
    System.WANDB: a_sweep(),
    System.DETERMINED: a_determined(),
    System.NNI: an_nni(),
}


def converted(document: Document, **options: Any) -> Conversion:
    """By the system that the document is recognised as."""
    system = recognise(document)
    assert system is not None
    return convert(document, system, name="file-name", **options)


def spec_of(document: Document, **options: Any) -> Document:
    """The converted spec, as a person would have it in the file."""
    made = converted(document, **options)
    (read,) = manifest.parse(writing.text(made.manifest, comments=made.comments), source="study.yaml")
    spec, fault = manifest.read_spec(read)
    assert spec is not None, fault
    found: Document = read["spec"]
    return found


def notes_on(document: Document, path: str) -> list[tuple[Kind, str]]:
    return [(note.kind, note.words) for note in converted(document).notes if note.path == path]


# What it is


@pytest.mark.parametrize(("system", "document"), EXAMPLES.items())
def test_each_system_is_recognised_by_its_own_fields(system: System, document: Document) -> None:
    """So that a person need not say."""
    assert recognise(document) is system


@pytest.mark.parametrize(
    "document",
    [{"kind": "Deployment"}, {}, {"method": "GET"}, {"searcher": "mine"}, {"x": {"_value": [1]}}],
    ids=str,
)
def test_what_is_no_experiment_is_not_taken_for_one(document: Document) -> None:
    """A guess would produce nonsense."""
    assert recognise(document) is None


def test_other_spellings_of_nni_are_recognised() -> None:
    """Version 1, the Python interface's files, and a search space by itself."""
    assert recognise({"trainingServicePlatform": "local", "maxTrialNum": 3}) is System.NNI
    assert recognise({"search_space": {}, "trial_command": "python x.py"}) is System.NNI
    assert recognise({"lr": {"_type": "uniform", "_value": [0, 1]}}) is System.NNI


# Nothing is left out in silence


@pytest.mark.parametrize("document", EXAMPLES.values(), ids=EXAMPLES)
def test_every_field_is_spoken_of(document: Document) -> None:
    """By itself, or with the field that it is a part of, or by its parts."""
    strange = copy.deepcopy(document) | {"strange": {"field": 1}}
    spoken_of = {note.path for note in converted(strange).notes}
    silent = [
        path
        for path in paths(strange)
        if not any(
            path == other or path.startswith((f"{other}.", f"{other}[")) or other.startswith((f"{path}.", f"{path}["))
            for other in spoken_of
            if other
        )
    ]
    assert silent == []
    assert notes_on(strange, "strange")[0][0] is Kind.MISSING


def test_an_unknown_field_of_a_parameter_is_named() -> None:
    """It may have meant something."""
    assert notes_on(a_sweep(parameters={"lr": {"min": 0.1, "max": 1, "prior": "x"}}), "parameters.lr.prior")


@pytest.mark.parametrize("document", EXAMPLES.values(), ids=EXAMPLES)
def test_what_a_trial_ran_stands_above_the_objective_that_is_to_be_named(document: Document) -> None:
    """The person writes a function, and has to know what the command was, and how parameters get there."""
    made = converted(document)
    assert made.manifest["spec"]["trial"]["objective"] == "my_package.train:objective"
    lines = made.comments["spec.trial.objective"]
    assert any(line.startswith("It ran: python3") or line == "It ran: train.py" for line in lines)
    assert '      lr = trial.params["lr"]' in lines


def test_an_objective_that_is_pruned_reports_its_steps() -> None:
    """Or the pruner would never see a value."""
    halving = {"type": "hyperband", "min_iter": 3}
    lines = converted(a_sweep(early_terminate=halving)).comments["spec.trial.objective"]
    assert any("trial.should_prune()" in line for line in lines)
    assert not any("trial.should_prune()" in line for line in converted(a_sweep()).comments["spec.trial.objective"])


# Katib

KATIB_PARAMETERS: dict[str, tuple[str, Document, Document]] = {
    "a double": ("double", {"min": "0.5", "max": "0.9"}, {"type": "float", "low": 0.5, "high": 0.9}),
    "a step": ("double", {"min": "0", "max": "1", "step": "0.1"}, {"type": "float", "low": 0, "high": 1, "step": 0.1}),
    "an int": ("int", {"min": "2", "max": "5", "step": "1"}, {"type": "int", "low": 2, "high": 5}),
    "a logarithm": (
        "int",
        {"min": "32", "max": "64", "distribution": "logUniform"},
        {"type": "int", "low": 32, "high": 64, "log": True},
    ),
    "a logarithm from 0": (
        "double",
        {"min": "0", "max": "1", "distribution": "logUniform"},
        {"type": "float", "low": 0, "high": 1},
    ),
    "numbers": ("discrete", {"list": ["0.1", "1"]}, {"type": "categorical", "choices": [0.1, 1]}),
    "texts that are numbers": (
        "categorical",
        {"list": ["1e-5", "on"]},
        {"type": "categorical", "choices": ["1e-5", "on"]},
    ),
}


@pytest.mark.parametrize(("kind", "feasible", "expected"), KATIB_PARAMETERS.values(), ids=KATIB_PARAMETERS)
def test_a_parameter_of_katib(kind: str, feasible: Document, expected: Document) -> None:
    """Its numbers are texts there; what a text is, it stays, whatever YAML would make of it."""
    document = a_katib({"name": "x", "parameterType": kind, "feasibleSpace": feasible})
    assert spec_of(document)["searchSpace"] == [{"name": "x"} | expected]


KATIB_ALGORITHMS: dict[str, tuple[Document, Document]] = {
    "tpe": (
        {"algorithmName": "tpe", "algorithmSettings": [{"name": "random_state", "value": "7"}]},
        {"type": "tpe", "multivariate": False, "seed": 7},
    ),
    "bayesian": (
        {"algorithmName": "bayesianoptimization", "algorithmSettings": [{"name": "n_initial_points", "value": "5"}]},
        {"type": "gp", "nStartupTrials": 5},
    ),
    "sobol": ({"algorithmName": "sobol"}, {"type": "qmc", "qmcType": "sobol"}),
    "population based": ({"algorithmName": "pbt"}, {"type": "tpe"}),
    "a grid without a step, with a seed": (
        {"algorithmName": "grid", "algorithmSettings": [{"name": "random_state", "value": "7"}]},
        {"type": "qmc", "seed": 7},
    ),
    "a seed beyond what Optuna takes": (
        {"algorithmName": "random", "algorithmSettings": [{"name": "random_state", "value": "4294967295"}]},
        {"type": "random", "seed": 2**31 - 1},
    ),
    "a grid without a step": ({"algorithmName": "grid"}, {"type": "qmc"}),
}


@pytest.mark.parametrize(("algorithm", "sampler"), KATIB_ALGORITHMS.values(), ids=KATIB_ALGORITHMS)
def test_an_algorithm_of_katib_is_a_sampler(algorithm: Document, sampler: Document) -> None:
    """With the options that mean the same."""
    assert spec_of(a_katib(algorithm=algorithm))["sampler"] == sampler


def test_katibs_hyperband_is_a_pruner_and_its_budget_no_parameter() -> None:
    """There the number of epochs is a parameter that the algorithm sets; here trials report each step."""
    settings = [
        {"name": "resource_name", "value": "epochs"},
        {"name": "r_l", "value": "9"},
        {"name": "eta", "value": "3"},
    ]
    epochs = {"name": "epochs", "parameterType": "int", "feasibleSpace": {"min": "1", "max": "9"}}
    rate = {"name": "lr", "parameterType": "double", "feasibleSpace": {"min": "0.1", "max": "1"}}
    algorithm = {"algorithmName": "hyperband", "algorithmSettings": settings}
    spec = spec_of(a_katib(epochs, rate, algorithm=algorithm))
    assert spec["pruner"] == {"type": "hyperband", "minResource": 1, "maxResource": 9, "reductionFactor": 3}
    assert [parameter["name"] for parameter in spec["searchSpace"]] == ["lr"]


def test_katibs_early_stopping_goal_and_limits_are_kept() -> None:
    """Its first step is 1, Optuna's is 0."""
    stopping = {
        "algorithmName": "medianstop",
        "algorithmSettings": [{"name": "min_trials_required", "value": "2"}, {"name": "start_step", "value": "4"}],
    }
    goal = {"type": "minimize", "goal": 0.001, "objectiveMetricName": "loss"}
    spec = spec_of(a_katib(earlyStopping=stopping, objective=goal, maxFailedTrialCount=3))
    assert spec["pruner"] == {"type": "median", "nStartupTrials": 2, "nWarmupSteps": 3}
    assert spec["stopWhen"] == {"target": 0.001}
    assert (spec["maxTrials"], spec["maxFailedTrials"], spec["parallelism"]) == (12, 3, 3)


def test_without_early_stopping_nothing_is_pruned() -> None:
    """A study without a pruner has the median one, which the Experiment had not."""
    assert spec_of(a_katib())["pruner"] == {"type": "none"}


def test_the_pod_of_katibs_trial_becomes_the_pod_template() -> None:
    """Image and GPUs by name, and what the container had; placeholders and secrets are left out, and said."""
    document = a_katib()
    pod = document["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]
    pod["nodeSelector"] = {"gpu": "a100"}
    pod["containers"][0]["env"] = [
        {"name": "DATA", "value": "/data"},
        {"name": "RATE", "value": "${trialParameters.learningRate}"},
        {"name": "API_TOKEN", "value": "abc123"},
    ]
    trial = spec_of(document)["trial"]
    assert (trial["image"], trial["gpus"]) == ("registry.example/mnist:1", 2)
    container = {
        "name": "trial",
        "resources": {"limits": {"memory": "4Gi"}},
        "env": [{"name": "DATA", "value": "/data"}],
    }
    template = trial["podTemplate"]["spec"]
    assert template == {"nodeSelector": {"gpu": "a100"}, "containers": [template["containers"][0]]}
    assert template["containers"][0] == container
    words = " ".join(words for _, words in notes_on(document, "spec.trialTemplate.trialSpec"))
    assert "variable RATE: it is ${trialParameters.learningRate}" in words
    assert "variable API_TOKEN: it looks like a secret" in words


def test_the_command_names_the_parameters_of_the_search_space() -> None:
    """Katib's placeholders have names of their own."""
    lines = converted(a_katib()).comments["spec.trial.objective"]
    assert "It ran: python3 train.py --lr=<lr> --epochs=3" in lines


def test_what_katib_has_and_a_study_has_not_is_said_with_advice() -> None:
    """One note each."""
    document = a_katib(
        objective={"type": "minimize", "objectiveMetricName": "loss", "additionalMetricNames": ["accuracy"]},
        metricsCollectorSpec={"collector": {"kind": "StdOut"}},
    )
    for path in (
        "spec.objective.additionalMetricNames",
        "spec.objective.metricStrategies",
        "spec.metricsCollectorSpec",
    ):
        assert [kind for kind, _ in notes_on(document, path)] == [Kind.MISSING]


def test_the_object_of_katibs_trial_is_spoken_of() -> None:
    """Admission webhooks mount credentials by the labels of a pod."""
    pod = {"metadata": {"labels": {"mount": "true"}, "annotations": {"team": "a"}, "name": "x"}, "spec": {}}
    pod["spec"] = {"containers": [{"name": "c", "image": "img"}], "restartPolicy": "Never"}
    job = {"kind": "Job", "metadata": {"labels": {"a": "b"}}, "spec": {"activeDeadlineSeconds": 600, "backoffLimit": 2}}
    job["spec"] |= {"template": pod}
    document = a_katib(trialTemplate={"primaryContainerName": "c", "trialSpec": job})
    trial = spec_of(document)["trial"]
    assert trial["podTemplate"]["metadata"] == {"labels": {"mount": "true"}, "annotations": {"team": "a"}}
    assert trial["timeout"] == "600s"
    for path in ("metadata", "spec.backoffLimit"):
        assert [kind for kind, _ in notes_on(document, f"spec.trialTemplate.trialSpec.{path}")] == [Kind.MISSING]
    assert any("name of the pod's metadata" in words for _, words in notes_on(document, "spec.trialTemplate.trialSpec"))


@pytest.mark.parametrize(("limit", "expected"), [(None, 20), (3, 3)])
def test_a_document_without_a_limit_of_failures_becomes_a_study_without_one(limit: int | None, expected: int) -> None:
    """A study's own default of ten would end it."""
    assert spec_of(a_katib(maxTrialCount=20, maxFailedTrialCount=limit))["maxFailedTrials"] == expected


# Weights & Biases

SWEEP_PARAMETERS: dict[str, tuple[Document, Document]] = {
    "whole bounds": ({"min": 1, "max": 8}, {"type": "int", "low": 1, "high": 8}),
    "bounds": ({"min": 0.0, "max": 0.5}, {"type": "float", "low": 0, "high": 0.5}),
    "values": ({"values": [64, "auto", None, True]}, {"type": "categorical", "choices": [64, "auto", None, True]}),
    "values with probabilities": (
        {"values": ["a", "b"], "probabilities": [0.9, 0.1]},
        {"type": "categorical", "choices": ["a", "b"]},
    ),
    "lists": ({"values": [[1, 2], [3]]}, {"type": "categorical", "choices": ["[1, 2]", "[3]"]}),
    "log_uniform": (
        {"distribution": "log_uniform", "min": -9.210340371976182, "max": 0},
        {"type": "float", "low": 0.0001, "high": 1, "log": True},
    ),
    "log_uniform_values": (
        {"distribution": "log_uniform_values", "min": 1e-4, "max": 0.1},
        {"type": "float", "low": 1e-4, "high": 0.1, "log": True},
    ),
    "inv_log_uniform": (
        {"distribution": "inv_log_uniform", "min": 0, "max": 2.302585092994046},
        {"type": "float", "low": 0.1, "high": 1, "log": True},
    ),
    "q_uniform": (
        {"distribution": "q_uniform", "min": 8, "max": 64, "q": 8},
        {"type": "int", "low": 8, "high": 64, "step": 8},
    ),
    "q_log_uniform_values": (
        {"distribution": "q_log_uniform_values", "min": 8, "max": 256, "q": 8},
        {"type": "int", "low": 8, "high": 256, "log": True},
    ),
    "q_uniform between multiples": (
        {"distribution": "q_uniform", "min": 1, "max": 105, "q": 10},
        {"type": "int", "low": 10, "high": 100, "step": 10},
    ),
    "q_uniform between two multiples": (
        {"distribution": "q_uniform", "min": 11, "max": 14, "q": 10},
        {"type": "int", "low": 10, "high": 10, "step": 10},
    ),
    "q_log_uniform": (
        {"distribution": "q_log_uniform", "min": 2, "max": 6, "q": 1},
        {"type": "int", "low": 8, "high": 403, "log": True},
    ),
    "normal": ({"distribution": "normal", "mu": 1, "sigma": 0.1}, {"type": "float", "low": 0.7, "high": 1.3}),
    "q_normal": (
        {"distribution": "q_normal", "mu": 10, "sigma": 2.5, "q": 1},
        {"type": "int", "low": 3, "high": 17},
    ),
    "q_normal of fractions": (
        {"distribution": "q_normal", "mu": 0, "sigma": 0.1, "q": 0.25},
        {"type": "float", "low": -0.25, "high": 0.25, "step": 0.25},
    ),
    "q_log_normal": (
        {"distribution": "q_log_normal", "mu": 4, "sigma": 0.5, "q": 1},
        {"type": "int", "low": 13, "high": 244, "log": True},
    ),
    "q_beta": ({"distribution": "q_beta", "q": 0.1}, {"type": "float", "low": 0, "high": 1, "step": 0.1}),
    "seeds": ({"values": list(range(300))}, {"type": "int", "low": 0, "high": 299}),
    "many in steps of two": ({"values": [*range(2, 802, 2)]}, {"type": "int", "low": 2, "high": 800, "step": 2}),
    "beta": ({"distribution": "beta"}, {"type": "float", "low": 0, "high": 1}),
}


@pytest.mark.parametrize(("parameter", "expected"), SWEEP_PARAMETERS.values(), ids=SWEEP_PARAMETERS)
def test_a_parameter_of_a_sweep(parameter: Document, expected: Document) -> None:
    """The distribution that W&B takes where none is named, too."""
    assert spec_of(a_sweep(parameters={"x": parameter}))["searchSpace"] == [{"name": "x"} | expected]


def test_a_field_that_a_distribution_does_not_have_is_said() -> None:
    """W&B itself refuses it, or looks away."""
    ((_, words),) = notes_on(a_sweep(parameters={"x": {"min": 16, "max": 64, "q": 8}}), "parameters.x")
    assert "q is left out, which int_uniform does not have" in words


@pytest.mark.parametrize("values", [[*range(256), 900], [str(item) for item in range(300)], [*map(float, range(300))]])
def test_too_many_choices_are_said_with_their_place(values: list[object]) -> None:
    """What is no range stays a fault of the document."""
    with pytest.raises(ConversionError, match=r"parameters\.x: a parameter has at most 256 choices, and these are"):
        converted(a_sweep(parameters={"x": {"values": values}}))


def test_natural_logarithms_as_bounds_are_said_to_have_changed() -> None:
    """The trap of W&B: -11 is no learning rate."""
    document = a_sweep(parameters={"lr": {"distribution": "log_uniform", "min": -11, "max": -2}})
    ((kind, words),) = notes_on(document, "parameters.lr")
    assert kind is Kind.CHANGED
    assert "exponents of e (-11 to -2), now they are values (1.67017e-05 to 0.135335)" in words


def test_nested_parameters_have_dotted_names_and_constants_are_named() -> None:
    """A constant is no dimension of the search."""
    nested = {"optimizer": {"parameters": {"lr": {"min": 0.1, "max": 1.0}, "name": {"value": "sgd"}}}}
    made = converted(a_sweep(parameters=nested))
    assert [parameter["name"] for parameter in made.manifest["spec"]["searchSpace"]] == ["optimizer.lr"]
    assert "Fixed in every trial: optimizer.name = 'sgd'" in made.comments["spec.trial.objective"]


@pytest.mark.parametrize(
    ("early", "first"),
    [
        ({"type": "hyperband", "s": 2, "eta": 3, "max_iter": 27}, 3),
        ({"type": "hyperband", "s": 9, "max_iter": 27}, 1),
        ({"type": "hyperband", "min_iter": 5}, 5),
        ({"type": "hyperband", "min_iter": 5, "max_iter": 9, "s": 1}, 3),
    ],
)
def test_the_hyperband_of_a_sweep_is_a_successive_halving(early: Document, first: int) -> None:
    """The first rung is max_iter divided s times by eta, which is 3 where none is given."""
    expected = {"type": "successiveHalving", "minResource": first, "reductionFactor": 3}
    assert spec_of(a_sweep(early_terminate=early))["pruner"] == expected


@pytest.mark.parametrize(
    ("values", "sampler", "trials"), [(4, "grid", 16), (101, "qmc", 100)], ids=["few points", "too many points"]
)
def test_a_grid_has_as_many_trials_as_points(values: int, sampler: str, trials: int) -> None:
    """A sweep needs no limit then; beyond what a grid may have, points are spread evenly."""
    parameters = {name: {"values": list(range(values))} for name in ("a", "b")}
    spec = spec_of(a_sweep(method="grid", run_cap=None, parameters=parameters))
    assert (spec["sampler"]["type"], spec["maxTrials"]) == (sampler, trials)


def test_several_metrics_are_several_objectives_without_a_pruner() -> None:
    """Nothing is pruned by two measures."""
    metrics = [{"name": "loss", "target": 0.1}, {"name": "acc", "goal": "maximize"}]
    early = {"type": "hyperband", "min_iter": 1}
    spec = spec_of(a_sweep(metric=None, metrics=metrics, method="custom", early_terminate=early))
    assert [objective["direction"] for objective in spec["objectives"]] == ["minimize", "maximize"]
    assert (spec["pruner"], "stopWhen" in spec) == ({"type": "none"}, False)


def test_a_sweep_without_a_metric_asks_for_one() -> None:
    """A grid needs none there."""
    made = converted(a_sweep(metric=None))
    assert made.comments["spec.objectives"][0].startswith("To decide: ")


# Determined

DETERMINED_PARAMETERS: dict[str, tuple[Document, Document]] = {
    "int": ({"type": "int", "minval": 8, "maxval": 64}, {"type": "int", "low": 8, "high": 64}),
    "double": ({"type": "double", "minval": 0.2, "maxval": 0.8}, {"type": "float", "low": 0.2, "high": 0.8}),
    "log": (
        {"type": "log", "minval": -5, "maxval": -2},
        {"type": "float", "low": 1e-5, "high": 0.01, "log": True},
    ),
    "log of base 2": (
        {"type": "log", "base": 2, "minval": 1, "maxval": 10},
        {"type": "float", "low": 2, "high": 1024, "log": True},
    ),
    "categorical": (
        {"type": "categorical", "vals": ["a", {"depth": 2}]},
        {"type": "categorical", "choices": ["a", '{"depth": 2}']},
    ),
}


@pytest.mark.parametrize(("value", "expected"), DETERMINED_PARAMETERS.values(), ids=DETERMINED_PARAMETERS)
def test_a_hyperparameter_of_determined(value: Document, expected: Document) -> None:
    """A logarithm's bounds are exponents there."""
    assert spec_of(a_determined(hyperparameters={"x": value}))["searchSpace"] == [{"name": "x"} | expected]


def test_nested_hyperparameters_have_dotted_names() -> None:
    """What has no type of theirs is a constant, a mapping of them too."""
    nested = {"net": {"width": {"type": "int", "minval": 1, "maxval": 9}, "bias": True}, "sizes": [1, 2], "batch": 64}
    made = converted(a_determined(hyperparameters=nested))
    assert [parameter["name"] for parameter in made.manifest["spec"]["searchSpace"]] == ["net.width"]
    assert "Fixed in every trial: net.bias = True, sizes = [1, 2], batch = 64" in made.comments["spec.trial.objective"]


def test_a_grid_of_determined_has_the_points_of_its_counts() -> None:
    """Those of a logarithm have no step."""
    space = {
        "lr": {"type": "log", "minval": -4, "maxval": -1, "count": 4},
        "width": {"type": "int", "minval": 8, "maxval": 64, "count": 3},
    }
    spec = spec_of(a_determined(hyperparameters=space, searcher={"name": "grid", "metric": "loss"}))
    assert [parameter["choices"] for parameter in spec["searchSpace"]] == [[1e-4, 1e-3, 0.01, 0.1], [8, 36, 64]]
    assert (spec["sampler"], spec["maxTrials"]) == ({"type": "grid"}, 12)


HALVINGS: dict[str, tuple[Document, Document]] = {
    "adaptive": (
        {"name": "adaptive_asha", "max_trials": 256, "time_metric": "epochs", "max_time": 256},
        {"type": "hyperband", "minResource": 1, "maxResource": 256, "reductionFactor": 4},
    ),
    "few rungs": (
        {"name": "adaptive_asha", "max_trials": 256, "max_time": 256, "max_rungs": 2, "divisor": 2},
        {"type": "hyperband", "minResource": 128, "maxResource": 256, "reductionFactor": 2},
    ),
    "no more rungs than trials can fill": (
        {"name": "adaptive_asha", "max_trials": 5, "max_time": 256},
        {"type": "hyperband", "minResource": 64, "maxResource": 256, "reductionFactor": 4},
    ),
    "aggressive": (
        {"name": "adaptive_asha", "max_trials": 256, "max_time": 256, "mode": "aggressive"},
        {"type": "successiveHalving", "minResource": 1, "reductionFactor": 4},
    ),
    "an older one": (
        {"name": "async_halving", "max_trials": 256, "num_rungs": 3, "max_length": {"batches": 256}},
        {"type": "successiveHalving", "minResource": 16, "reductionFactor": 4},
    ),
}


@pytest.mark.parametrize(("searcher", "pruner"), HALVINGS.values(), ids=HALVINGS)
def test_a_halving_of_determined_is_a_pruner(searcher: Document, pruner: Document) -> None:
    """Its length is in units of its own, which the person is asked to translate."""
    document = a_determined(searcher={"metric": "loss", **searcher})
    assert spec_of(document)["pruner"] == pruner
    assert "the pruner counts what the objective reports" in converted(document).comments["spec.pruner"][0]


def test_determineds_resources_and_environment_are_kept() -> None:
    """Slots are GPUs; the larger image is the one for them; secrets stay out."""
    document = a_determined(
        searcher={"name": "random", "metric": "acc", "smaller_is_better": False, "max_trials": 50},
        resources={"slots_per_trial": 2, "max_slots": 8},
        environment={"image": {"cpu": "cpu:1", "gpu": "gpu:1"}, "environment_variables": ["A=b=c", "HF_TOKEN=xyz"]},
        reproducibility={"experiment_seed": 7},
    )
    spec = spec_of(document)
    assert spec["objectives"] == [{"metric": "acc", "direction": "maximize"}]
    assert (spec["parallelism"], spec["sampler"]) == (4, {"type": "random", "seed": 7})
    assert (spec["trial"]["image"], spec["trial"]["gpus"]) == ("gpu:1", 2)
    assert spec["trial"]["podTemplate"]["spec"]["containers"] == [
        {"name": "trial", "env": [{"name": "A", "value": "b=c"}]}
    ]
    assert "xyz" not in str(converted(document))


def test_determineds_pod_spec_becomes_the_pod_template() -> None:
    """Its container is called trial here."""
    pod = {
        "spec": {
            "tolerations": [{"key": "gpu"}],
            "containers": [{"name": "determined-container", "env": [{"name": "X", "value": "1"}]}],
        }
    }
    spec = spec_of(a_determined(environment={"pod_spec": pod}))
    assert spec["trial"]["podTemplate"]["spec"] == {
        "tolerations": [{"key": "gpu"}],
        "containers": [{"name": "trial", "env": [{"name": "X", "value": "1"}]}],
    }


# NNI

NNI_PARAMETERS: dict[str, tuple[str, list[Any], Document]] = {
    "choice": ("choice", [16, "auto"], {"type": "categorical", "choices": [16, "auto"]}),
    "choice of mappings": ("choice", [{"a": 1}], {"type": "categorical", "choices": ['{"a": 1}']}),
    "randint": ("randint", [20, 31], {"type": "int", "low": 20, "high": 30}),
    "uniform": ("uniform", [0, 1], {"type": "float", "low": 0, "high": 1}),
    "quniform": ("quniform", [2, 16, 2], {"type": "int", "low": 2, "high": 16, "step": 2}),
    "quniform of fractions": ("quniform", [0, 10, 2.5], {"type": "float", "low": 0, "high": 10, "step": 2.5}),
    "loguniform": ("loguniform", [1e-4, 0.1], {"type": "float", "low": 1e-4, "high": 0.1, "log": True}),
    "qloguniform": ("qloguniform", [1, 64, 1], {"type": "int", "low": 1, "high": 64, "log": True}),
    "normal": ("normal", [0, 1], {"type": "float", "low": -3, "high": 3}),
    "qnormal": ("qnormal", [128, 21, 16], {"type": "int", "low": 80, "high": 176, "step": 16}),
    "quniform between multiples": ("quniform", [3, 10, 2], {"type": "int", "low": 4, "high": 10, "step": 2}),
    "lognormal": ("lognormal", [0, 1], {"type": "float", "low": 0.0497871, "high": 20.0855, "log": True}),
}


@pytest.mark.parametrize(("kind", "values", "expected"), NNI_PARAMETERS.values(), ids=NNI_PARAMETERS)
def test_a_parameter_of_nni(kind: str, values: list[Any], expected: Document) -> None:
    """The upper bound of randint is not included there."""
    document = an_nni(searchSpace={"x": {"_type": kind, "_value": values}})
    assert spec_of(document)["searchSpace"] == [{"name": "x"} | expected]


def test_nested_choices_of_nni_are_conditions() -> None:
    """However deep; a grid over them is a brute force."""
    inner = {"_name": "conv", "kernel": {"_type": "choice", "_value": [1, 3]}}
    inner["norm"] = {"_type": "choice", "_value": [{"_name": "batch", "eps": {"_type": "choice", "_value": [1e-5]}}]}
    space = {"layer": {"_type": "choice", "_value": [{"_name": "empty"}, inner]}}
    spec = spec_of(an_nni(searchSpace=space, tuner={"name": "GridSearch"}))
    assert [(item["name"], item.get("when")) for item in spec["searchSpace"]] == [
        ("layer", None),
        ("layer.conv.kernel", {"parameter": "layer", "in": ["conv"]}),
        ("layer.conv.norm", {"parameter": "layer", "in": ["conv"]}),
        ("layer.conv.norm.batch.eps", {"parameter": "layer.conv.norm", "in": ["batch"]}),
    ]
    assert spec["sampler"] == {"type": "bruteforce"}


VERSIONS: dict[str, Document] = {
    "version 2": an_nni(
        maxExperimentDuration="1h", trialGpuNumber=1, assessor={"name": "Medianstop", "classArgs": {"start_step": 5}}
    ),
    "its Python interface": {
        "search_space": an_nni()["searchSpace"],
        "trial_command": "python3 mnist.py",
        "trial_concurrency": 4,
        "max_trial_number": 10,
        "max_experiment_duration": "1h",
        "trial_gpu_number": 1,
        "tuner": {"name": "TPE", "class_args": {"optimize_mode": "maximize"}},
        "assessor": {"name": "Medianstop", "class_args": {"start_step": 5}},
    },
    "version 1": {
        "searchSpacePath": "space.json",
        "trialConcurrency": 4,
        "maxTrialNum": 10,
        "maxExecDuration": "1h",
        "tuner": {"builtinTunerName": "TPE", "classArgs": {"optimize_mode": "maximize"}},
        "assessor": {"builtinAssessorName": "Medianstop", "classArgs": {"start_step": 5}},
        "trial": {"command": "python3 mnist.py", "codeDir": ".", "gpuNum": 1},
        "trainingServicePlatform": "local",
    },
}


@pytest.mark.parametrize("document", VERSIONS.values(), ids=VERSIONS)
def test_each_spelling_of_nni_says_the_same(document: Document) -> None:
    """People have files of all three."""
    options = {"search_space": an_nni()["searchSpace"]} if "searchSpacePath" in document else {}
    spec = spec_of(document, **options)
    assert spec["searchSpace"][0]["name"] == "lr"
    assert (spec["maxTrials"], spec["timeout"], spec["parallelism"]) == (10, "1h", 4)
    assert (spec["objectives"][0]["direction"], spec["sampler"]) == ("maximize", {"type": "tpe"})
    assert spec["pruner"] == {"type": "median", "nStartupTrials": 1, "nWarmupSteps": 4}
    assert spec["trial"]["gpus"] == 1
    assert "unknown to the converter" not in " ".join(note.words for note in converted(document, **options).notes)


ADVISORS: dict[str, tuple[Document, str, Document]] = {
    "Hyperband": (
        {"name": "Hyperband", "classArgs": {"R": 60, "eta": 3}},
        "random",
        {"type": "hyperband", "maxResource": 60, "reductionFactor": 3},
    ),
    "BOHB": (
        {"name": "BOHB", "classArgs": {"min_budget": 1, "max_budget": 27, "eta": 3}},
        "tpe",
        {"type": "hyperband", "minResource": 1, "maxResource": 27, "reductionFactor": 3},
    ),
}


@pytest.mark.parametrize(("advisor", "sampler", "pruner"), ADVISORS.values(), ids=ADVISORS)
def test_an_advisor_of_nni_is_a_sampler_and_a_pruner(advisor: Document, sampler: str, pruner: Document) -> None:
    """Hyperband draws at random, BOHB learns."""
    document = {key: value for key, value in an_nni(advisor=advisor).items() if key != "tuner"}
    spec = spec_of(document)
    assert (spec["sampler"]["type"], spec["pruner"]) == (sampler, pruner)


def test_a_search_space_of_nni_alone_is_a_study_that_asks_for_its_metric() -> None:
    """Many people have only that file."""
    made = converted({"lr": {"_type": "uniform", "_value": [0, 1]}})
    assert made.manifest["spec"]["searchSpace"][0]["name"] == "lr"
    assert "name it, and say which way is better" in made.comments["spec.objectives"][0]
    assert made.manifest["metadata"]["name"] == "file-name"


def test_the_file_with_the_search_space_is_named_in_each_spelling() -> None:
    """Relative to the configuration."""
    for key in ("searchSpaceFile", "search_space_file", "searchSpacePath"):
        assert nni.search_space_file({key: "space.json"}) == (key, "space.json")
    assert nni.search_space_file(an_nni()) is None


HOSTILE: dict[str, Document] = {
    "a billion points": {
        "searcher": {"name": "grid", "metric": "x"},
        "hyperparameters": {"a": {"type": "double", "minval": 0, "maxval": 1, "count": 10**9}},
    },
    "a power without an end": {
        "searcher": {"name": "adaptive_asha", "metric": "x", "max_time": 0.5, "max_rungs": 1e300},
    },
    "halving by one": {
        "method": "random",
        "parameters": {"a": {"value": 1}},
        "early_terminate": {"type": "hyperband", "eta": 1, "s": 1e300, "max_iter": 27},
    },
    "a name that is a list": {"searcher": {"name": ["single"]}, "method": "random", "parameters": {}},
    "a number beyond a float": {
        "searchSpace": {"a": {"_type": "uniform", "_value": [0, 10**400]}},
        "trialCommand": "x",
    },
    "a step of nothing": {"searchSpace": {"a": {"_type": "quniform", "_value": [0, 1, 0]}}, "trialCommand": "x"},
    "a mean of no width": {"searchSpace": {"a": {"_type": "lognormal", "_value": [1e9, 1]}}, "trialCommand": "x"},
    "many parameters": {f"a{number}": {"_type": "uniform", "_value": [0, 1]} for number in range(20_000)},
    "many fields that nobody knows": {"searchSpace": {}, "trialCommand": "x"}
    | {f"a{number}": 1 for number in range(40_000)},
    "variables that are none": {
        "searcher": {"name": "single"},
        "environment": {"pod_spec": {"spec": {"containers": [{"env": [1], "resources": []}]}}},
    },
}


@pytest.mark.parametrize("document", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_document_is_converted_or_refused_soon(document: Document) -> None:
    """By no other error than that of a conversion."""
    system = recognise(document)
    assert system
    with contextlib.suppress(ConversionError):
        convert(document, system, name="x")


_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from([1e300, math.inf, 10**400, "x", "1", "hyperband", "choice"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "_type", "_value"]), inner),
)


def _fields(node: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    for key, child in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield (*path, key)
        yield from _fields(child, (*path, key))


@given(st.data())
@settings(max_examples=500, deadline=5_000)
def test_any_document_is_converted_or_refused(data: st.DataObject) -> None:
    """One field of an honest document is something else."""
    made = data.draw(st.sampled_from([a_katib(), a_sweep(), a_determined(), an_nni()]))
    document = copy.deepcopy(made)
    *above, last = data.draw(st.sampled_from([*_fields(document)]))
    node: Any = document
    for key in above:
        node = node[key]
    node[last] = data.draw(_VALUES)
    if system := recognise(document):
        with contextlib.suppress(ConversionError):
            convert(document, system, name="x")


# Names, and faults

NAMES = {
    "optimizer.lr": "optimizer.lr",
    "batch-size": "batch-size",
    "learning rate": "learning_rate",
    "2nd_layer": "p_2nd_layer",
    "a/b": "a_b",
    "trial.number": "p_trial.number",
}


@pytest.mark.parametrize(("name", "legal"), NAMES.items())
def test_a_name_that_is_no_legal_one_is_changed_and_said(name: str, legal: str) -> None:
    """Dots and dashes are legal in placeholders; those that the study has itself are taken."""
    document = a_sweep(parameters={name: {"min": 1, "max": 2}})
    assert spec_of(document)["searchSpace"][0]["name"] == legal
    ((kind, _),) = notes_on(document, f"parameters.{name}")
    assert kind is (Kind.MAPPED if name == legal else Kind.CHANGED)


def test_two_names_that_become_one_are_kept_apart() -> None:
    """Or the second parameter would be refused."""
    parameters = {"a b": {"min": 1, "max": 2}, "a_b": {"min": 1, "max": 2}}
    assert [item["name"] for item in spec_of(a_sweep(parameters=parameters))["searchSpace"]] == ["a_b", "a_b_2"]


FAULTS: dict[str, tuple[Document, str]] = {
    "a number that is none": (
        a_katib({"name": "x", "parameterType": "int", "feasibleSpace": {"min": "a", "max": "2"}}),
        "spec.parameters[0].feasibleSpace.min: a number is needed, and it is 'a'",
    ),
    "bounds the wrong way round": (
        a_sweep(parameters={"x": {"min": 2, "max": 1}}),
        "parameters.x: the lower bound 2 is above the upper one 1",
    ),
    "no choice": (a_sweep(parameters={"x": {"values": []}}), "parameters.x: there is no value to choose from"),
    "an unknown distribution": (
        a_sweep(parameters={"x": {"distribution": "cauchy"}}),
        "parameters.x.distribution: W&B has no 'cauchy'",
    ),
    "a parameter that is no mapping": (a_sweep(parameters={"x": 3}), "parameters.x: a mapping with value, values"),
    "a missing bound": (
        a_determined(hyperparameters={"x": {"type": "int", "minval": 1}}),
        "hyperparameters.x.maxval is missing",
    ),
    "a direction that is none": (
        an_nni(tuner={"name": "TPE", "classArgs": {"optimize_mode": "max"}}),
        "tuner.classArgs.optimize_mode: minimize or maximize is needed, and it is 'max'",
    ),
    "too few numbers": (
        an_nni(searchSpace={"x": {"_type": "quniform", "_value": [1, 2]}}),
        "searchSpace.x._value: quniform needs more numbers than [1, 2]",
    ),
    "an unknown type": (
        an_nni(searchSpace={"x": {"_type": "mutable_layer", "_value": [1]}}),
        "searchSpace.x._type: a study has no 'mutable_layer'",
    ),
    "a time that is none": (an_nni(maxExperimentDuration="soon"), "maxExperimentDuration: a time such as 90s"),
}


@pytest.mark.parametrize(("document", "words"), FAULTS.values(), ids=FAULTS)
def test_a_field_that_the_system_itself_would_refuse_is_named(document: Document, words: str) -> None:
    """With its path, and what is needed there."""
    with pytest.raises(ConversionError) as caught:
        converted(document)
    assert str(caught.value).startswith(words)


# Whatever is converted, is a study

names = st.text(min_size=1, max_size=12)
bounds = st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)).map(sorted)
scalars = st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.floats(-1e6, 1e6) | st.text(max_size=8)


@st.composite
def sweep_parameters(draw: st.DrawFn) -> Document:
    """A parameter of W&B, of any distribution."""
    kind = draw(st.sampled_from(["value", "values", "range", "exponents", "quantised", "normal"]))
    low, high = draw(bounds)
    match kind:
        case "value":
            return {"value": draw(scalars)}
        case "values":
            return {"values": draw(st.lists(scalars | st.lists(scalars, max_size=2), min_size=1, max_size=5))}
        case "range":
            return {"min": low, "max": high}
        case "exponents":
            return {"distribution": "log_uniform", "min": low / 1e5, "max": high / 1e5}
        case "quantised":
            log = draw(st.booleans())
            return {
                "distribution": "q_log_uniform_values" if log else "q_uniform",
                "min": low,
                "max": high,
                "q": draw(st.floats(0.01, 100)),
            }
        case _:
            return {"distribution": "log_normal", "mu": low / 1e6, "sigma": abs(high) / 1e6}


@settings(deadline=None)
@given(
    parameters=st.dictionaries(names, sweep_parameters(), min_size=1, max_size=6),
    method=st.sampled_from(["bayes", "random", "grid"]),
)
def test_a_converted_sweep_is_always_a_study(parameters: Document, method: str) -> None:
    """Read back from its text, as kubectl reads it: nothing is lost, and nothing is refused."""
    made = converted(a_sweep(parameters=parameters, method=method))
    (read,) = manifest.parse(writing.text(made.manifest, comments=made.comments), source="study.yaml")
    assert read == made.manifest
    spec, fault = manifest.read_spec(read)
    assert fault is None
    assert spec is not None
