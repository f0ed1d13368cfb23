"""LightningCLI's parser, built once in a worker, and its refusals in one sentence.

`LightningCLI` builds a parser for each object; a worker needs the same one for every trial. jsonargparse's own error
for a misspelt argument is the union of all types that a model might have had. The exceptions that it was raised from
know better: the keys on the way down, the class, and at the bottom what is wrong.
"""

import copy
import functools
import inspect
import re
import traceback
from argparse import ArgumentError
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytorch_lightning as pl
from jsonargparse import Namespace
from pytorch_lightning.cli import LightningArgumentParser, LRSchedulerTypeTuple
from torch.optim import Optimizer

from tuning_trial import family, lookup
from tuning_trial.errors import InvalidConfigError, nearest

family.join()

_WHERE = "trial.lightning"
_KEY = re.compile(r'^Parser key "([^"]+)"')
_CLASS = re.compile(r"^Problem with given class_path '([^']+)'")
_UNKNOWN_ARGUMENT = re.compile(r"^Option '([^']+)' is not accepted$")
_UNKNOWN_IN_GROUP = re.compile(r"^Group '([^']+)' does not accept option '([^']+)'$")
_REQUIRED = re.compile(r"^the following arguments are required: (.+)$")
_NO_PATH = re.compile(r"^Expected a dot import path string: ([^.]+)$")
_ANOTHER_CLASS = re.compile(r"^Import path (\S+) does not correspond to a subclass of (\w+)$")
_EXPECTED = re.compile(r"^Expected an? <class '([^']+)'>\. Got value: (.*)$", re.DOTALL)
_OF_A_SUBCLASS = (
    ": what a LightningCLI of your own adds goes under trainer.callbacks or init_args, or to an objective that calls it with"
    " run=False"
)
_HINTS = {
    "ckpt_path": ": it belongs to fit, and each trial starts anew or goes on from trial.checkpoints; load weights in the model"
}
"""What a person may have meant by a key that is none of ours."""
_TOP = ("model", "data", "trainer", "optimizer", "lr_scheduler", "seed_everything")


def build_parser() -> LightningArgumentParser:
    """The arguments of `LightningCLI(run=False, subclass_mode_model=True, subclass_mode_data=True)`."""
    parser = LightningArgumentParser(exit_on_error=False)
    parser.add_argument("--seed_everything", type=bool | int, default=True)
    parser.add_lightning_class_args(pl.Trainer, "trainer")
    parser.add_lightning_class_args(pl.LightningModule, "model", subclass_mode=True)
    parser.add_lightning_class_args(pl.LightningDataModule, "data", subclass_mode=True, required=False)
    parser.add_optimizer_args((Optimizer,))
    parser.add_lr_scheduler_args(LRSchedulerTypeTuple)
    return parser


@functools.cache
def shared_parser() -> LightningArgumentParser:
    """The parser that a worker builds before it forks; each trial then has its copy, to which LightningCLI adds."""
    return build_parser()


def parse(parser: LightningArgumentParser, config: dict[str, Any]) -> Namespace:
    """Check a configuration and fill in the defaults; nothing is built yet, but the classes are imported.

    Raises:
        InvalidConfigError: with the key, what is wrong there, and the nearest name that is right.
    """
    for part in ("model", "data"):
        if isinstance(found := config.get(part), dict) and found and "class_path" not in found:
            raise InvalidConfigError(
                f"{_WHERE}.{part} needs class_path: in a configuration of LightningCLI(Model, Data) are only the arguments;"
                f" write class_path: package.Class, and put them under init_args"
            )
    try:
        # NB: jsonargparse replaces parts of what it is given.
        parsed: Namespace = parser.parse_object(copy.deepcopy(config))
    except ArgumentError as error:
        raise InvalidConfigError(explain(error)) from error
    return parsed


def explain(error: BaseException) -> str:
    """What jsonargparse refused, in one sentence."""
    causes = list(_causes(error))
    keys, class_path = [_WHERE], None
    for text in map(str, causes):
        if found := _KEY.match(text):
            if keys[-1] != found[1]:  # an error is wrapped once as it is raised and once as it is reported
                keys.append(found[1])
        elif (found := _CLASS.match(text)) and found[1] != class_path:
            class_path = found[1]
            keys.append("init_args")
    if fault := _fault_of_path(causes[-1], class_path):
        where = keys[:-1] if class_path else keys
        return f"{'.'.join(where)}.class_path: {fault}"
    return _sentence(causes[-1], where=".".join(keys), class_path=class_path)


def _fault_of_path(error: BaseException, class_path: str | None) -> str | None:
    """What is wrong with a class_path itself."""
    if class_path and isinstance(error, ImportError | AttributeError):
        return lookup.fault(class_path)
    if found := _NO_PATH.match(str(error)):
        return lookup.fault(found[1])
    if found := _ANOTHER_CLASS.match(str(error)):
        return f"{found[1]} is no {found[2]}"
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _sentence(error: BaseException, *, where: str, class_path: str | None) -> str:
    text = str(error).strip()
    of_class = f" of {class_path}" if class_path else ""
    if found := _UNKNOWN_ARGUMENT.match(text):
        name = found[1] if class_path else found[1].partition(".")[0]
        meant = nearest(name, _arguments(class_path) if class_path else _TOP)
        hint = "" if class_path or meant else _HINTS.get(name, _OF_A_SUBCLASS)
        return f"{where} has no argument {name!r}{of_class}{meant}{hint}"
    if found := _UNKNOWN_IN_GROUP.match(text):
        meant = nearest(found[2], inspect.signature(pl.Trainer).parameters)
        return f"{where}.{found[1]} has no argument {found[2]!r}{meant}"
    if found := _REQUIRED.match(text):
        return f"{where} needs {found[1]}{of_class}"
    if found := _EXPECTED.match(text):
        return f"{where} must be of type {found[1]}, and is {found[2]!r}"
    if isinstance(error, ImportError | AttributeError | ValueError | TypeError):
        return f"{where}{of_class}: {text.splitlines()[0] if text else type(error).__name__}"
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{where}: importing it raised {type(error).__name__}: {text} ({frame.filename}:{frame.lineno})"


def class_of(class_path: str) -> Any:
    """The class, or the function that makes an object, of a path that the parser has accepted."""
    module, _, name = class_path.rpartition(".")
    return getattr(import_module(module), name)


def _arguments(class_path: str) -> list[str]:
    """Names of the arguments of a class and of those that it inherits from."""
    found = class_of(class_path)
    names = (name for base in inspect.getmro(found) for name in inspect.signature(base).parameters)
    return [name for name in dict.fromkeys(names) if name not in {"args", "kwargs"}]
