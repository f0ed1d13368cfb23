"""The state of all random numbers that a training draws; Lightning's checkpoints leave it out."""

import hashlib
import pickle
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import CombinedLoader

State = dict[str, Any]


def capture(trainer: pl.Trainer) -> State:
    """The global generators of Python, numpy and torch, and those that the training's data loaders were given.

    The GPU's are there only once CUDA is in use: asking for them would initialise it.
    """
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],  # type: ignore[no-untyped-call]
        "loaders": [generator.get_state() for generator in _generators(trainer)],
    }


def restore(state: State, trainer: pl.Trainer) -> None:
    """Go on drawing where :func:`capture` looked."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    # A worker may have been given another number of GPUs than the one before.
    for device, values in enumerate(state["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(values, device)
    for generator, values in zip(_generators(trainer), state["loaders"], strict=False):
        generator.set_state(values)


def digest(trainer: pl.Trainer) -> bytes:
    """Of the generators that an order of data may be drawn from: two that are equal will draw the same."""
    values = (random.getstate(), np.random.get_state(), torch.get_rng_state().numpy().tobytes())
    loaders = [generator.get_state().numpy().tobytes() for generator in _generators(trainer)]
    return hashlib.blake2b(pickle.dumps((values, loaders)), digest_size=16).digest()


def _generators(trainer: pl.Trainer) -> Iterator[torch.Generator]:
    seen: list[torch.Generator] = []
    for loader in CombinedLoader(trainer.train_dataloader).flattened:
        for owner in (loader, getattr(loader, "sampler", None)):
            generator = getattr(owner, "generator", None)
            if isinstance(generator, torch.Generator) and not any(generator is known for known in seen):
                seen.append(generator)
                yield generator
