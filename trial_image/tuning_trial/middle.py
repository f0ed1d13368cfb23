"""What the middle of an epoch consists of, besides what Lightning 2.6 puts into any checkpoint.

Lightning saves weights, optimizers, schedulers, callbacks and counters at any time. It does not save gradients that were
accumulated, the means of what the training logs, the states of torchmetrics, nor the place in the data; and where it goes on
in the middle, the hooks that begin an epoch are left out. So an epoch is begun again as it was begun before, with the same
random numbers; the batches that were trained are taken from the data loader and not trained; and then all else is put over
what the beginning has left.
"""

import io
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loops.fetchers import _DataFetcher, _PrefetchDataFetcher
from pytorch_lightning.loops.training_epoch_loop import _TrainingEpochLoop
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, sampler
from torchmetrics import Metric, MetricCollection
from typing_extensions import override

from tuning_trial import randomness

State = dict[str, Any]

_SAMPLERS = frozenset(
    {
        sampler.BatchSampler,
        sampler.RandomSampler,
        sampler.SequentialSampler,
        sampler.SubsetRandomSampler,
        sampler.WeightedRandomSampler,
        type(None),
    }
)
"""They draw their order when an epoch begins."""


class EpochLoop(_TrainingEpochLoop):
    """Lightning's loop over the batches of an epoch, with a place between the beginning and the first batch.

    NB: no hook is there: those of an epoch's start come before the data loader is asked for its order, and
    `on_train_batch_start` after the first batch was taken.
    """

    def __init__(self, replaced: _TrainingEpochLoop, *, has_begun: Callable[[_DataFetcher], None]) -> None:
        """Take the place of a trainer's loop.

        Args:
            replaced: Has done nothing yet.
            has_begun: Called with the data of each epoch that has begun.
        """
        super().__init__(replaced.trainer, min_steps=replaced.min_steps, max_steps=replaced.max_steps)
        self.order = b""
        """A digest of the random numbers once the first batch of the epoch was taken: of what its order follows from."""
        self._has_begun = has_begun

    @override
    def on_run_start(self, data_fetcher: _DataFetcher) -> None:
        self.order = b""
        super().on_run_start(data_fetcher)
        self._has_begun(data_fetcher)

    @override
    def _on_after_fetch(self) -> None:
        super()._on_after_fetch()
        if not self.order:
            self.order = randomness.digest(self.trainer)


def obstacle(trainer: pl.Trainer) -> str | None:
    """Why the data of the epoch cannot be brought to the same place again, or None."""
    if not isinstance(trainer.fit_loop._data_fetcher, _PrefetchDataFetcher):  # noqa: SLF001
        return "its training_step takes batches from the data loader by itself"
    return None


def skip(loop: EpochLoop, data: _DataFetcher, batches: int, *, order: bytes, beat: Callable[[], None]) -> str | None:
    """Take batches and do nothing with them.

    Args:
        loop: Has just begun the epoch.
        data: Its batches.
        batches: How many.
        order: What :attr:`EpochLoop.order` was when they were trained.
        beat: Called after each.

    Returns:
        Why those that follow may be others than those that followed then, or None.
    """
    for done in range(batches):
        try:
            next(data)
        except StopIteration:  # which would end the training, as if all epochs were done
            return f"the epoch has {done} batches now"
        beat()
    if loop.order != order:
        return "the epoch began with other random numbers"
    # What is drawn while an epoch runs comes in between what the training draws, which is not done again.
    if randomness.digest(loop.trainer) != order and not _is_ordered_at_once(data):
        return "the order of its data is drawn while the epoch runs"
    return None


def _is_ordered_at_once(data: _DataFetcher) -> bool:
    """Whether what was drawn after the first batch is for its contents, such as augmentations, and not for the order."""
    loaders = data.combined_loader.flattened
    return len(loaders) == 1 and all(
        type(loader) is DataLoader
        and type(loader.sampler) in _SAMPLERS
        and type(loader.batch_sampler) in {BatchSampler, type(None)}
        and not isinstance(loader.dataset, IterableDataset)
        for loader in loaders
    )


def capture(trainer: pl.Trainer, loop: EpochLoop) -> State:
    """The state after a batch, for a process that ends now: what is logged is moved to the CPU."""
    module, connector = trainer.lightning_module, trainer._logger_connector  # noqa: SLF001
    return {
        "epoch": trainer.current_epoch,
        "batches": loop.batch_progress.current.completed,
        "order": loop.order,
        "loop": loop.state_dict(),
        "gradients": {
            name: part.grad.detach().cpu() for name, part in module.named_parameters() if part.grad is not None
        },
        "metrics": {
            name: (_on_cpu(metric.metric_state), metric._update_count)  # noqa: SLF001
            for name, metric in _metrics(module)
        },
        "logged": _pickled(dict(loop._results.cpu()), trainer),  # noqa: SLF001
        "logging": (connector._first_loop_iter, connector._current_fx),  # noqa: SLF001
    }


def restore(state: State, checkpoint: State, trainer: pl.Trainer, loop: EpochLoop) -> None:
    """Go on after the batch, in an epoch that has begun and whose batches were skipped.

    Args:
        state: What :func:`capture` gave.
        checkpoint: What Lightning saved with it.
        trainer: Trains.
        loop: Its loop.
    """
    _restore_from(checkpoint, trainer._checkpoint_connector)  # noqa: SLF001
    loop.load_state_dict(state["loop"])
    loop.restarting = False
    loop.on_iteration_done()
    module, connector = trainer.lightning_module, trainer._logger_connector  # noqa: SLF001
    for name, part in module.named_parameters():
        part.grad = state["gradients"][name].to(part.device) if name in state["gradients"] else None
    for name, metric in _metrics(module):
        values, updates = state["metrics"][name]
        for attribute, value in values.items():
            setattr(metric, attribute, _moved(value, metric.device))
        metric._update_count, metric._computed = updates, None  # noqa: SLF001
    loop._results.update(_unpickled(state["logged"], trainer))  # noqa: SLF001
    connector._first_loop_iter, connector._current_fx = state["logging"]  # noqa: SLF001


def _restore_from(checkpoint: State, connector: Any) -> None:
    """All that a fit takes from a checkpoint, but for the loops: what an epoch's start has changed is as it was."""
    connector._loaded_checkpoint = checkpoint  # noqa: SLF001
    connector.restore_datamodule()
    connector.restore_model()
    connector.restore_callbacks()
    connector.restore_precision_plugin_state()
    connector.restore_optimizers_and_schedulers()
    connector._loaded_checkpoint = {}  # noqa: SLF001


def _metrics(module: nn.Module) -> Iterator[tuple[str, Metric]]:
    """The metrics of a model. NB: one of a collection may have left its state to another one of the same kind."""
    for part in module.modules():
        if isinstance(part, MetricCollection):
            part.values(copy_state=False)
    for name, part in module.named_modules():
        if isinstance(part, Metric):
            yield name, part


def _on_cpu(values: State) -> State:
    return {name: _moved(value, torch.device("cpu")) for name, value in values.items()}


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, list):
        return [_moved(item, device) for item in value]
    return value.detach().to(device) if isinstance(value, torch.Tensor) else value


def _pickled(logged: State, trainer: pl.Trainer) -> bytes:
    file = io.BytesIO()
    _LoggedPickler(file, trainer).dump(logged)
    return file.getvalue()


def _unpickled(logged: bytes, trainer: pl.Trainer) -> State:
    found: State = _LoggedUnpickler(io.BytesIO(logged), trainer).load()
    return found


class _LoggedPickler(pickle.Pickler):
    """What is logged names the strategy, which sums up over devices, and the model's own metrics: those stay where they are."""

    def __init__(self, file: io.BytesIO, trainer: pl.Trainer) -> None:
        super().__init__(file)
        self._strategy = trainer.strategy
        self._names = {id(part): name for name, part in trainer.lightning_module.named_modules()}

    @override
    def persistent_id(self, obj: Any) -> str | None:
        if obj is self._strategy:
            return ""
        return self._names.get(id(obj))


class _LoggedUnpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, trainer: pl.Trainer) -> None:
        super().__init__(file)
        self._trainer = trainer

    @override
    def persistent_load(self, pid: str) -> Any:
        return self._trainer.lightning_module.get_submodule(pid) if pid else self._trainer.strategy
