"""What a worker imports once, before its first fork, so that no trial has to.

The imports are most of the time from a worker's start to its first trial, and they run in one thread, on one core, whatever
is done meanwhile: Python imports under its global lock. Two things are therefore not done. A thread could open the database and
claim a trial during the imports; it would hide no more than what those two wait for, and the trial would be running, counted
and timed, while nothing trains. And `torch._dynamo`, the largest part of Lightning's imports, is not put off: torch's
optimizers import it when they are made, and each fork would do that anew.
"""

import gc
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module

from tuning_api.spec import StudySpec, class_paths
from tuning_trial import family, forking, leaving, samplers
from tuning_trial.log import logger
from tuning_trial.supervision import Isolation

_LARGE_ENOUGH_FOR_THREADS = 1 << 20
"""Elements; torch's loops are parallel from 32,768 on."""


def prepare(spec: StudySpec, *, has_imported: Callable[[], object] = lambda: None) -> Isolation:
    """Import what every trial needs; and see whether this process can still be forked then.

    Args:
        spec: The study's.
        has_imported: Called when the user's modules have been imported, before the first fork.
    """
    if spec.trial.isolation == "process":
        logger.info("isolation: process, each trial gets a fresh interpreter")
        return "process"
    if samplers.computes_with_torch(spec.resolved_sampler):
        logger.info("sampler %s: each trial gets a fresh interpreter", spec.resolved_sampler.type)
        return "process"
    with _without_collections():
        import_all(spec)
    has_imported()
    if why := _obstacle_to_forks():
        logger.warning("%s: each trial gets a fresh interpreter instead of a fork (isolation: process)", why)
        return "process"
    return "fork"


def import_all(spec: StudySpec) -> None:
    """Import the user's code, and for a trial of Lightning that and torch."""
    started = time.monotonic()
    # torch.cuda.is_available() then asks the driver's management library and does not initialise CUDA, which a fork
    # would inherit in a state that cannot be used (pytorch/pytorch#83973).
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    if spec.trial.objective:
        from tuning_trial import objective_runner  # noqa: F401, PLC0415 - a trial of Lightning has no use for it

        family.join_unless_installed()
        _import(spec.trial.objective.partition(":")[0])
        logger.info("imported %s in %.1f s", spec.trial.objective, time.monotonic() - started)
        return
    # Only here: with isolation "process" this process needs no torch, and a wrong setting is reported seconds earlier.
    import torch  # noqa: PLC0415

    from tuning_trial import lightning_keeper, lightning_parser, lightning_runner, pruning, resuming  # noqa: F401, PLC0415

    lightning_parser.shared_parser()
    for path in class_paths(spec.trial.lightning):
        _import(path.rpartition(".")[0])
    logger.info("imported torch %s and the model in %.1f s", torch.__version__, time.monotonic() - started)


@contextmanager
def _without_collections() -> Iterator[None]:
    """What is imported stays: looking through it for garbage, again and again as it grows, is a tenth of the CPU time.

    Nor is it looked through later. A full collection in a fork would write to every object, and so copy its memory (gc.freeze).
    """
    gc.disable()
    try:
        yield
    finally:
        leaving.remember_files()
        gc.freeze()
        gc.enable()


def _import(module: str) -> None:
    try:
        import_module(module)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the user's code may raise anything
        logger.warning("cannot import %s: %s: %s; the trials will say where", module, type(error).__name__, error)


def _obstacle_to_forks() -> str | None:
    torch = sys.modules.get("torch")
    if torch is None:  # an objective that does without
        return forking.obstacle(torch_has_cuda=False, threads=threading.enumerate(), parallel_loop=lambda: None)
    return forking.obstacle(
        torch_has_cuda=bool(torch.cuda.is_initialized()),
        threads=threading.enumerate(),
        parallel_loop=lambda: torch.ones(_LARGE_ENOUGH_FOR_THREADS),  # not made here: that would start the threads
    )
