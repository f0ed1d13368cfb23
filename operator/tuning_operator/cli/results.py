"""What a study has found, on standard output."""

import csv
import io
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from optuna.trial import TrialState
from rich.bar import Bar
from rich.table import Table
from rich.text import Text

from tuning_api.printable import printable
from tuning_api.status import Phase
from tuning_operator.charts.wording import LABELS, counted, duration, shown
from tuning_operator.cli.screen import Screen
from tuning_operator.cli.views import in_a_line, in_words
from tuning_operator.importances import Importances
from tuning_operator.local.errors import BadInputError
from tuning_operator.local.place import Place
from tuning_operator.local.progress import Progress, TrialView

BEST_SHOWN = 5
FRONT_SHOWN = 20
_STYLES = {
    TrialState.COMPLETE: "green",
    TrialState.PRUNED: "yellow",
    TrialState.FAIL: "red",
    TrialState.RUNNING: "cyan",
}
_UNLIMITED = 10_000
_WIDTH_OF_FILES = 160
"""Where standard output is no terminal, whose width rich would take for 80."""


def say(words: str) -> None:
    """A line."""
    _console().print(Text(words), soft_wrap=True)


def _console() -> Screen:
    console = Screen()
    return console if console.is_terminal else Screen(width=_WIDTH_OF_FILES)


def conclusion(progress: Progress, *, importances: Importances, place: Place, report: Path | None, logs: Path) -> None:
    """What a person wants to know when a study has ended."""
    console = _console()
    is_complete = progress.phase is Phase.COMPLETE
    style = "bold green" if is_complete else "bold red"
    words = f"{progress.message} ({duration(progress.elapsed) or '0 s'})"
    console.print(Text.assemble((progress.phase.value, style), f"  {words}"), soft_wrap=True)
    if shown_trials := progress.front[:FRONT_SHOWN] if progress.has_front else progress.ranked[:BEST_SHOWN]:
        console.print()
        console.print(_fitting_table(console, progress, shown_trials))
    if importances.shares:
        console.print()
        console.print(_importances(importances, progress))
    if importances.doubt:
        console.print(Text(importances.doubt), soft_wrap=True)
    console.print()
    if report:
        console.print(Text(f"report:     {report}"), soft_wrap=True)
    if not is_complete:
        console.print(Text(f"logs:       {logs}"), soft_wrap=True)
    spec = place.document.get("spec") or {}
    if progress.best and "objective" in spec.get("trial", {}):
        best = shlex.join(["tuningstudy", "best", str(place.file)])
        console.print(Text(f"the best parameters:  {best}"), soft_wrap=True)
    elif progress.best:
        which = ["--trial", str(progress.best.number)] if len(progress.front) > 1 else []
        config = shlex.join(["tuningstudy", "best", str(place.file), *which, "--config"])
        console.print(Text(f"train with the best parameters:  {config} > best.yaml"), soft_wrap=True)


def _fitting_table(console: Screen, progress: Progress, trials: tuple[TrialView, ...]) -> Table:
    """With a column for each parameter if the terminal is wide enough: half a number is worse than none."""
    table = trials_table(progress, trials, names=_names(trials))
    width = Screen(width=_UNLIMITED).measure(table).maximum  # a console's own measure ends at its width
    return table if width <= console.width else trials_table(progress, trials, names=None)


def trials_table(progress: Progress, trials: tuple[TrialView, ...], *, names: list[str] | None) -> Table:
    """Trials as a table.

    Args:
        progress: the study.
        trials: those to show.
        names: the parameters that have a column; None: all of them together have one.
    """
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="bold")
    for title in ("trial", *map(in_a_line, progress.metrics)):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for title in ("epochs", "took", *map(in_a_line, names or [])):
        table.add_column(title, justify="right", no_wrap=True)
    if names is None:
        table.add_column("parameters")
    if has_causes := any(trial.failure for trial in trials):
        table.add_column("cause", overflow="fold", max_width=60)
    for trial in trials:
        cells = [Text(str(trial.number))]
        cells += [Text(shown(value) if value is not None else "") for value in trial.values]
        cells += [
            Text("Infeasible", "yellow") if trial.broken else Text(LABELS[trial.state], _STYLES[trial.state]),
            Text(str(trial.epochs)),
            Text(duration(trial.seconds)),
        ]
        cells += [Text(in_a_line(shown(trial.params[name])) if name in trial.params else "") for name in names or []]
        cells += [Text(in_words(trial.params))] if names is None else []
        cells += [Text(_cause(trial))] if has_causes else []
        table.add_row(*cells)
    return table


def _cause(trial: TrialView) -> str:
    return f"{trial.failure.reason}: {trial.failure.message}" if trial.failure else ""


def _names(trials: tuple[TrialView, ...]) -> list[str]:
    return list(dict.fromkeys(name for trial in trials for name in trial.params))


def _importances(importances: Importances, progress: Progress) -> Table:
    """A bar for each parameter, beside its share and where that is in eight of ten halves of the trials."""
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="bold")
    table.add_column(Text(f"importance for {progress.objectives[0]}" if progress.has_front else "importance"))
    table.add_column("", justify="right")
    table.add_column("between", justify="right")
    table.add_column("", width=24)
    largest = max(share.value for share in importances.shares.values())
    for name, share in importances.shares.items():
        between = f"{share.low:.0%} and {share.high:.0%}"
        table.add_row(Text(in_a_line(name)), f"{share.value:.0%}", between, Bar(largest, 0, share.value, color="green"))
    return table


# Other commands


def print_trials(progress: Progress) -> None:
    """All trials that have started, best first, then the others in the order of their numbers."""
    ranked = progress.ranked
    listed = {trial.number for trial in ranked}
    rest = [trial for trial in (*progress.ended, *progress.running) if trial.number not in listed]
    console = _console()
    console.print(_fitting_table(console, progress, (*ranked, *sorted(rest, key=lambda trial: trial.number))))


def csv_of_trials(progress: Progress) -> str:
    """The same for a spreadsheet: full precision, in the order of their numbers."""
    trials = sorted((*progress.ended, *progress.running), key=lambda trial: trial.number)
    names = _names(tuple(trials))
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    feasible = ["feasible"] if progress.is_constrained else []
    own = ["trial", "state", *feasible, "epochs", "seconds", "retry_of", "failure"]
    metrics = _apart(progress.metrics, own, prefix="metrics_")
    params = _apart(names, [*own, *metrics], prefix="params_")
    writer.writerow(map(_cell, ["trial", "state", *metrics, *feasible, *params, *own[2 + len(feasible) :]]))
    for trial in trials:
        given = [trial.params.get(name, "") for name in names]
        values = ["" if value is None else value for value in trial.values]
        values += [_yes_or_no(not trial.broken) if trial.state is TrialState.COMPLETE else "" for _ in feasible]
        retry_of = "" if trial.retry_of is None else trial.retry_of
        fields = [trial.number, LABELS[trial.state], *values, *given, trial.epochs, round(trial.seconds, 3)]
        writer.writerow(map(_cell, [*fields, retry_of, _cause(trial)]))
    return file.getvalue()


def _apart(names: Sequence[str], taken: Sequence[str], *, prefix: str) -> list[str]:
    """A title for each name, no two alike, also as cells: what is taken has its prefix before it, as Optuna's tables do."""
    titles: list[str] = []
    for name in names:
        title = name
        while _cell(title) in {_cell(other) for other in (*taken, *titles)}:
            title = f"{prefix}{title}"
        titles.append(title)
    return titles


def _cell(value: object) -> object:
    """NB: a spreadsheet computes a text that begins like a formula; an apostrophe before it keeps it a text (OWASP)."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def _yes_or_no(truth: bool) -> str:  # noqa: FBT001 - that is what it is about
    return "yes" if truth else "no"


def chosen(progress: Progress, *, number: int | None) -> TrialView:
    """The trial that a person asks for by its number, or the best.

    Raises:
        BadInputError: there is none, or there are several.
    """
    if number is not None:
        found = next((trial for trial in progress.ranked if trial.number == number), None)
        if found is None:
            raise BadInputError(f"study {progress.name} has no complete trial {number}")
        return found
    if progress.best is None:
        raise BadInputError(why_nothing_is_best(progress))
    if len(progress.front) > 1:
        numbers = ", ".join(str(trial.number) for trial in progress.front)
        raise BadInputError(
            f"the Pareto front of study {progress.name} has {len(progress.front)} trials: choose one with --trial"
            f" ({numbers})"
        )
    return progress.best


def why_nothing_is_best(progress: Progress) -> str:
    """What to say where there is no best trial."""
    if progress.ranked:
        complete = len(progress.ranked)
        return (
            f"no trial of study {progress.name} is feasible: each of the {complete} complete ones breaks a constraint"
        )
    return f"no trial of study {progress.name} is complete yet"


def front_document(progress: Progress) -> dict[str, Any]:
    """The Pareto front, from the best of the first objective on."""
    return {"front": [best_document(trial, progress) for trial in progress.front]}


def best_document(best: TrialView, progress: Progress) -> dict[str, Any]:
    """A trial with what it is told by."""
    titles = _apart(progress.metrics, ("trial", "params"), prefix="metrics_")
    values = {title: value for title, value in zip(titles, best.values, strict=True) if value is not None}
    return {"trial": best.number, **values, "params": dict(best.params)}


def as_text(document: Mapping[str, Any], *, as_json: bool) -> str:
    """A document for a person or a program."""
    if as_json:
        return json.dumps(document, indent=2) + "\n"
    text = str(yaml.safe_dump(dict(document), sort_keys=False, allow_unicode=True))
    # NB: YAML has escapes of its own for what a terminal must not get, and with them the values stay what they are.
    return text if printable(text) == text else str(yaml.safe_dump(dict(document), sort_keys=False))


def headline(best: TrialView, progress: Progress) -> str:
    """A trial in one line."""
    known = [(name, value) for name, value in zip(progress.metrics, best.values, strict=True) if value is not None]
    values = ", ".join(f"{name} = {value:.6g}" for name, value in known)
    return in_a_line(f"trial {best.number} of study {progress.name}: {values} ({in_words(best.params)})")


def headline_of_front(progress: Progress) -> str:
    """A Pareto front in one line."""
    goals = ", ".join(map(" ".join, zip(progress.directions, progress.objectives, strict=True)))
    return f"the Pareto front of study {progress.name}: {counted(len(progress.front), 'trial')} ({goals})"
