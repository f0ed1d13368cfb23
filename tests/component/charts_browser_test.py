"""The study's page in a real browser: drawn, live, readable on a phone and in the dark, and loaded from one server."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml
from aiohttp import web
from optuna.trial import TrialState
from playwright.sync_api import Browser, BrowserContext, Page, expect
from tests.support.chart_studies import (
    NOW,
    POOR_RELATIVES,
    a_finished_trial,
    a_search,
    a_status,
    a_study_data,
    hostile_trials,
    two_objectives,
    with_a_constraint,
)
from tests.support.tenancy import UID

from tuning_api.status import Phase, Reason
from tuning_operator.charts import server
from tuning_operator.charts.figures import CHARTS, CHARTS_OF_SEVERAL
from tuning_operator.charts.links import study_path
from tuning_operator.charts.source import StudyData
from tuning_operator.charts.subject import first_value
from tuning_operator.charts.summary import subject
from tuning_operator.errors import DatabaseUnavailable

KEY = "a signing key"
END = int(NOW.timestamp()) + 3600
"""Of all links."""
MILLISECONDS = 30_000
WIDE, PHONE = {"width": 1360, "height": 900}, {"width": 390, "height": 844}
FOUR = list(CHARTS)[:4]
UNSCHEDULABLE = "pod digits-0 cannot be scheduled: 0/3 nodes are available: 3 Insufficient nvidia.com/gpu"

expect.set_options(timeout=MILLISECONDS)


class Shelf:
    """Studies by name; a test may put another one there at any time."""

    def __init__(self) -> None:
        self.studies: dict[str, StudyData] = {}
        self.is_away = False

    def put(self, name: str, data: StudyData) -> None:
        """From now on, this is the study of that name."""
        self.studies[name] = replace(data, name=name)

    def load(self, namespace: str, study: str) -> StudyData | None:
        """The study as the server sees it."""
        if self.is_away:
            raise DatabaseUnavailable("connection refused")
        return self.studies.get(study) if namespace == "research" else None


@dataclass
class Site:
    """A running charts server."""

    origin: str
    shelf: Shelf

    def url(self, study: str, chart: str = "") -> str:
        """The signed link of a study."""
        return self.origin + study_path(key=KEY, namespace="research", study=study, uid=UID, end=END) + chart


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """The real server in a thread, since Playwright has the main one; its process draws for all tests."""
    shelf, started, stop = Shelf(), Future[str](), threading.Event()

    async def serve() -> None:
        runner = web.AppRunner(server.create_app(source=shelf, signing_key=KEY), shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0]
        started.set_result(f"http://{host}:{port}")
        await asyncio.to_thread(stop.wait)
        await runner.cleanup()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    yield Site(started.result(30), shelf)
    stop.set()
    thread.join()


@pytest.fixture(autouse=True)
def one_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The studies' own time."""
    monkeypatch.setattr(server, "_now", lambda: NOW)


@dataclass
class Visitor:
    """Opens pages and remembers what the browser complained about and where it went."""

    everyday: BrowserContext
    site: Site
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    pages: list[Page] = field(default_factory=list)

    def open(self, study: str, chart: str = "", *, drawn: bool = True, **options: Any) -> Page:
        """A page, with its charts drawn; with options in a browser that has never been here."""
        page = self._browser().new_page(**({"viewport": WIDE} | options)) if options else self.everyday.new_page()
        self.pages.append(page)
        page.on(
            "console", lambda message: message.type in {"error", "warning"} and self.complaints.append(message.text)
        )
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))
        page.goto(self.site.url(study, chart))
        if drawn:
            page.wait_for_selector("body[data-drawn]", timeout=MILLISECONDS)
        return page

    def _browser(self) -> Browser:
        browser = self.everyday.browser
        assert browser is not None
        return browser


@pytest.fixture(scope="module")
def everyday(chromium: Browser) -> BrowserContext:
    """A wide window that keeps its cache from test to test: Plotly is large."""
    return chromium.new_context(viewport=WIDE)


@pytest.fixture
def visitor(everyday: BrowserContext, site: Site) -> Iterator[Visitor]:
    """Every test ends with no complaint, and no request that left the server."""
    site.shelf.put("digits", a_study_data())
    visitor = Visitor(everyday, site)
    yield visitor
    for page in visitor.pages:
        page.close()
    assert visitor.complaints == []
    elsewhere = [url for url in visitor.requests if not url.startswith((site.origin, "data:", "blob:"))]
    assert elsewhere == []


def background(page: Page) -> str:
    colour: str = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return colour


def column(page: Page, place: int) -> list[str]:
    texts: list[str] = page.evaluate(
        "place => [...document.querySelectorAll('#trials tbody tr')].map(row => row.cells[place].dataset.sort)", place
    )
    return texts


def test_all_charts_are_drawn_and_the_four_of_the_status_come_first(visitor: Visitor) -> None:
    """A plot that is drawn has an SVG with marks in it."""
    page = visitor.open("digits")
    keys = page.eval_on_selector_all(".plot.js-plotly-plot", "plots => plots.map(plot => plot.dataset.chart)")
    assert keys == list(CHARTS)
    marks = ".plot[data-chart={}] :is(.scatterlayer path, .barlayer path)"
    assert all(page.locator(marks.format(key)).count() > 0 for key in FOUR)


@pytest.mark.parametrize("trials", [60, 2000])
def test_charts_are_drawn_once(visitor: Visitor, trials: int) -> None:
    """Plotly draws all of a chart again where its labels do not fit the margins; only people's names may do that."""
    visitor.site.shelf.put("many", a_study_data(a_search(trials)))
    page = visitor.open("many")
    again = "plots => plots.filter(plot => '_redrawFromAutoMarginCount' in plot._fullLayout).map(plot => plot.dataset.chart)"
    assert page.eval_on_selector_all(".plot", again) == ["param-importances"]


def test_each_chart_of_the_status_has_a_page_of_its_own(visitor: Visitor) -> None:
    """One chart, with the way to the others and back to the study."""
    page = visitor.open("digits", FOUR[0])
    for chart in FOUR:
        page.goto(visitor.site.url("digits", chart))
        expect(page.locator(".plot")).to_have_count(1)
        expect(page.locator(f".js-plotly-plot[data-chart={chart}]")).to_be_visible()
    page.get_by_role("link", name="Rank").click()
    expect(page.locator(".js-plotly-plot[data-chart=rank]")).to_be_visible()
    page.get_by_role("link", name="research / digits").click()
    expect(page.get_by_role("heading", name="digits")).to_be_visible()


@pytest.mark.parametrize("chart", list(CHARTS))
def test_a_chart_alone_has_these_buttons_and_no_other(visitor: Visitor, chart: str) -> None:
    """None of them sends the figure anywhere; Plotly's own set has one that does."""
    page = visitor.open("digits", chart)
    plot = page.locator(".js-plotly-plot")
    names = page.eval_on_selector_all(".modebar-btn", "buttons => buttons.map(button => button.dataset.title)")
    assert names == ["Download plot as a PNG", "Zoom", "Pan", "Zoom in", "Zoom out", "Reset axes"]
    told = plot.evaluate("plot => [plot._context.plotlyServerURL, plot._context.showSendToCloud]")
    assert told == ["", False]
    for link in page.eval_on_selector_all(".plot a[href]", "links => links.map(link => link.href)"):
        assert link.startswith(visitor.site.origin)
    under = """() => {
      const bar = document.querySelector(".modebar-group").parentElement.getBoundingClientRect();
      const covered = [...document.querySelectorAll(".plot :is(.legend, .plotbg, .annotation, .cartesianlayer .bg)")];
      const boxes = covered.map(item => item.getBoundingClientRect());
      return boxes.filter(box => box.height && box.top < bar.bottom - 1).length;
    }"""
    assert page.evaluate(under) == 0
    assert (
        page.eval_on_selector(".modebar-group", "group => getComputedStyle(group).backgroundColor")
        == "rgba(0, 0, 0, 0)"
    )


def test_in_its_card_a_chart_has_no_buttons(visitor: Visitor) -> None:
    page = visitor.open("digits")
    assert page.locator(".modebar-btn").count() == 0


def test_a_zoom_outlives_the_next_trial(visitor: Visitor) -> None:
    trials = list(a_search(40))
    visitor.site.shelf.put("zoomed", a_study_data(trials))
    page = visitor.open("zoomed", FOUR[0])
    axis = "plot => plot._fullLayout.xaxis.range"
    page.locator(".modebar-btn[data-title='Zoom in']").click()
    page.wait_for_function("document.querySelector('.plot')._fullLayout.xaxis.range[0] > 1")
    zoomed, drawn = page.eval_on_selector(".plot", axis), page.get_attribute("body", "data-drawn")
    visitor.site.shelf.put(
        "zoomed", a_study_data([*trials, a_finished_trial(42, value=0.999, params=dict(trials[0].params))])
    )
    expect(page.locator("body")).not_to_have_attribute("data-drawn", drawn or "")
    assert page.eval_on_selector(".plot", axis) == zoomed
    page.locator(".modebar-btn[data-title='Reset axes']").click()
    page.wait_for_function("document.querySelector('.plot')._fullLayout.xaxis.range[0] < 1")


def test_the_first_rows_are_there_before_the_table_is_seen(visitor: Visitor) -> None:
    """As they are in print; the others come when it is scrolled to."""
    visitor.site.shelf.put("many", a_study_data(a_search(200)))
    page = visitor.open("many")
    laid_out = "rows => rows.filter(row => row.getBoundingClientRect().height > 0).length"
    assert page.eval_on_selector_all("#trials tbody tr", laid_out) == 30
    page.locator("#trials-title").scroll_into_view_if_needed()
    page.locator("#trials").scroll_into_view_if_needed()
    expect(page.locator("#trials tbody tr").nth(150)).to_be_visible()


def test_a_study_without_a_value_begins_with_its_trials(visitor: Visitor) -> None:
    """And all charts that have nothing to show share a card."""
    visitor.site.shelf.put("all failed", a_study_data(POOR_RELATIVES["only failed trials"]))
    page = visitor.open("all failed")
    table, charts = page.locator("section.trials").bounding_box(), page.locator("section.charts").bounding_box()
    assert table is not None
    assert charts is not None
    assert table["y"] < charts["y"]
    expect(page.locator(".blank")).to_contain_text("Optimization history, Parameter importances")
    assert page.locator(".grid > .card:has(.words):visible").count() == 0


def test_the_summary_says_what_matters(visitor: Visitor) -> None:
    """Phase, progress, the best trial, and what pruning saved."""
    best = subject(a_study_data(), now=NOW).ranked[0]
    page = visitor.open("digits")
    summary = page.locator("#summary")
    for words in ("Running", f"{first_value(best):.4g}", f"trial {best.number}", "of 80", "Saved by pruning", "7%"):
        expect(summary).to_contain_text(words)
    assert page.title().startswith("58/80 digits")


@pytest.mark.parametrize("has_clipboard", [True, False], ids=["over https", "over plain http"])
def test_the_best_parameters_are_copied_as_yaml(visitor: Visitor, *, has_clipboard: bool) -> None:
    """To be pasted into a config; a page without https has no clipboard of its own."""
    page = visitor.open("digits", permissions=["clipboard-read", "clipboard-write"])
    page.evaluate("window.kept = navigator.clipboard; kept.writeText('nothing yet')")
    if not has_clipboard:
        page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined, configurable: true})")
    page.get_by_role("button", name="Copy as YAML").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    copied = yaml.safe_load(page.evaluate("kept.readText()"))
    assert copied == subject(a_study_data(), now=NOW).ranked[0].params


def test_the_table_sorts_by_any_column(visitor: Visitor) -> None:
    """First upwards, then downwards; what has no value is always last."""
    page = visitor.open("digits")
    assert column(page, 0)[:3] == ["59", "58", "57"]
    head = page.locator("#trials thead th").nth(2)
    head.click()
    up = column(page, 2)
    head.click()
    down = column(page, 2)
    values = sorted(float(value) for value in up if value)
    assert [float(value) for value in up if value] == values
    assert [float(value) for value in down if value] == values[::-1]
    assert (up[-1], down[-1], head.get_attribute("aria-sort")) == ("", "", "descending")


def test_a_failed_trial_unfolds_its_traceback(visitor: Visitor) -> None:
    """Reason first, details on demand."""
    page = visitor.open("digits")
    row = page.locator("#trials tbody tr[data-trial='30']")
    expect(row).to_contain_text("CUDA out of memory")
    expect(row.locator("pre")).to_be_hidden()
    row.locator("summary").click()
    expect(row.locator("pre")).to_be_visible()
    expect(row.locator("pre")).to_contain_text("Traceback (most recent call last)")


@pytest.mark.parametrize(("study", "chart"), [("digits", ""), ("digits", "slice"), ("hostile", ""), ("empty", "")])
def test_a_phone_never_scrolls_sideways(visitor: Visitor, study: str, chart: str) -> None:
    """What is wide scrolls inside its card."""
    visitor.site.shelf.put("hostile", a_study_data(hostile_trials(), spec=None))
    visitor.site.shelf.put("empty", a_study_data([], status=a_status(Phase.PENDING)))
    page = visitor.open(study, chart, viewport=PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_the_theme_follows_the_system_until_it_is_chosen(visitor: Visitor) -> None:
    """And the choice is remembered; charts follow it."""
    page = visitor.open("digits", color_scheme="light")
    light, text = background(page), ".plot[data-chart=slice] .xtick text"
    light_text = page.eval_on_selector(text, "text => text.style.fill")
    page.emulate_media(color_scheme="dark")
    dark = background(page)
    page.wait_for_function(
        "([selector, old]) => document.querySelector(selector).style.fill !== old", arg=[text, light_text]
    )
    page.get_by_role("button", name="Switch between light and dark").click()
    assert (light != dark, background(page)) == (True, light)
    page.reload()
    page.wait_for_selector("body[data-drawn]", timeout=MILLISECONDS)
    assert background(page) == light


def test_a_live_page_follows_its_study(visitor: Visitor) -> None:
    """Numbers, rows and charts change; what a reader has opened, selected and sorted stays as it is."""
    trials = list(a_search(40))
    visitor.site.shelf.put("live", a_study_data(trials))
    page = visitor.open("live")
    expect(page.locator("#live")).to_have_text("Live")
    page.locator("#trials thead th").first.click()
    failed = page.locator("#trials tbody tr[data-trial='30']")
    failed.locator("summary").click()
    page.evaluate("document.querySelector('[data-trial=\"30\"] pre').dataset.mark = 'the same element'")
    drawn = page.get_attribute("body", "data-drawn")
    record = a_finished_trial(42, value=0.999, params=dict(trials[0].params))
    visitor.site.shelf.put("live", a_study_data([*trials, record]))
    expect(page.locator("#summary .best .value")).to_contain_text("0.999")
    expect(page.locator("#trials tbody tr.is-best")).to_have_attribute("data-trial", "42")
    expect(page.locator("body")).not_to_have_attribute("data-drawn", drawn or "")
    expect(failed.locator("pre[data-mark]")).to_be_visible()
    assert column(page, 0) == [*map(str, range(40)), "42"]
    assert page.title().startswith("39/80")


def test_a_page_that_lost_its_server_says_so_and_comes_back(visitor: Visitor) -> None:
    """The last numbers stay on the screen."""
    page = visitor.open("digits")
    visitor.site.shelf.is_away = True
    try:
        expect(page.locator("#live")).to_have_text("No connection, trying again")
        expect(page.locator("#summary")).to_contain_text("Best value")
    finally:
        visitor.site.shelf.is_away = False
    expect(page.locator("#live")).to_have_text("Live")
    visitor.complaints = [words for words in visitor.complaints if "503" not in words]


def test_a_page_that_is_open_when_its_link_ends_says_so(visitor: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last numbers stay on the screen, nothing is asked for any more, and a reload says how to go on."""
    page = visitor.open("digits")
    expect(page.locator("#live")).to_have_text("Live")
    monkeypatch.setattr(server, "_now", lambda: datetime.fromtimestamp(END, UTC))
    expect(page.locator("#live")).to_have_text("This link has ended: reload to see how to get another")
    expect(page.locator("#summary")).to_contain_text("Best value")
    page.reload()
    expect(page.locator("h1")).to_have_text("This link has ended")
    expect(page.locator("pre").first).to_have_text("tuningstudy open digits -n research")
    visitor.complaints = [words for words in visitor.complaints if "410" not in words]


def test_a_page_that_was_opened_without_the_database_reloads_itself(visitor: Visitor) -> None:
    """Nobody has to press a key."""
    visitor.site.shelf.put("never seen before", a_study_data())
    visitor.site.shelf.is_away = True
    try:
        page = visitor.open("never seen before", drawn=False)
        expect(page.get_by_role("heading")).to_have_text("The database does not answer")
    finally:
        visitor.site.shelf.is_away = False
    expect(page.locator("#summary")).to_contain_text("Best value")
    visitor.complaints = [words for words in visitor.complaints if "503" not in words]


def test_a_forged_link_is_a_page_in_words(visitor: Visitor) -> None:
    """In the same dress, with its style loaded."""
    page = visitor.open("nobody", drawn=False)
    expect(page.get_by_role("heading")).to_have_text("Nothing here")
    assert page.evaluate("getComputedStyle(document.querySelector('.message')).display") == "grid"
    visitor.complaints = [words for words in visitor.complaints if "404" not in words]


@pytest.mark.parametrize("study", ["no trial", "only failed trials", "one complete trial", "a mixture of oddities"])
def test_a_study_with_little_to_show_says_so_in_words(visitor: Visitor, study: str) -> None:
    """Each card has a plot or a sentence, and none is blank."""
    visitor.site.shelf.put("poor", a_study_data(POOR_RELATIVES[study]))
    page = visitor.open("poor")
    empty = page.eval_on_selector_all(
        ".plot", "plots => plots.filter(plot => !plot.querySelector('.main-svg') && !plot.innerText.trim()).length"
    )
    assert (empty, "Drawing…" in page.inner_text("main")) == (0, False)


CALL_OUTS: dict[str, Callable[[], StudyData]] = {
    "when no node fits": lambda: a_study_data(status=a_status(message=UNSCHEDULABLE, trouble=Reason.POD_UNSCHEDULABLE)),
    "when all trials failed": lambda: a_study_data(
        [a_finished_trial(number, TrialState.FAIL) for number in range(3)],
        status=a_status(Phase.FAILED, message=UNSCHEDULABLE, trouble=Reason.TRIALS_FAILING),
    ),
}


@pytest.mark.parametrize("study", CALL_OUTS.values(), ids=CALL_OUTS)
def test_a_study_that_does_not_advance_says_why(visitor: Visitor, study: Callable[[], StudyData]) -> None:
    """On top, in the condition's own sentence."""
    visitor.site.shelf.put("stuck", study())
    page = visitor.open("stuck")
    expect(page.get_by_role("alert")).to_contain_text(UNSCHEDULABLE)


def test_names_of_people_run_nothing(visitor: Visitor) -> None:
    """Not in the page, and not in the charts' labels; what they say is shown."""
    visitor.site.shelf.put("hostile", a_study_data(hostile_trials(), spec=None))
    page = visitor.open("hostile")
    page.on("dialog", lambda dialog: visitor.complaints.append(dialog.message))
    assert page.locator("main img, main script, .plot a").count() == 0
    expect(page.locator(".plot[data-chart=param-importances]")).to_contain_text("<img src…")


@pytest.mark.parametrize("viewport", [WIDE, PHONE], ids=["wide", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_front_is_drawn_listed_and_marked(visitor: Visitor, viewport: Any, scheme: Any) -> None:
    """Its chart comes first and is no wider than the window; the table has a column for each objective."""
    visitor.site.shelf.put("two", two_objectives())
    page = visitor.open("two", viewport=viewport, color_scheme=scheme)
    assert page.eval_on_selector_all(".plot", "plots => plots.map(plot => plot.dataset.chart)") == list(
        CHARTS_OF_SEVERAL
    )
    front = subject(two_objectives(), now=NOW).best
    expect(page.locator(".best .value")).to_contain_text(str(len(front)))
    expect(page.locator(".best .params")).to_contain_text(f"trial {front[0].number}")
    expect(page.locator("#trials thead")).to_contain_text("latency")
    assert page.locator("tr.is-best").count() == len(front)
    expect(page.locator("main")).to_contain_text("Warm start: learned from 37 trials of digits-wide")
    assert page.evaluate("document.documentElement.scrollWidth") == viewport["width"]
    heights = page.eval_on_selector_all(".plot", "plots => plots.slice(0, 2).map(plot => plot.clientHeight)")
    assert heights[0] == heights[1] > 400


def test_what_breaks_a_constraint_is_marked(visitor: Visitor) -> None:
    """With which one and by how much; its star is somebody else's."""
    data = with_a_constraint()
    visitor.site.shelf.put("limited", data)
    page = visitor.open("limited")
    broken = subject(data, now=NOW).infeasible[0]
    row = page.locator(f'#trials tr[data-trial="{broken.number}"]')
    expect(row).to_contain_text("infeasible breaks latency <= 24 by")
    assert row.locator(".star").count() == 0
    expect(page.locator(".goal").first).to_have_text("maximize val_acc, keep latency ≤ 24")
