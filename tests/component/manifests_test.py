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
    "no task": ({"trial": {"gpus": 0}}, "trial needs exactly one of lightning and objective"),
    "two tasks": (
        {"trial": DIGITS_TRIAL | {"objective": "my.module:objective"}},
        "trial needs exactly one of lightning and objective",
    ),
    "nothing to search": ({"searchSpace": []}, "searchSpace needs at least one parameter"),
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
    "the workers": {"parallelism": 7},
    "a pause": {"suspend": True},
    "the sampler and the pruner": {"sampler": {"type": "random", "seed": 1}, "pruner": {"type": "none"}},
    "narrower bounds": _space(low=1e-3, high=1e-2),
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
