"""`tuningstudy init`, of what is known of a class: which arguments are searched, and what is asked of a person."""

from typing import Any

import pytest

from tuning_api import manifest
from tuning_operator.cli import writing
from tuning_operator.cli.starter import Starter, starter

Document = dict[str, Any]


def an_argument(name: str, default: Any = ..., kind: str = "") -> Document:
    """An argument, with a default if one is given."""
    required = default is ...
    named = kind or ("" if required else type(default).__name__)
    return {"name": name, "type": named, "required": required} | ({} if required else {"default": default})


def a_model(*arguments: Document, **changes: Any) -> Document:
    """A model that brings no optimizer and no data along, and logs an accuracy."""
    described = {
        "class_path": "my_model.Net",
        "kind": "model",
        "arguments": list(arguments),
        "metrics": ["train_loss", "val_loss", "val_acc"],
        "has_optimizer": False,
        "has_data": False,
    }
    return described | changes


def some_data(*arguments: Document) -> Document:
    """A data module."""
    return {"class_path": "my_data.Data", "kind": "data", "arguments": list(arguments)}


def started(model: Document, data: Document | None = None) -> tuple[Document, Starter]:
    """The spec of the starter as it is read from its text."""
    made = starter(model, data, name="net")
    (read,) = manifest.parse(writing.text(made.manifest, comments=made.comments), source="study.yaml")
    spec: Document = read["spec"]
    return spec, made


def space_of(spec: Document) -> dict[str, Document]:
    return {item["name"]: {key: value for key, value in item.items() if key != "name"} for item in spec["searchSpace"]}


USUAL: dict[str, tuple[Document, Document]] = {
    "a rate": (an_argument("lr", 1e-3), {"type": "float", "low": 1e-4, "high": 1e-2, "log": True}),
    "a rate of a part": (an_argument("encoder_lr", 0.02), {"type": "float", "low": 0.002, "high": 0.2, "log": True}),
    "a decay of 0": (an_argument("weight_decay", 0.0), {"type": "float", "low": 1e-5, "high": 1e-3, "log": True}),
    "a dropout": (an_argument("attention_dropout", 0.1), {"type": "float", "low": 0, "high": 0.5}),
    "a high dropout": (an_argument("dropout", 0.6), {"type": "float", "low": 0, "high": 0.6}),
    "a momentum": (an_argument("momentum", 0.9), {"type": "float", "low": 0.8, "high": 0.99}),
    "layers": (an_argument("num_layers", 4), {"type": "int", "low": 1, "high": 8}),
    "a width": (an_argument("hidden_dim", 64), {"type": "categorical", "choices": [16, 32, 64, 128]}),
    "a small width": (an_argument("hidden_size", 2), {"type": "categorical", "choices": [1, 2, 4]}),
    "a transformer's": (an_argument("d_model", 512), {"type": "categorical", "choices": [128, 256, 512, 1024]}),
    "a batch": (an_argument("batch_size", 32), {"type": "categorical", "choices": [16, 32, 64, 128]}),
    "no default": (
        an_argument("learning_rate", kind="float"),
        {"type": "float", "low": 1e-4, "high": 1e-2, "log": True},
    ),
}


@pytest.mark.parametrize(("argument", "expected"), USUAL.values(), ids=USUAL)
def test_an_argument_with_a_usual_name_is_searched_around_its_default(argument: Document, expected: Document) -> None:
    """As people do it."""
    spec, _ = started(a_model(argument, has_optimizer=True))
    assert space_of(spec) == {argument["name"]: expected}
    assert spec["trial"]["lightning"]["model"]["init_args"] == {argument["name"]: f"${{{argument['name']}}}"}


UNUSUAL = {
    "an unknown name": an_argument("num_classes", 10),
    "what the data decide": an_argument("in_channels", 3),
    "what the data decide, too": an_argument("input_dim", 64),
    "a switch": an_argument("hidden_dim", default=True),
    "nothing": an_argument("dropout", None),
    "a text": an_argument("dropout", "alpha"),
    "sizes": an_argument("hidden_dim", [64, 32]),
}


@pytest.mark.parametrize("argument", UNUSUAL.values(), ids=UNUSUAL)
def test_any_other_argument_is_fixed_at_its_default(argument: Document) -> None:
    """With its type beside it."""
    spec, made = started(a_model(argument))
    assert list(space_of(spec)) == ["learning_rate"]
    assert spec["trial"]["lightning"]["model"]["init_args"] == {argument["name"]: argument["default"]}
    beside = made.comments[f"spec.trial.lightning.model.init_args.{argument['name']}"]
    assert beside == f"{argument['type']}, fixed at its default"


def test_an_argument_that_cannot_be_written_is_left_out_and_said() -> None:
    """A person decides what has no default; an object's default stays what it is."""
    loss = {"name": "loss", "type": "torch.nn.Module", "required": False}
    spec, made = started(a_model(an_argument("num_classes", kind="int"), loss))
    assert "init_args" not in spec["trial"]["lightning"]["model"]
    assert made.comments["spec.trial.lightning.model.class_path"] == [
        "To decide: num_classes (int) has no default: write a value into init_args.",
        "loss (torch.nn.Module) keeps its default, which YAML cannot say.",
    ]


def test_a_model_without_an_optimizer_gets_one() -> None:
    """With the model's own rate, if it has one, else with one of its own."""
    spec, _ = started(a_model(an_argument("lr", 0.01)))
    assert spec["trial"]["lightning"]["optimizer"]["init_args"] == {"lr": "${lr}"}
    spec, _ = started(a_model())
    assert spec["trial"]["lightning"]["optimizer"]["init_args"] == {"lr": "${learning_rate}"}
    spec, _ = started(a_model(an_argument("lr", 0.01), has_optimizer=True))
    assert "optimizer" not in spec["trial"]["lightning"]


def test_data_are_asked_for_unless_the_model_has_its_own() -> None:
    """Trials would fail for want of them."""
    assert started(a_model())[1].comments["spec.trial.lightning"][0].startswith("To decide: the data.")
    assert "spec.trial.lightning" not in started(a_model(has_data=True))[1].comments
    assert "spec.trial.lightning" not in started(a_model(), some_data())[1].comments


def test_two_ranges_of_one_name_are_two_parameters() -> None:
    """The data's dropout is not the model's; what is alike, such as a width, is one."""
    spec, _ = started(
        a_model(an_argument("dropout", 0.1), an_argument("hidden_dim", 64)),
        some_data(an_argument("dropout", 0.7), an_argument("hidden_dim", 64)),
    )
    assert list(space_of(spec)) == ["dropout", "hidden_dim", "data_dropout", "learning_rate"]
    assert spec["trial"]["lightning"]["data"]["init_args"] == {
        "dropout": "${data_dropout}",
        "hidden_dim": "${hidden_dim}",
    }


METRICS: dict[str, tuple[list[str], str, str, bool]] = {
    "an accuracy before a loss": (["train_loss", "val_loss", "val_acc"], "val_acc", "maximize", True),
    "a loss": (["loss", "val/loss"], "val/loss", "minimize", True),
    "a score with a slash": (["val/auroc", "test/auroc"], "val/auroc", "maximize", True),
    "one of validation only": (["train_acc", "valid_loss"], "valid_loss", "minimize", True),
    "an unknown one": (["val_quality"], "val_quality", "minimize", False),
    "none of validation": (["train_acc"], "val_loss", "minimize", False),
    "none": ([], "val_loss", "minimize", False),
}


@pytest.mark.parametrize(("metrics", "metric", "direction", "is_sure"), METRICS.values(), ids=METRICS)
def test_the_metric_is_one_that_the_model_logs_in_validation(
    metrics: list[str], metric: str, direction: str, *, is_sure: bool
) -> None:
    """Its name says which way is better, or a person is asked."""
    spec, made = started(a_model(metrics=metrics))
    assert spec["objectives"] == [{"metric": metric, "direction": direction}]
    assert made.comments["spec.objectives"][0].startswith("To decide") != is_sure


def test_a_starter_is_a_study() -> None:
    """Nothing in it is refused, so that a person changes what runs."""
    made = starter(a_model(an_argument("lr", 1e-3)), some_data(an_argument("batch_size", 32)), name="net")
    spec, fault = manifest.read_spec(made.manifest)
    assert (spec is not None, fault) == (True, None)
