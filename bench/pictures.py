"""Plotly's figures as SVG, drawn by Plotly itself in a browser: what a page shows is what a file holds."""

import json
import shutil
from collections.abc import Mapping
from urllib.parse import unquote

import plotly.graph_objects as go
from cluster import prerequisites
from playwright.sync_api import sync_playwright
from plotly.offline import get_plotlyjs
from tests.support.chromium import FLAGS

WIDTH, HEIGHT = 840, 320
_TEXT = "#333a45"
_GRID = "#e3e6ec"
# NB: Plotly names clip paths by chance; with this, the same figure is the same file.
_NO_CHANCE = "let state = 1; Math.random = () => (state = state * 16807 % 2147483647) / 2147483647"
_DRAW = "([figure, size]) => Plotly.toImage(figure, {...size, format: 'svg'})"
_START = "data:image/svg+xml,"


def to_svg(figures: Mapping[str, go.Figure]) -> dict[str, str]:
    """Each figure as the text of an SVG file.

    Raises:
        PrerequisiteError: there is no browser, and none can be installed here.
    """
    if not figures:
        return {}
    if reason := prerequisites.reason_against_browser():
        raise prerequisites.PrerequisiteError(f"figures are drawn by a browser: {reason}")
    prerequisites.install(prerequisites.BROWSER_PACKAGES)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), headless=True, args=list(FLAGS))
        page = browser.new_page()
        page.evaluate(get_plotlyjs())
        drawn = {}
        for name, figure in figures.items():
            page.evaluate(_NO_CHANCE)
            data = page.evaluate(_DRAW, [json.loads(_on_paper(figure).to_json()), {"width": WIDTH, "height": HEIGHT}])
            drawn[name] = unquote(data.removeprefix(_START)) + "\n"
        browser.close()
    return drawn


def _on_paper(figure: go.Figure) -> go.Figure:
    """With the colours that the page of a study chooses in the browser."""
    on_paper = go.Figure(figure)
    on_paper.update_layout(paper_bgcolor="white", plot_bgcolor="white", font={"color": _TEXT})
    on_paper.update_xaxes(gridcolor=_GRID, linecolor=_GRID)
    on_paper.update_yaxes(gridcolor=_GRID, linecolor=_GRID)
    return on_paper
