"""`python -m tuning_trial check` and `try`: a study's trials before the study runs, without any database."""

import argparse
import contextlib
import json
import logging
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

import optuna

from tuning_api.printable import printable
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
    if chosen.command == "describe":
        return _describe(chosen.class_paths, as_json=chosen.json)
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
        description="Build the model, the data and the Trainer of a study, for choices of the search space; of an"
        " objective, say whether it is there and takes a trial.",
    )
    check.add_argument("--json", action="store_true", help='one JSON object a line: {"problem": "..."}')
    trial = commands.add_parser(
        "try",
        help="run one trial in the foreground, with full output",
        description="Run one trial in this process: its parameters first, what it says itself, and its metric last.",
    )
    trial.add_argument("--seed", type=int, help="for the parameters and the training; default: the study's")
    described = commands.add_parser(
        "describe",
        help="say which arguments a model or its data take, and what it logs",
        description="Import a LightningModule or a LightningDataModule, and say what can be known of it by reading.",
    )
    described.add_argument(
        "--json", action="store_true", help='one JSON object a line; {"problem": "..."} where there is none'
    )
    described.add_argument("class_paths", metavar="CLASS", nargs="+", help="as package.module.Class")
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


def _describe(class_paths: Sequence[str], *, as_json: bool) -> int:
    answers = [_description(class_path, as_json=as_json) for class_path in class_paths]
    for is_known, answer in answers:
        if is_known:
            _print(answer)
        else:
            _say([answer], as_json=as_json)
    return 0 if all(is_known for is_known, _ in answers) else 1


def _description(class_path: str, *, as_json: bool) -> tuple[bool, str]:
    """Whether there is one, and its text or why there is none."""
    from tuning_trial import signature  # noqa: PLC0415

    try:
        with contextlib.redirect_stdout(sys.stderr):
            found = signature.describe(class_path)
    except TrialError as error:
        return False, str(error)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - importing the user's module may raise anything
        traceback.print_exception(error)
        return False, f"importing {class_path} raised {type(error).__name__}: {error}"
    return True, json.dumps(found) if as_json else signature.in_words(found)


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
    try:
        trial, params = rehearsal.begin(spec, seed=seed)
        _print(f"seed = {seed}", *_lines(params))
        result = rehearsal.run(spec, trial, params, seed=seed)
    except (TrialError, MisconfiguredError) as error:
        logger.error("the trial failed: %s", error)
        return 1
    except BaseException as error:  # noqa: BLE001 - the user's code may raise anything, and sys.exit() too
        traceback.print_exception(error)
        logger.error("the trial failed: %s", outcomes.failure_of(error, folders=sys.path).message)
        return 1
    stored = trial.study.get_trials(deepcopy=False)[trial.number]
    _print(*_lines({name: value for name, value in stored.params.items() if name not in params}))
    return _show(spec, result)


def _lines(params: Mapping[str, object]) -> list[str]:
    return [f"{name} = {value!r}" for name, value in params.items()]


def _print(*lines: str) -> None:
    if lines:
        print(*map(printable, lines), sep="\n", flush=True)  # noqa: T201 - this is the answer


def _show(spec: StudySpec, result: Completed | Pruned | Failed) -> int:
    if not isinstance(result, Completed):
        logger.error("the trial failed: %s", result.failure.message if isinstance(result, Failed) else "it was pruned")
        return 1
    values = {objective.metric: value for objective, value in zip(spec.objectives, result.values, strict=True)}
    values.update(result.limited)
    violations = [constraint.violations(values[constraint.metric]) for constraint in spec.constraints or []]
    for metric, value in values.items():
        _print(f"{metric} = {value:.6g}")
    if broken := [name for found in violations for name, violation in found.items() if violation > 0]:
        _print(f"infeasible: it breaks {', '.join(broken)}")
    return 0
