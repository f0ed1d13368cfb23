"""The HTML of a study's page.

The parts that change while a study runs (its summary, its trials) are rendered alone as well: the page contains them, and
the JSON that it asks for every few seconds contains them again. So a page reads well without JavaScript, too.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache, cached_property
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from optuna.trial import TrialState

from tuning_operator.charts.assets import asset_path, content, data_url
from tuning_operator.charts.figures import charts_of
from tuning_operator.charts.source import StudyData
from tuning_operator.charts.subject import Subject
from tuning_operator.charts.summary import Summary, search_space, subject, summary
from tuning_operator.charts.table import Table, table
from tuning_operator.charts.wording import duration, shown

ROOT = "../../../../"
"""The way from a study's page to the server's root."""
MOST_NAMES_OF_A_HALF = 3
"""With more parameters, charts that grow with them take the page's whole width."""


@dataclass(frozen=True)
class Live:
    """The parts of a page that change."""

    title: str
    summary: str
    rows: str
    params: list[str]
    is_terminal: bool


@dataclass(frozen=True)
class Moment:
    """A study at one moment, and what its page says then: each part is made when it is first asked for, and once.

    Which trials are the best, and a row for each of a thousand, take long to make of ten thousand trials.
    """

    data: StudyData
    now: datetime

    @cached_property
    def drawn(self) -> Subject:
        """What the charts draw."""
        return subject(self.data, now=self.now)

    @cached_property
    def summary(self) -> Summary:
        """The upper part of the page."""
        return summary(self.data, self.drawn, now=self.now)

    @cached_property
    def table(self) -> Table:
        """The table of trials."""
        return table(self.data, self.drawn, now=self.now)

    @cached_property
    def live(self) -> Live:
        """The parts of the page that change, rendered."""
        return Live(
            title=self.summary.title,
            summary=_render("summary.html", study=self.summary),
            rows=_render("rows.html", table=self.table),
            params=self.table.names,
            is_terminal=self.summary.is_terminal,
        )

    @property
    def stays(self) -> bool:
        """Whether the page of the same data says the same at any later time: nothing in it runs."""
        return self.summary.is_terminal and not any(trial.state is TrialState.RUNNING for trial in self.data.trials)


def study_page(moment: Moment, *, figures_version: str, live_version: str) -> str:
    """The page of a study; the versions are of what its script looks for from time to time."""
    return _whole("study.html", moment, figures_version=figures_version, live_version=live_version, root=ROOT)


def report_page(moment: Moment, *, figures: Mapping[str, str]) -> str:
    """The page of a study as one file: what it links to is in it, it draws the figures it was given, and asks nobody.

    Args:
        moment: The study when it was read.
        figures: As `figures.render` makes them.
    """
    written = f"{moment.now:%Y-%m-%d %H:%M} UTC"
    return _whole("report.html", moment, figures=_in_a_script(figures), written=written, root=None)


def _whole(template: str, moment: Moment, **own: object) -> str:
    """A page with all that is known of a study; `own` is what only this template asks for."""
    return _render(
        template,
        study=moment.summary,
        table=moment.table,
        # Rendered and escaped above.
        summary=Markup(moment.live.summary),  # noqa: S704
        rows=Markup(moment.live.rows),  # noqa: S704
        space=search_space(moment.data),
        charts=charts_of(moment.data.directions),
        is_wide=len(moment.table.names) > MOST_NAMES_OF_A_HALF,
        **own,
    )


def _in_a_script(figures: Mapping[str, str]) -> Markup:
    """JSON that no text in it can end: names and values are people's."""
    document = "{" + ", ".join(f"{json.dumps(key)}: {figure}" for key, figure in figures.items()) + "}"
    return Markup(document.replace("<", "\\u003c"))  # noqa: S704


def chart_page(moment: Moment, *, chart: str, figures_version: str, live_version: str) -> str:
    """The page of one chart of a study; the versions as those of its page."""
    return _render(
        "chart.html",
        study=moment.summary,
        chart=chart,
        charts=charts_of(moment.data.directions),
        figures_version=figures_version,
        live_version=live_version,
        root=ROOT,
    )


def message_page(
    *, title: str, message: str, root: str, commands: tuple[str, ...] = (), reload_seconds: int | None = None
) -> str:
    """A page with nothing but a sentence, and commands to try; one that may become better asks again by itself."""
    return _render(
        "message.html", title=title, message=message, commands=commands, root=root, reload_seconds=reload_seconds
    )


def _render(template: str, **values: Any) -> str:
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("tuning_operator.charts"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"asset": asset_path, "content": content, "data_url": data_url}
    environment.filters |= {"duration": duration, "shown": shown}
    return environment
