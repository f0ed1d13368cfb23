"""A process of bare Optuna: `python -m bench.bare URL STUDY TASK TRIALS [fork]` prints the numbers of the trials it ran."""

import json
import multiprocessing
import sys
import warnings
from collections.abc import Callable
from typing import Any

import optuna
from optuna.storages import RDBStorage

from bench.overhead_trials import TASKS

Objective = Callable[[optuna.Trial], float]


def objective(task: str) -> Objective:
    """Suggest and evaluate in this process."""
    suggest, evaluate = TASKS[task]
    return lambda trial: evaluate(suggest(trial), trial.report)


def forked_objective(task: str) -> Objective:
    """Suggest in this process, and evaluate in a fork; a report goes through a connection of the fork's own."""
    suggest, evaluate = TASKS[task]
    context = multiprocessing.get_context("fork")

    def call(trial: optuna.Trial) -> float:
        params = suggest(trial)
        receiver, sender = context.Pipe(duplex=False)
        child = context.Process(target=_evaluate, args=(evaluate, params, trial, sender))
        child.start()
        sender.close()
        value: float = receiver.recv()
        child.join()
        return value

    return call


def _evaluate(evaluate: Callable[..., float], params: dict[str, Any], trial: optuna.Trial, sender: Any) -> None:
    storage: Any = trial.study._storage  # noqa: SLF001 - there is no public way
    storage._backend.engine.dispose(close=False)  # noqa: SLF001 - the sockets are the parent's
    sender.send(evaluate(params, trial.report))


def main() -> None:
    """Run so many trials."""
    url, name, task, count, *rest = sys.argv[1:]
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if task == "digits":  # as a worker does, before the first trial
        from tuning_trial.examples import digits  # noqa: F401, PLC0415
    study = optuna.load_study(study_name=name, storage=RDBStorage(url))
    numbers: list[int] = []
    make = forked_objective if rest else objective
    study.optimize(make(task), n_trials=int(count), callbacks=[lambda _, trial: numbers.append(trial.number)])
    sys.stdout.write(json.dumps(numbers))


if __name__ == "__main__":
    main()
