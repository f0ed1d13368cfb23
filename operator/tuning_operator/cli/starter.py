"""A first manifest for a model, from what `python -m tuning_trial describe` says of it. Pure.

Which ranges are worth a search cannot be read from a signature; these are what people usually start with, around the
defaults that the model's author chose.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from tuning_api.manifest import API_VERSION
from tuning_api.schema import Document
from tuning_api.spec import KIND

_RATE = re.compile(r"(.*_)?(lr|learning_rate)$")
_DECAY = re.compile(r"(.*_)?(weight_decay|l2|l2_reg)$")
_DROPOUT = re.compile(r"(.*_)?(dropout|drop_prob|drop_rate|drop_path)(_.*)?$")
_MOMENTUM = re.compile(r"momentum$")
_DEPTH = re.compile(r"(num_|n_)?(\w+_)?(layers|blocks|depth)$")
_WIDTH = re.compile(
    r"(.*_)?(hidden|embed|embedding|latent|model|ffn?|feedforward|encoder|decoder)_(dim|size|width|units|features|channels)$"
    r"|(num_|n_)?(hidden|width|units|filters|channels)$|d_(model|ff|hidden)$|dim_feedforward$|dim$"
)
_OF_THE_DATA = re.compile(r"(in|out|input|output)_|.*_(in|out)$")
_LOSS = re.compile(r"(^|[_/])(loss|error|err|mse|mae|rmse|nll|perplexity|ppl|wer|cer|fid|ece)([_/]|$)")
_SCORE = re.compile(
    r"(^|[_/])(acc|accuracy|auroc|auc|f1|f1score|precision|recall|ap|map|miou|iou|dice|r2|bleu|psnr|ssim)([_/\d]|$)"
)
_VALIDATION = re.compile(r"(^|[_/])val(id|idation)?([_/]|$)")
_USUAL_RATE = 1e-3
_USUAL_DECAY = 1e-4
_USUAL_WIDTH, _USUAL_BATCH = 128, 64
_DECIMAL = 10
"""Bounds are this many times smaller and larger than the default."""
_TRIALS, _EPOCHS = 30, 10


@dataclass
class Starter:
    """A manifest with comments, see `writing`."""

    manifest: Document
    comments: dict[str, list[str] | str] = field(default_factory=dict)


def starter(model: Document, data: Document | None, *, name: str) -> Starter:
    """The manifest of a model and its data.

    Args:
        model: The description of a LightningModule.
        data: That of its LightningDataModule, unless the model brings its data along.
        name: What the study is called.
    """
    space: dict[str, Document] = {}
    comments: dict[str, list[str] | str] = {}
    lightning: Document = {"model": _part(model, space, comments, path="spec.trial.lightning.model")}
    if data is not None:
        lightning["data"] = _part(data, space, comments, path="spec.trial.lightning.data")
    elif not model["has_data"]:
        comments["spec.trial.lightning"] = ["To decide: the data. Write `data` beside `model`, with its class_path."]
    if not model["has_optimizer"]:
        rate = next((key for key in space if _RATE.match(key)), "learning_rate")
        space.setdefault(rate, _logarithmic(_USUAL_RATE))
        lightning["optimizer"] = {"class_path": "torch.optim.AdamW", "init_args": {"lr": f"${{{rate}}}"}}
    lightning["trainer"] = {"max_epochs": _EPOCHS}
    objective, words = _objective(model["metrics"])
    comments["spec.objectives"] = [words]
    comments["spec.searchSpace"] = [
        "Start wide, and narrow the bounds while the study runs. Usual ranges, around the defaults:"
    ]
    if not space:
        comments["spec.searchSpace"] = [
            "To decide: no argument has a usual name; add some, and use them below as ${name}."
        ]
    spec: Document = {
        "objectives": [objective],
        "searchSpace": [{"name": key} | dimension for key, dimension in space.items()],
        "sampler": {"type": "tpe", "seed": 42},
        "pruner": {"type": "median", "nStartupTrials": 5, "nWarmupSteps": 2},
        "maxTrials": _TRIALS,
        "parallelism": 1,
        "trial": {"gpus": 1, "lightning": lightning},
    }
    comments["spec.pruner"] = "judge from the third validation on, once five trials have ended"
    comments["spec.trial.gpus"] = "of each worker; 0 trains on the CPU"
    manifest = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}, "spec": spec}
    return Starter(manifest, comments)


def _part(
    described: Document, space: dict[str, Document], comments: dict[str, list[str] | str], *, path: str
) -> Document:
    """The class with its arguments: `${name}` where a usual name can be searched, else the default."""
    arguments: Document = {}
    for argument in described["arguments"]:
        name = argument["name"]
        if dimension := _dimension(name, argument):
            arguments[name] = f"${{{_added(name, dimension, space)}}}"
        elif "default" in argument:
            arguments[name] = argument["default"]
            comments[f"{path}.init_args.{name}"] = f"{argument['type'] or 'any type'}, fixed at its default"
    if words := list(_unsaid(described["arguments"], arguments)):
        comments[f"{path}.class_path"] = words
    return {"class_path": described["class_path"]} | ({"init_args": arguments} if arguments else {})


def _added(name: str, dimension: Document, space: dict[str, Document]) -> str:
    """The name in the search space; the data's dropout is not the model's."""
    if name in space and space[name] != dimension:
        name = f"data_{name}"
    space[name] = dimension
    return name


def _unsaid(described: list[Document], arguments: Document) -> Iterator[str]:
    for argument in described:
        if argument["name"] in arguments:
            continue
        kind = argument["type"] or "any type"
        if argument["required"]:
            yield f"To decide: {argument['name']} ({kind}) has no default: write a value into init_args."
        else:
            yield f"{argument['name']} ({kind}) keeps its default, which YAML cannot say."


def _dimension(name: str, argument: Document) -> Document | None:
    default = argument.get("default")
    if isinstance(default, bool) or not isinstance(default, int | float | None) or _OF_THE_DATA.match(name):
        return None
    if not _is_numeric(argument):
        return None
    return _real(name, default) or _whole(name, default)


def _is_numeric(argument: Document) -> bool:
    """By its default, or, where there is none, by its type; an argument that may be None keeps its default None."""
    if argument["required"]:
        return argument["type"] in {"int", "float", ""}
    return argument.get("default") is not None


def _real(name: str, default: float | None) -> Document | None:
    if _RATE.match(name):
        return _logarithmic(default or _USUAL_RATE)
    if _DECAY.match(name):
        return _logarithmic(default or _USUAL_DECAY)
    if _DROPOUT.match(name):
        return {"type": "float", "low": 0.0, "high": max(0.5, min(1.0, default or 0))}
    if _MOMENTUM.match(name):
        return {"type": "float", "low": min(0.8, default or 0.8), "high": max(0.99, default or 0)}
    return None


def _whole(name: str, default: float | None) -> Document | None:
    if default is not None and (not isinstance(default, int) or default < 1):
        return None
    if _DEPTH.match(name):
        return {"type": "int", "low": 1, "high": max(3, 2 * int(default or 2))}
    if _WIDTH.match(name):
        return _doubled(int(default or _USUAL_WIDTH), times=(2, 1))
    if name == "batch_size":
        return _doubled(int(default or _USUAL_BATCH), times=(1, 2))
    return None


def _logarithmic(default: float) -> Document:
    low, high = (float(f"{value:.3g}") for value in (default / _DECIMAL, default * _DECIMAL))
    return {"type": "float", "low": low, "high": high, "log": True}


def _doubled(default: int, *, times: tuple[int, int]) -> Document:
    """The default, halved and doubled a few times."""
    down, up = times
    choices = sorted(
        {max(1, default // 2**power) for power in range(down + 1)} | {default * 2**power for power in range(up + 1)}
    )
    return {"type": "categorical", "choices": choices}


def _objective(metrics: list[str]) -> tuple[Document, str]:
    """The metric to optimise, with the words that say where it comes from."""
    for pattern, direction in ((_SCORE, "maximize"), (_LOSS, "minimize")):
        for metric in metrics:
            if _VALIDATION.search(metric) and pattern.search(metric):
                others = ", ".join(other for other in metrics if other != metric)
                return {
                    "metric": metric,
                    "direction": direction,
                }, f"Logged by the model{f', as are {others}' if others else ''}."
    validated = [metric for metric in metrics if _VALIDATION.search(metric)]
    found = validated[0] if validated else "val_loss"
    logged = f"The model logs {', '.join(metrics)}" if metrics else "No self.log was found in the model"
    return {"metric": found, "direction": "minimize"}, f"To decide: the metric and its direction. {logged}."
