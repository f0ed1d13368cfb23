"""The HTML of a study's page.

The parts that change while a study runs (its summary, its trials) are rendered alone as well: the page contains them, and
the JSON that it asks for every few seconds contains them again. So a page reads well without JavaScript, too.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from tuning_operator.charts.assets import asset_path, content, data_url
from tuning_operator.charts.figures import charts_of
from tuning_operator.charts.source import StudyData
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


def live(data: StudyData, *, now: datetime) -> Live:
    """Render the parts of a page that change."""
    said, trials = _said(data, now=now)
    return _live(said, trials)


def study_page(data: StudyData, *, now: datetime, figures_version: str) -> str:
    """The page of a study."""
    return _whole("study.html", data, now=now, figures_version=figures_version, root=ROOT)


def report_page(data: StudyData, *, now: datetime, figures: Mapping[str, str]) -> str:
    """The page of a study as one file: what it links to is in it, it draws the figures it was given, and asks nobody.

    Args:
        data: The study.
        now: When it was read.
        figures: As `figures.render` makes them.
    """
    written = f"{now:%Y-%m-%d %H:%M} UTC"
    return _whole("report.html", data, now=now, figures=_in_a_script(figures), written=written, root=None)


def _whole(template: str, data: StudyData, *, now: datetime, **own: object) -> str:
    """A page with all that is known of a study; `own` is what only this template asks for."""
    said, trials = _said(data, now=now)
    parts = _live(said, trials)
    return _render(
        template,
        study=said,
        table=trials,
        # Rendered and escaped above.
        summary=Markup(parts.summary),  # noqa: S704
        rows=Markup(parts.rows),  # noqa: S704
        space=search_space(data),
        charts=charts_of(data.directions),
        is_wide=len(trials.names) > MOST_NAMES_OF_A_HALF,
        **own,
    )


def _in_a_script(figures: Mapping[str, str]) -> Markup:
    """JSON that no text in it can end: names and values are people's."""
    document = "{" + ", ".join(f"{json.dumps(key)}: {figure}" for key, figure in figures.items()) + "}"
    return Markup(document.replace("<", "\\u003c"))  # noqa: S704


def chart_page(data: StudyData, *, now: datetime, figures_version: str, chart: str) -> str:
    """The page of one chart of a study."""
    said = summary(data, subject(data, now=now), now=now)
    charts = charts_of(data.directions)
    return _render("chart.html", study=said, chart=chart, charts=charts, figures_version=figures_version, root=ROOT)


def message_page(
    *, title: str, message: str, root: str, commands: tuple[str, ...] = (), reload_seconds: int | None = None
) -> str:
    """A page with nothing but a sentence, and commands to try; one that may become better asks again by itself."""
    return _render(
        "message.html", title=title, message=message, commands=commands, root=root, reload_seconds=reload_seconds
    )


def _said(data: StudyData, *, now: datetime) -> tuple[Summary, Table]:
    drawn = subject(data, now=now)  # once: which trials are the best takes long to find among ten thousand
    return summary(data, drawn, now=now), table(data, drawn, now=now)


def _live(said: Summary, trials: Table) -> Live:
    return Live(
        title=said.title,
        summary=_render("summary.html", study=said),
        rows=_render("rows.html", table=trials),
        params=trials.names,
        is_terminal=said.is_terminal,
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
