"""The live view in a terminal."""

import sys
from datetime import timedelta
from types import TracebackType
from typing import Self

from rich.console import Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tuning_api.status import Phase, Reason
from tuning_operator.charts.wording import duration, shown
from tuning_operator.cli.screen import Screen
from tuning_operator.cli.views import counts, in_words, what_happens
from tuning_operator.local.progress import Progress, TrialView

_TICKS = "▁▂▃▄▅▆▇█"
_MOST_TICKS = 16
_PHASES = {Phase.COMPLETE: "bold green", Phase.FAILED: "bold red", Phase.SUSPENDED: "bold yellow"}
_LINES_OF_THE_REST = 10


class LiveView:
    """Redraws a few lines in place; sentences scroll by above them."""

    def __init__(self, console: Screen | None = None) -> None:
        self._console = console or Screen(stderr=True)
        self._live = Live(console=self._console, auto_refresh=False, transient=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def update(self, progress: Progress) -> None:
        """See `View`."""
        self._live.update(drawn(progress, height=self._console.height), refresh=True)

    def event(self, reason: Reason, message: str, is_warning: bool) -> None:  # noqa: FBT001
        """See `View`."""
        if is_warning:
            self._console.print(Text.assemble((f"{reason}: ", "yellow"), message))

    def say(self, words: str) -> None:
        """See `View`."""
        self._console.print(Text(words))


def is_wanted() -> bool:
    """Whether somebody looks at a terminal that can redraw."""
    return sys.stderr.isatty() and Screen(stderr=True).is_terminal and not Screen(stderr=True).is_dumb_terminal


def drawn(progress: Progress, *, height: int) -> RenderableType:
    """The study as it is now."""
    parts: list[RenderableType] = [_head(progress), _bar(progress), _counts(progress), _best(progress)]
    if words := what_happens(progress):
        parts.append(Text(words, "dim"))
    if progress.trouble:
        parts.append(Text(progress.trouble, "yellow"))
    if progress.running:
        parts.append(Text())
        parts.append(_running(progress, most=max(1, height - _LINES_OF_THE_REST)))
    return Padding(Group(*parts), (1, 0, 0, 0))


def _head(progress: Progress) -> Table:
    goals = ", ".join(map(" ".join, zip(progress.directions, progress.objectives, strict=True)))
    head = Table.grid(expand=True)
    head.add_column(overflow="ellipsis", no_wrap=True)
    head.add_column(justify="right", no_wrap=True)
    head.add_row(
        Text.assemble((progress.name, "bold"), "  ", (goals, "dim")),
        Text.assemble(
            (progress.phase.value, _PHASES.get(progress.phase, "bold cyan")),
            "  ",
            str(timedelta(seconds=int(progress.elapsed))),
        ),
    )
    return head


def _bar(progress: Progress) -> Table:
    bar = Table.grid(expand=True, padding=(0, 1))
    bar.add_column(ratio=1)
    bar.add_column(justify="right", no_wrap=True)
    bar.add_row(
        ProgressBar(total=progress.total, completed=len(progress.ended), complete_style="cyan", finished_style="green"),
        Text(f"{len(progress.ended)} of {progress.total} trials", "bold"),
    )
    return bar


def _counts(progress: Progress) -> Text:
    words = [Text(text, style) for text, style in counts(progress)]
    if progress.seconds_left is not None:
        words.append(Text(f"about {duration(progress.seconds_left) or '0 s'} left", "bold"))
    return Text(" · ").join(words)


def _best(progress: Progress) -> Text:
    best = progress.best
    if best is None:
        return Text("no trial is feasible yet" if progress.ranked else "no trial is complete yet", "dim")
    if progress.has_front:
        return _front(progress)
    return Text.assemble(
        "best ",
        (shown(best.value), "bold green"),
        (f" trial {best.number}  ", "dim"),
        in_words(best.params),
        overflow="ellipsis",
        no_wrap=True,
    )


def _front(progress: Progress) -> Text:
    """The trials of the front with their values, as many as fit."""
    members = [
        Text.assemble(
            (" ".join(shown(value) for value in trial.values if value is not None), "bold green"),
            (f" trial {trial.number}", "dim"),
        )
        for trial in progress.front
    ]
    line = Text(" · ", no_wrap=True, overflow="ellipsis").join(members)
    return Text.assemble(f"front of {len(members)}: ", line, no_wrap=True, overflow="ellipsis")


def _running(progress: Progress, *, most: int) -> Table:
    table = Table(box=None, expand=True, padding=(0, 1), pad_edge=False, header_style="dim")
    table.add_column("trial", justify="right", no_wrap=True)
    table.add_column("epoch", justify="right", no_wrap=True)
    table.add_column("", width=12)
    # Nothing is reported while a trial of several objectives runs.
    table.add_column("" if progress.has_front else progress.objectives[0], justify="right", no_wrap=True)
    table.add_column("", width=_MOST_TICKS, no_wrap=True)
    table.add_column("parameters", ratio=1, no_wrap=True, overflow="ellipsis", style="dim")
    for trial in progress.running[:most]:
        table.add_row(
            f"{trial.number}",
            f"{trial.epochs}/{trial.max_epochs}" if trial.max_epochs else f"{trial.epochs}",
            _epochs(trial),
            shown(trial.value) if trial.value is not None else "",
            Text(sparkline(trial), "cyan"),
            in_words(trial.params),
        )
    return table


def _epochs(trial: TrialView) -> RenderableType:
    if not trial.max_epochs:
        return ""
    return ProgressBar(total=trial.max_epochs, completed=trial.epochs, width=12, complete_style="cyan")


def sparkline(trial: TrialView) -> str:
    """The last reports of a trial as a small chart."""
    values = trial.reports[-_MOST_TICKS:]
    if not values:
        return ""
    low, high = min(values), max(values)
    span = high - low
    return "".join(_TICKS[round((value - low) / span * (len(_TICKS) - 1)) if span > 0 else 0] for value in values)
