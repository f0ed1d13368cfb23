"""What other people wrote, on its way to a terminal: names, choices, values, messages and the lines of a training."""

import io
import json
import logging
import re
from pathlib import Path

import pytest
import yaml
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState
from tests.support.builders import a_spec
from tests.support.chart_studies import NOW, a_finished_trial, a_status, a_study_data

from tuning_api import contract
from tuning_api.printable import printable
from tuning_api.status import Phase, Reason
from tuning_operator import __main__ as operator
from tuning_operator.cli import results
from tuning_operator.cli.live import LiveView
from tuning_operator.cli.screen import Screen
from tuning_operator.cli.terminal import say
from tuning_operator.cli.views import JsonView, PlainView, ending
from tuning_operator.local.progress import Progress, progress
from tuning_trial import log

CLI = Path(results.__file__).parent
TITLE = "\x1b]0;owned\x07"
"""Sets the title of a terminal's window."""

HARMLESS = {
    "letters of any alphabet": "längé ñ 学习率 λ 🙂",
    "line ends and tabs": "a\n\tb",
    "a backslash": "C:\\x1b",
    "brackets": "[bold]x[/]",
}
ESCAPED = {
    "an escape sequence": ("\x1b[2J", "\\x1b[2J"),
    "a title": (TITLE, "\\x1b]0;owned\\x07"),
    "a return to the start of the line": ("failed\rcomplete", "failed\\rcomplete"),
    "a backspace": ("no\b\byes", "no\\x08\\x08yes"),
    "the eight-bit form of an escape sequence": ("\x9b2J", "\\x9b2J"),
    "a null byte": ("a\0b", "a\\x00b"),
    "letters from right to left": ("\u202etxt.exe", "\\u202etxt.exe"),
    "a line end of another kind": ("a\u2028b", "a\\u2028b"),
    "half of a letter, which cannot be written at all": ("\ud83d", "\\ud83d"),
}


@pytest.mark.parametrize("text", HARMLESS.values(), ids=HARMLESS)
def test_what_a_terminal_only_shows_stays_as_it_is(text: str) -> None:
    """Names are people's own."""
    assert printable(text) == text


@pytest.mark.parametrize(("text", "shown"), ESCAPED.values(), ids=ESCAPED)
def test_what_a_terminal_would_obey_is_written_out(text: str, shown: str) -> None:
    """So that it can still be recognized, and found in the code that wrote it."""
    assert printable(text) == shown


EVIL = f"a{TITLE}[/red]\r\x9b2J"
HALF = "\ud83d"


def a_hostile_progress() -> Progress:
    """The same text as a name, a choice, a metric, a failure and in the status."""
    distributions = {EVIL: CategoricalDistribution([EVIL + HALF])}
    attributes = {contract.FAILURE_ATTRIBUTE: {"reason": "Error", "message": EVIL, "details": EVIL}}
    trials = [
        a_finished_trial(0, params={EVIL: EVIL + HALF}, distributions=distributions),
        a_finished_trial(
            1, TrialState.FAIL, params={EVIL: EVIL + HALF}, distributions=distributions, attributes=attributes
        ),
        a_finished_trial(
            2, TrialState.RUNNING, params={EVIL: EVIL + HALF}, distributions=distributions, intermediate_values={0: 0.5}
        ),
    ]
    spec = a_spec(objectives=[{"metric": EVIL, "direction": "maximize"}])
    data = a_study_data(trials, spec=spec, status=a_status(Phase.RUNNING, message=EVIL, trouble=Reason.TRIALS_FAILING))
    return progress(data, status=data.status, workers=1, now=NOW)


def is_clean(text: str) -> bool:
    return printable(text) == text and "x1b]0;owned" in text


def test_no_command_writes_what_a_terminal_would_obey(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tables, lines, the view of a log file, CSV, YAML and JSON; and brackets are no markup."""
    now = a_hostile_progress()
    monkeypatch.setattr(results, "_console", lambda: Screen(width=4000))
    said: list[str] = []
    for write in (
        lambda: results.print_trials(now),
        lambda: results.say(EVIL),
        lambda: say(results.csv_of_trials(now), nl=False),
        lambda: say(results.headline(now.ranked[0], now)),
        lambda: say(results.as_text(results.best_document(now.ranked[0], now), as_json=False), nl=False),
        lambda: PlainView().event(Reason.TRIALS_FAILING, EVIL, True),  # noqa: FBT003
        lambda: PlainView().say(ending(now.ended[1], now)),
        lambda: JsonView().event(Reason.TRIALS_FAILING, EVIL, True),  # noqa: FBT003
    ):
        write()
        captured = capsys.readouterr()
        said.append(captured.out + captured.err)
    assert [text for text in said if printable(text) != text] == []
    assert all("]0;owned" in text for text in said)
    assert "[/red]" in said[1]
    assert json.loads(said[-1])["message"] == EVIL


def test_the_live_view_moves_the_cursor_itself_and_lets_nobody_else() -> None:
    """Its own sequences are the ones of rich, in a terminal that can do everything."""
    file = io.StringIO()
    screen = Screen(file=file, width=300, height=40, force_terminal=True, color_system=None)
    with LiveView(screen) as view:
        view.update(a_hostile_progress())
        view.event(Reason.TRIALS_FAILING, EVIL, True)  # noqa: FBT003
        view.say(EVIL)
    own = re.compile(r"\x1b\[(?:\?25[lh]|[0-9;]*[ABCDGHJKm])|\r")
    assert "\x1b[2K" in file.getvalue()
    assert is_clean(own.sub("", file.getvalue()))


def test_the_best_parameters_are_exact_all_the_same() -> None:
    """They are there to be read by a program: YAML's own escapes say what was there."""
    best = {"params": {"a\u202e": f"b{TITLE}"}, "name": "längé"}
    assert yaml.safe_load(printable(results.as_text(best, as_json=False))) == best
    assert "längé" in results.as_text({"name": "längé"}, as_json=False)


def test_the_lines_of_a_worker_are_escaped_with_their_causes() -> None:
    """They are read by `kubectl logs`, which passes on everything."""
    error = ValueError(EVIL)
    record = logging.LogRecord(
        "tuning_trial", logging.INFO, "", 1, "trial 1: %s", (EVIL,), (ValueError, error, error.__traceback__)
    )
    line = log._Sentences(datefmt="%H:%M").format(record)
    assert is_clean(line)
    assert line.count("owned") == 2


def test_the_lines_of_an_operator_that_writes_text_are_escaped() -> None:
    """Those in JSON are so by themselves."""
    record = logging.LogRecord("tuning_operator", logging.INFO, "", 1, "%s", (EVIL,), None)
    assert operator._escape(record)
    assert is_clean(record.getMessage())


@pytest.mark.parametrize("file", sorted(CLI.glob("*.py")), ids=lambda file: file.name)
def test_no_command_has_another_way_to_the_terminal(file: Path) -> None:
    """`terminal` for lines, `screen` for tables: whoever adds a command need not think of it."""
    found = re.findall(r"typer\.echo\(|(?<!\.)\bprint\(|\bConsole\(|stdout\.write|stderr\.write", file.read_text())
    assert found == (["typer.echo("] if file.name == "terminal.py" else [])
