"""`python -m tuning_trial check` and `try`: a study's trials before the study runs, without any database."""

import argparse
import contextlib
import json
import logging
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import optuna

from tuning_api.spec import StudySpec
from tuning_trial import outcomes, search
from tuning_trial.errors import MisconfiguredError, TrialError, UnreadableSpecError
from tuning_trial.log import logger
from tuning_trial.outcomes import Completed, Failed, Pruned

_DESCRIPTION = """\
Run the trials of a TuningStudy.

Without a command this is a worker: it takes trials from the database that its environment names (TUNING_DATABASE_URL,
TUNING_STUDY, TUNING_WORKER_ID), until none waits. The commands need no database:
"""
_EPILOG = """\
examples:
  python -m tuning_trial check study.json          what would make trials fail, a sentence each
  python -m tuning_trial check --json - < spec.json
  python -m tuning_trial try study.json --seed 7   one trial in the foreground

exit codes: 0 all is well, 1 it is not, 2 the command was called wrongly; a worker's: 0 no trial is waiting,
75 asked to stop, 78 misconfigured.
"""


def run(arguments: Sequence[str]) -> int:
    """Run a command.

    Returns:
        0 when all is well, 1 when it is not.
    """
    chosen = _parser().parse_args(arguments)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        # What the user's modules print while they are imported is no answer of ours.
        with contextlib.redirect_stdout(sys.stderr):
            spec = _read(chosen.file)
        return _check(spec, as_json=chosen.json) if chosen.command == "check" else _try(spec, seed=chosen.seed)
    except UnreadableSpecError as error:
        _say(error.faults, as_json=chosen.command == "check" and chosen.json)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tuning_trial",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    check = commands.add_parser(
        "check",
        help="say what would make trials fail: imports, arguments, types; every choice is tried",
        description="Import the classes of a study and check their arguments, for each choice of the search space.",
    )
    check.add_argument("--json", action="store_true", help='one JSON object a line: {"problem": "..."}')
    trial = commands.add_parser(
        "try",
        help="run one trial in the foreground, with full output",
        description="Run one trial in this process: its parameters first, what Lightning says, and its metric last.",
    )
    trial.add_argument("--seed", type=int, help="for the parameters and the training; default: the study's")
    for command in (check, trial):
        command.add_argument("file", metavar="FILE", help="the manifest or its spec as JSON; - for standard input")
    return parser


def _read(file: str) -> StudySpec:
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableSpecError([f"{file} cannot be read: {error}"]) from error
    from tuning_trial import rehearsal  # noqa: PLC0415 - torch: what can be said before it is said at once

    return rehearsal.read_spec(text)


def _check(spec: StudySpec, *, as_json: bool) -> int:
    from tuning_trial import rehearsal  # noqa: PLC0415

    with contextlib.redirect_stdout(sys.stderr):
        faults = rehearsal.faults(spec)
    _say(faults, as_json=as_json)
    return 1 if faults else 0


def _say(faults: Sequence[str], *, as_json: bool) -> None:
    for fault in faults:
        print(json.dumps({"problem": fault}) if as_json else fault)  # noqa: T201 - this is the answer


def _try(spec: StudySpec, *, seed: int | None) -> int:
    from tuning_trial import rehearsal  # noqa: PLC0415

    logging.basicConfig(format="%(message)s", level=logging.INFO, force=True)
    logging.getLogger("pytorch_lightning.utilities.rank_zero").addFilter(
        lambda record: "Tip:" not in record.getMessage()
    )
    seed = search.trial_seed(spec.resolved_sampler.seed, 0) if seed is None else seed
    if spec.trial.lightning is None:
        logger.error("this trial image runs trial.lightning only, and the study has trial.objective")
        return 1
    try:
        params = rehearsal.choose(spec, seed=seed)
        print(f"seed = {seed}", *(f"{name} = {value!r}" for name, value in params.items()), sep="\n", flush=True)  # noqa: T201
        result = rehearsal.train(spec, params, seed=seed)
    except (TrialError, MisconfiguredError) as error:
        logger.error("the trial failed: %s", error)
        return 1
    except BaseException as error:  # noqa: BLE001 - the user's code may raise anything, and sys.exit() too
        traceback.print_exception(error)
        logger.error("the trial failed: %s", outcomes.failure_of(error, folders=sys.path).message)
        return 1
    return _show(spec, result)


def _show(spec: StudySpec, result: Completed | Pruned | Failed) -> int:
    if not isinstance(result, Completed):
        logger.error("the trial failed: %s", result.failure.message if isinstance(result, Failed) else "it was pruned")
        return 1
    for objective, value in zip(spec.objectives, result.values, strict=True):
        print(f"{objective.metric} = {value:.6g}")  # noqa: T201
    return 0
