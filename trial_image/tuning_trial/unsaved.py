"""What a model and its callbacks keep in attributes, which no checkpoint has.

In the middle of an epoch that may be a list of losses, a meter or a counter, of which the epoch's end makes a value. A
training that goes on in the middle would begin with an empty one and give another value, so whatever changes between two
batches is noticed. At the epoch's start there is no such question: what is kept for an epoch is made there.
"""

import functools
import hashlib
import pickle
import time
from collections.abc import Iterator, Mapping
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader, Dataset
from torchmetrics import Metric
from typing_extensions import override

Fingerprints = dict[str, bytes | None]

_FRAMEWORKS = frozenset({"lightning_fabric", "pytorch_lightning", "torch", "torchmetrics", "tuning_trial"})
"""Their modules keep all of their state in parameters and buffers, and their callbacks in `state_dict`."""
_EXAMPLES = "tuning_trial.examples."
LONGEST_LOOK_SECONDS = 0.3
"""In each epoch, for all attributes together."""
_LARGEST_TENSOR = 1 << 24
"""Elements of a tensor that is read; of a larger one the place in memory and torch's count of changes have to do."""


def fingerprints(trainer: pl.Trainer) -> Fingerprints:
    """A digest of each attribute, by its name; None for what cannot be looked at, or not within the time for all of them."""
    module = trainer.lightning_module
    saved = {id(value) for value in module.state_dict(keep_vars=True).values()}
    saved |= {id(value) for value in module.parameters()}
    until = time.monotonic() + LONGEST_LOOK_SECONDS
    return {name: _fingerprint(value, saved, until=until) for name, value in _attributes(module, trainer)}


def changed(before: Fingerprints, after: Fingerprints) -> str | None:
    """The name of an attribute that is not what it was, or of which that cannot be told; None when there is none."""
    return next(
        (name for name in sorted(before | after) if after.get(name) is None or before.get(name) != after[name]), None
    )


def _attributes(module: pl.LightningModule, trainer: pl.Trainer) -> Iterator[tuple[str, Any]]:
    for path, part in module.named_modules():
        if not isinstance(part, Metric) and _is_of_user(type(part)):
            buffers = dict(part.named_buffers(recurse=False))
            yield from _named(".".join(filter(None, [type(module).__name__, path])), vars(part) | buffers)
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if _is_of_user(type(callback)) and type(callback).state_dict is Callback.state_dict:
            yield from _named(type(callback).__name__, vars(callback))


def _named(owner: str, attributes: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in attributes.items():
        if name not in _of_lightning():
            yield f"{owner}.{name}", value


@functools.cache
def _of_lightning() -> frozenset[str]:
    """What any module has."""
    return frozenset(vars(pl.LightningModule()))


def _is_of_user(found: type) -> bool:
    module = found.__module__
    return module.startswith(_EXAMPLES) or module.partition(".")[0] not in _FRAMEWORKS


def _fingerprint(value: object, saved: set[int], *, until: float) -> bytes | None:
    digest = _Digest(until)
    try:
        _Pickler(digest, saved).dump(value)
    except Exception:  # noqa: BLE001 - an open file, a lock, a generator, or what an object of the user raises
        return None
    return digest.hash.digest()


class _Digest:
    """A file of which only the digest is kept.

    NB: pickle writes after every 64 KiB, so that a dictionary of a million words is left soon after the time is over.
    """

    def __init__(self, until: float) -> None:
        self.hash = hashlib.blake2b(digest_size=16)
        self._until = until

    def write(self, data: Any) -> int:
        if time.monotonic() > self._until:
            raise TimeoutError
        self.hash.update(data)
        return len(data)


class _Pickler(pickle.Pickler):
    """Goes through whatever an attribute holds, but not into what a checkpoint has or what does not change."""

    def __init__(self, digest: _Digest, saved: set[int]) -> None:
        super().__init__(digest, protocol=5)
        self._saved = saved

    @override
    def persistent_id(self, obj: Any) -> object:
        match obj:
            case torch.Tensor():
                return "saved" if id(obj) in self._saved else _contents(obj)
            case nn.Module() | pl.Trainer() | Dataset() | DataLoader() | Optimizer() | LRScheduler():
                return id(obj)
            case FunctionType() | BuiltinFunctionType() | MethodType():
                return id(obj)
            case _:
                return None


def _contents(tensor: torch.Tensor) -> tuple[object, ...]:
    kind = (tensor.dtype, tuple(tensor.shape))
    if tensor.numel() > _LARGEST_TENSOR:
        return (*kind, tensor.data_ptr(), None if tensor.is_inference() else tensor._version)  # noqa: SLF001
    values = tensor.detach().cpu().contiguous().flatten()
    return (*kind, hashlib.blake2b(values.view(torch.uint8).numpy().tobytes()).digest())
