"""What a person reads at `kubectl apply`, from a real API server."""

import json
from typing import Any

import pytest
from cluster.kubectl import Kubectl
from tests.support.builders import DIGITS_TRIAL, a_manifest, a_spec_document

from tuning_api.spec import StudySpec

Document = dict[str, Any]

LEARNING_RATE = {"name": "learning_rate", "type": "float", "low": 1e-4, "high": 1e-1, "log": True}
HIDDEN_DIM = {"name": "hidden_dim", "type": "categorical", "choices": [8, 16, 32]}
VAL_ACC = {"metric": "val_acc", "direction": "maximize"}
LATENCY = {"metric": "latency", "upper": 50}


def _space(**learning_rate: Any) -> Document:
    return {"searchSpace": [LEARNING_RATE | learning_rate, HIDDEN_DIM]}


REFUSED = {
    "low above high": (_space(low=0.2), "low must not be greater than high"),
    "a logarithm of nothing": (_space(low=0), "a logarithmic parameter needs low > 0"),
    "no choices": (
        {"searchSpace": [LEARNING_RATE, HIDDEN_DIM | {"choices": []}]},
        "spec.searchSpace[1].choices in body should have at least 1 items",
    ),
    "an unknown sampler": (
        {"sampler": {"type": "annealing"}},
        'spec.sampler.type: Unsupported value: "annealing": supported values: "tpe", "random"',
    ),
    "an unknown field": ({"maxTrails": 10}, 'unknown field "spec.maxTrails"'),
    "two parameters of one name": (
        {"searchSpace": [LEARNING_RATE, LEARNING_RATE, HIDDEN_DIM]},
        'spec.searchSpace[1]: Duplicate value: {"name":"learning_rate"}',
    ),
    "two objectives with a pruner": (
        {"objectives": [VAL_ACC, {"metric": "val_loss", "direction": "minimize"}], "pruner": {"type": "median"}},
        "pruning needs exactly one objective: remove the pruner, or set its type to none",
    ),
    "a negative budget": (
        {"maxTrials": -1},
        "spec.maxTrials in body should be greater than or equal to 1",
    ),
    "bounds where there are choices": (
        {"searchSpace": [LEARNING_RATE, HIDDEN_DIM | {"low": 1, "high": 2}]},
        "a categorical parameter has no low, high, step and log",
    ),
    "an int with a broken bound": (
        {"searchSpace": [LEARNING_RATE, {"name": "hidden_dim", "type": "int", "low": 1.5, "high": 2}]},
        "an int parameter needs whole numbers for low, high and step",
    ),
    "a float without bounds": (
        {"searchSpace": [LEARNING_RATE, {"name": "hidden_dim", "type": "float"}]},
        "a parameter of type float or int needs low and high",
    ),
    "a logarithmic parameter with a step": (_space(step=0.1), "a logarithmic parameter has no step"),
    "a condition on a parameter that is not there": (
        _space(when={"parameter": "optimizer", "in": ["sgd"]}),
        "when.parameter must name another parameter",
    ),
    "a grid without an end": (
        {"sampler": {"type": "grid"}},
        "this sampler tries every point, and a float without step has no end of values: give it a step, or use tpe",
    ),
    "a grid with conditions": (
        _space(step=0.1, log=False, when={"parameter": "hidden_dim", "in": [8]}) | {"sampler": {"type": "grid"}},
        "this sampler knows no conditions: use bruteforce, tpe or random, or remove when",
    ),
    "nothing to plan": (
        {"sampler": {"type": "qmc"}, "searchSpace": [], "trial": {"objective": "my.module:objective"}},
        "this sampler takes its points from searchSpace, which is empty: use tpe or random",
    ),
    "cmaes with two objectives": (
        {"objectives": [VAL_ACC, {"metric": "val_loss", "direction": "minimize"}], "sampler": {"type": "cmaes"}},
        "sampler cmaes needs exactly one objective: use nsga2 or tpe",
    ),
    "two variants of cmaes": (
        {"sampler": {"type": "cmaes", "withMargin": True, "lrAdapt": True}},
        "withMargin, useSeparable and lrAdapt are three variants of cmaes: keep one of them",
    ),
    "too few for cmaes": (
        {"sampler": {"type": "cmaes", "populationSize": 3}},
        "sampler cmaes needs a populationSize of 4 at least",
    ),
    "a group without a joint model": (
        {"sampler": {"type": "tpe", "group": True, "multivariate": False}},
        "group models parameters jointly: set multivariate to true, or remove one of them",
    ),
    "hyperband without its resource": ({"pruner": {"type": "hyperband"}}, "pruner hyperband needs maxResource"),
    "hyperband upside down": (
        {"pruner": {"type": "hyperband", "minResource": 9, "maxResource": 3}},
        "minResource must not be greater than maxResource",
    ),
    "percentile without one": ({"pruner": {"type": "percentile"}}, "pruner percentile needs percentile"),
    "patience without any": ({"pruner": {"type": "patient"}}, "pruner patient needs patience"),
    "threshold without one": ({"pruner": {"type": "threshold"}}, "pruner threshold needs lower or upper"),
    "thresholds upside down": (
        {"pruner": {"type": "threshold", "lower": 2, "upper": 1}},
        "lower must be less than upper",
    ),
    "patience with nothing": (
        {"pruner": {"type": "patient", "patience": 1, "wrapped": {"type": "none"}}},
        "wrapped must decide by itself: not none, and not patient again",
    ),
    "an option of another sampler": (
        {"sampler": {"type": "random", "nStartupTrials": 3}},
        "nStartupTrials is an option of tpe, cmaes, gp: remove it or change the type",
    ),
    "a constraint without a bound": ({"constraints": [{"metric": "latency"}]}, "a constraint needs upper or lower"),
    "bounds the wrong way round": (
        {"constraints": [{"metric": "latency", "lower": 3, "upper": 2}]},
        'spec.constraints[0].lower: Invalid value: "object": lower must not be greater than upper',
    ),
    "two constraints on one metric": (
        {"constraints": [LATENCY, LATENCY]},
        'spec.constraints[1]: Duplicate value: {"metric":"latency"}',
    ),
    "constraints on an objective of one's own": (
        {"constraints": [LATENCY], "trial": {"objective": "my.module:objective"}},
        "constraints need trial.lightning: an objective of your own calls trial.set_constraint",
    ),
    "two objectives of one name": (
        {"objectives": [VAL_ACC, VAL_ACC | {"direction": "minimize"}]},
        "two objectives have the same metric: results are told by its name",
    ),
    "a whole number that is not exact": (
        {"searchSpace": [{"name": "seed", "type": "int", "low": 0, "high": 2**53}]},
        "larger ones are not exact",
    ),
    "a target of two objectives": (
        {
            "objectives": [VAL_ACC, {"metric": "val_loss", "direction": "minimize"}],
            "stopWhen": {"target": 0.9},
        },
        "stopWhen needs exactly one objective: there is no single best value to watch, remove it",
    ),
    "one earlier study twice": (
        {"warmStart": [{"name": "wide"}, {"name": "wide"}]},
        'spec.warmStart[1]: Duplicate value: {"name":"wide"}',
    ),
    "no task": ({"trial": {"gpus": 0}}, "trial needs exactly one of lightning and objective"),
    "two tasks": (
        {"trial": DIGITS_TRIAL | {"objective": "my.module:objective"}},
        "trial needs exactly one of lightning and objective",
    ),
    "nothing to search": ({"searchSpace": []}, "searchSpace needs at least one parameter"),
    "checkpoints without a protocol": (
        {"trial": DIGITS_TRIAL | {"checkpoints": {"uri": "bucket/prefix"}}},
        "uri must be protocol://bucket/prefix, such as s3://bucket/prefix, or a folder, file:///folder",
    ),
    "checkpoints with a password": (
        {"trial": DIGITS_TRIAL | {"checkpoints": {"uri": "s3://key:secret@bucket/prefix"}}},
        "no credentials in uri: give them to the workers as environment from a Secret, by trial.podTemplate",
    ),
    "no objective": ({"objectives": []}, "spec.objectives in body should have at least 1 items"),
    "a timeout in words": ({"timeout": "an hour"}, "spec.timeout in body should match"),
}


@pytest.mark.parametrize(("changes", "words"), REFUSED.values(), ids=REFUSED)
def test_a_bad_manifest_is_refused_at_once_and_in_words(
    kubectl: Kubectl, namespace: str, changes: Document, words: str
) -> None:
    """The earliest place is the API server: schema and CEL rules, no webhook."""
    said = kubectl.apply(a_manifest(namespace=namespace, **changes))
    assert said.returncode != 0
    assert words in said.stderr


_DIRECTION_TURNED = {"objectives": [VAL_ACC | {"direction": "minimize"}]}
_OTHER_MODEL = {"trial": {"lightning": DIGITS_TRIAL["lightning"] | {"trainer": {"max_epochs": 99}}}}

IMMUTABLE = {
    "the objectives": (_DIRECTION_TURNED, "objectives is immutable: trials with different objectives cannot"),
    "the constraints": (
        {"constraints": [LATENCY]},
        "constraints is immutable: the sampler has learned from the bounds as they were, create a new study",
    ),
    "the model": (_OTHER_MODEL, "lightning is immutable: trials of different code differ, create a new study"),
    "a parameter's type": (_space(type="int", low=1, high=2, log=False), "type is immutable"),
    "a parameter's scale": (_space(log=False), "log is immutable: Optuna cannot compare the trials"),
    "choices": (
        {"searchSpace": [LEARNING_RATE, HIDDEN_DIM | {"choices": [8, 16]}]},
        "a categorical parameter, with its choices, is immutable",
    ),
    "the database": ({"database": {"secretName": "mine"}}, "database is immutable: a study lives in one database"),
}


@pytest.mark.parametrize(("changes", "words"), IMMUTABLE.values(), ids=IMMUTABLE)
def test_what_trials_have_in_common_cannot_change(
    kubectl: Kubectl, namespace: str, changes: Document, words: str
) -> None:
    """Optuna could not compare the trials before the change with those after it."""
    assert kubectl.apply(a_manifest(namespace=namespace)).returncode == 0
    said = kubectl.apply(a_manifest(namespace=namespace, **changes))
    assert said.returncode != 0
    assert words in said.stderr


MUTABLE = {
    "the budget": {"maxTrials": 500},
    "the time": {"timeout": "2h30m"},
    "when it stops": {"stopWhen": {"target": 0.9, "noImprovementTrials": 20}, "maxComputeSeconds": 3600},
    "what it has learned from": {"warmStart": [{"name": "wide"}]},
    "the workers": {"parallelism": 7},
    "a pause": {"suspend": True},
    "the sampler and the pruner": {"sampler": {"type": "random", "seed": 1}, "pruner": {"type": "none"}},
    "narrower bounds": _space(low=1e-3, high=1e-2),
    "where checkpoints are": {"trial": DIGITS_TRIAL | {"checkpoints": {"uri": "s3://bucket/prefix", "keep": 2}}},
    "the pods": {"trial": DIGITS_TRIAL | {"podTemplate": {"spec": {"nodeSelector": {"gpu": "a100"}}}}},
}


@pytest.mark.parametrize("changes", MUTABLE.values(), ids=MUTABLE)
def test_what_concerns_trials_to_come_may_change(kubectl: Kubectl, namespace: str, changes: Document) -> None:
    """Wide first, then narrow; and never a new study for a longer budget."""
    assert kubectl.apply(a_manifest(namespace=namespace)).returncode == 0
    said = kubectl.apply(a_manifest(namespace=namespace, **changes))
    assert said.returncode == 0, said.stderr


@pytest.mark.parametrize(("changes", "_words"), REFUSED.values(), ids=REFUSED)
def test_the_models_refuse_what_the_api_server_refuses(changes: Document, _words: str) -> None:
    """The same manifest means the same without an API server."""
    with pytest.raises(ValueError, match=r".+"):
        StudySpec.model_validate(a_spec_document(**changes))


EXPLAINED = {
    "tuningstudy.spec.searchSpace": ("name", "type", "low", "high", "log", "choices", "when"),
    "tuningstudy.spec.trial.lightning": ("LightningCLI configuration",),
    "tuningstudy.spec.sampler": ("gp: few, expensive trials", "tpe and gp: 10, cmaes: 1"),
    "tuningstudy.spec.pruner": ("trainer.max_epochs, when each epoch", "25 keeps the best quarter"),
    "tuningstudy.spec.enqueue": ("tried first and once each",),
    "tuningstudy.spec.maxTrials": ("never exceeded",),
    "tuningstudy.status.conditions": ("reason", "observedGeneration"),
}


@pytest.mark.parametrize(("path", "words"), EXPLAINED.items())
def test_kubectl_explain_teaches(kubectl: Kubectl, path: str, words: tuple[str, ...]) -> None:
    """The reference that everyone has at hand."""
    text = kubectl("explain", path)
    assert not [word for word in words if word not in text]


@pytest.mark.parametrize("name", ["ts", "study", "tuningstudies", "tuning"])
def test_the_resource_has_short_names(kubectl: Kubectl, namespace: str, name: str) -> None:
    """`kubectl get ts`."""
    kubectl.apply(a_manifest(namespace=namespace))
    assert "digits" in kubectl("get", name, "-n", namespace)


WRITTEN = {
    "scientific": ("1e-5", 1e-05),
    "scientific with a point": ("1.0e-5", 1e-05),
    "a word that means true": ("on", True),
    "octal": ("010", 8),
    "hexadecimal": ("0x10", 16),
    "with a separator": ("1_000", 1000),
    "nothing": ("~", None),
    "quoted": ('"16"', "16"),
}


@pytest.mark.parametrize(("text", "stored"), WRITTEN.values(), ids=WRITTEN)
def test_yaml_means_what_kubectl_makes_of_it(kubectl: Kubectl, namespace: str, text: str, stored: object) -> None:
    """Choices keep the type that YAML 1.1 as kubectl reads it gives them; the local reader will be held to these."""
    document = json.dumps(a_manifest(namespace=namespace)).replace('"choices": [8, 16, 32]', f'"choices": [{text}]')
    assert (
        kubectl.run("apply", "-f", "-", stdin="# not JSON, for it begins with a comment\n" + document).returncode == 0
    )
    space = kubectl.get("tuningstudy", "digits", "-n", namespace)["spec"]["searchSpace"]
    choice = space[1]["choices"][0]
    assert (choice, type(choice)) == (stored, type(stored))
