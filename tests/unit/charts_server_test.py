"""The charts server's HTTP: who may see what, how it is cached, and what it says when something is wrong."""

import asyncio
import gzip
import html
import json
import re
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from importlib.resources import files
from typing import Any

import pytest
from aiohttp import ClientResponse
from aiohttp.test_utils import TestClient, TestServer
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState
from tests.support.builders import a_spec
from tests.support.chart_studies import (
    HOSTILE_NAME,
    NOW,
    a_finished_trial,
    a_search,
    a_status,
    a_study_data,
    hostile_trials,
)
from tests.support.tenancy import UID

from tuning_api import contract
from tuning_api.status import Phase, Reason
from tuning_operator.charts import server
from tuning_operator.charts.assets import PLOTLY, asset_path, assets
from tuning_operator.charts.figures import CHARTS, in_words, render
from tuning_operator.charts.links import namespace_mark, study_path
from tuning_operator.charts.page import Moment, report_page
from tuning_operator.charts.renderer import Crowded, Renderer
from tuning_operator.charts.server import create_app
from tuning_operator.charts.source import StudyData
from tuning_operator.charts.subject import Subject
from tuning_operator.charts.summary import subject
from tuning_operator.errors import DatabaseUnavailable

KEY = "a signing key"
END = int(datetime(2096, 1, 1, tzinfo=UTC).timestamp())
"""Of the links. NB: the same in each process, since tests that run side by side are named by their paths."""
PATH = study_path(key=KEY, namespace="research", study="digits", uid=UID, end=END)
PAGES = ("", "data", "figures", "report.html", "trials.json", *CHARTS)
Client = TestClient[Any, Any]


class FakeSource:
    """One study, which a test may change, and a database that may be away."""

    def __init__(self, data: StudyData | None = None) -> None:
        self.data = data or a_study_data()
        self.loads = 0
        self.error: Exception | None = None
        self.asked = threading.Event()
        self.gate = threading.Event()
        self.gate.set()

    def load(self, namespace: str, study: str) -> StudyData | None:
        """The study, if it is that one."""
        self.asked.set()
        self.gate.wait(10)
        self.loads += 1
        if self.error:
            raise self.error
        return self.data if (namespace, study) == (self.data.namespace, self.data.name) else None


class InWords(Renderer):
    """Draws nothing: what charts look like is not the server's affair."""

    async def figures(self, data: StudyData, subject: Subject) -> dict[str, str]:  # noqa: ARG002
        """A sentence in the place of each chart."""
        return in_words(f"{len(subject.trials)} trials", subject)


def visit(source: FakeSource, story: Callable[[Client], Awaitable[None]], *, unpack: bool = True) -> None:
    """Let a story happen to a server of that source."""

    async def begin() -> None:
        app = create_app(source=source, signing_key=KEY, renderer=InWords())
        async with TestClient(TestServer(app), auto_decompress=unpack) as client:
            await story(client)

    asyncio.run(begin())


def fetch(path: str = PATH, *, source: FakeSource | None = None, **options: Any) -> tuple[ClientResponse, str]:
    """One answer and its text."""
    answers: list[tuple[ClientResponse, str]] = []

    async def story(client: Client) -> None:
        async with client.get(path, allow_redirects=False, **options) as answer:
            answers.append((answer, await answer.text()))

    visit(source or FakeSource(), story)
    return answers[0]


@pytest.fixture(autouse=True)
def always_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each request looks at the source, so that no test waits for a second to pass."""
    monkeypatch.setattr(server, "FRESH_SECONDS", -1.0)


@pytest.mark.parametrize("page", PAGES)
def test_a_signed_link_opens_every_page_of_its_study(page: str) -> None:
    """One signature for the report and the charts of the status."""
    answer, _ = fetch(PATH + page)
    assert answer.status == 200


FOREIGN = {
    "another study's signature": study_path(key=KEY, namespace="research", study="glosses", uid=UID, end=END).replace(
        "glosses", "digits"
    ),
    "another key": study_path(key="another key", namespace="research", study="digits", uid=UID, end=END),
    "a later end": PATH.replace(str(END), str(END + 1)),
    "a forged link that would have ended": study_path(
        key="another key", namespace="research", study="digits", uid=UID, end=1
    ),
    "a link without an end": PATH.replace(f"{END}.", ""),
    "no signature": "/studies/research/digits/x/",
    "bytes that are no text": "/studies/research/digits/%ff%fe/",
    "a study that does not exist": study_path(key=KEY, namespace="research", study="gone", uid=UID, end=END),
    "a chart that does not exist": PATH + "pie",
    "an unknown path": "/",
    "a file that does not exist": "/static/abc/page.js",
    "a file outside": "/static/..%2f..%2f/etc",
    "a path that climbs": "/static/../../etc/passwd",
    "a path that climbs in a name": PATH + "..%2f..%2f..%2fetc%2fpasswd",
    "another study below a good signature": PATH.replace("digits", "..%2fother%2fdigits"),
    "a study in other letters": PATH.replace("digits", "Digits"),
    "a null byte": PATH + "slice%00",
    "two slashes": PATH.replace("/digits/", "//digits/"),
}


@pytest.mark.parametrize("path", FOREIGN.values(), ids=FOREIGN)
def test_every_refusal_is_the_same_page(path: str) -> None:
    """Nobody learns which studies exist."""
    (answer, text), (other, expected) = fetch(path), fetch("/studies/a/b/c/")
    assert (answer.status, other.status) == (404, 404)
    assert without_roots(text) == without_roots(expected)
    assert "This link opens no study" in text


ENDED = {
    "a second before": (-1, 200),
    "at that moment": (0, 410),
    "a second after": (1, 410),
    "years after": (10**8, 410),
}


@pytest.mark.parametrize("page", ["", *PAGES])
@pytest.mark.parametrize(("seconds", "status"), ENDED.values(), ids=ENDED)
def test_a_link_opens_nothing_from_its_end_on(
    page: str, seconds: int, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the server's clock, and before anything is loaded."""
    monkeypatch.setattr(server, "_now", lambda: datetime.fromtimestamp(END + seconds, UTC))
    source = FakeSource()
    answer, _ = fetch(PATH + page, source=source)
    assert (answer.status, source.loads) == (status, 1 if status == 200 else 0)


def test_whoever_had_a_link_is_told_that_it_has_ended_and_how_to_get_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for a study that is there and one that is not; and another link that was renewed goes on."""
    monkeypatch.setattr(server, "_now", lambda: datetime.fromtimestamp(END, UTC))
    gone = study_path(key=KEY, namespace="research", study="gone", uid=UID, end=END)
    pages = [Read(fetch(path)[1]).text for path in (PATH, PATH.rstrip("/"), gone)]
    assert all("This link has ended" in page for page in pages)
    assert "tuningstudy open digits -n research" in pages[0]
    assert "kubectl get tuningstudy digits -n research -o jsonpath='{.status.charts.report}'" in pages[0]
    assert pages[2].replace("gone", "digits") == pages[0] == pages[1]
    assert fetch(study_path(key=KEY, namespace="research", study="digits", uid=UID, end=END + 1))[0].status == 200


@pytest.mark.parametrize("page", PAGES)
def test_a_link_opens_nothing_in_a_namespace_that_was_made_again(page: str) -> None:
    """Who had it may not read what the next owners of the name do; the answer tells how to get another."""
    answer, text = fetch(PATH + page, source=FakeSource(a_study_data(mark=namespace_mark("another uid"))))
    assert (answer.status, "This link has ended" in text) == (410, True)


OVERSIZED = {
    "a long name": "/studies/" + "a" * 7000 + "/digits/x/",
    "a long signature": f"/studies/research/digits/{'A' * 7000}/",
    "a long query": PATH + "?" + "x" * 100_000,
    "a long path": "/" + "x/" * 50_000,
}


@pytest.mark.parametrize("path", OVERSIZED.values(), ids=OVERSIZED)
def test_what_is_oversized_is_refused_before_anything_is_loaded(path: str) -> None:
    """By its length, or as any other link that opens nothing."""
    source = FakeSource()
    answer, _ = fetch(path, source=source)
    assert (answer.status in {400, 404, 414}, source.loads) == (True, 0)


def test_a_query_changes_nothing() -> None:
    """No page has any: what stands behind the question mark is not read."""
    (_, plain), (_, asked) = fetch(PATH + "data"), fetch(PATH + "data?study=other&signature=x&chart=%3Cscript%3E")
    assert json.loads(plain).keys() == json.loads(asked).keys()
    assert "script" not in asked


def without_roots(text: str) -> str:
    return re.sub(r'"(\.\./|\./)*static', '"static', text)


@pytest.mark.parametrize("page", ["", "data", "figures", "slice"])
def test_nothing_is_loaded_before_the_signature_is_verified(page: str) -> None:
    """A stranger cannot keep the database busy."""
    source = FakeSource()
    fetch(f"/studies/research/digits/forged/{page}", source=source)
    assert source.loads == 0


def test_a_link_without_its_last_slash_is_led_to_the_page() -> None:
    """Chat programs cut it off; the server may be served below a path that it does not know."""
    answer, _ = fetch(PATH.rstrip("/"))
    forged, _ = fetch("/studies/research/digits/forged")
    assert (answer.status, forged.status) == (308, 404)
    assert PATH.endswith("/" + answer.headers["Location"])


class ACrowd(Renderer):
    """One that draws for others all the time."""

    async def figures(self, data: StudyData, subject: Subject) -> dict[str, str]:  # noqa: ARG002
        """Not now."""
        raise Crowded


@pytest.mark.parametrize("page", ["figures", "report.html"])
def test_charts_that_have_to_wait_for_too_many_others_are_asked_for_again(page: str) -> None:
    """In words, and soon."""
    answers: list[tuple[int, str, str]] = []

    async def begin() -> None:
        app = create_app(source=FakeSource(), signing_key=KEY, renderer=ACrowd())
        async with TestClient(TestServer(app)) as client, client.get(PATH + page) as answer:
            answers.append((answer.status, answer.headers["Retry-After"], await answer.text()))

    asyncio.run(begin())
    ((status, seconds, text),) = answers
    assert (status, seconds) == (503, "5")
    assert "Many charts are being drawn" in text


@pytest.mark.parametrize("path", [PATH, PATH + "data", PATH + "trials.json", "/nothing"])
def test_only_the_readers_own_browser_keeps_a_page(path: str) -> None:
    """Nobody who has no link finds one in a cache that many share."""
    answer, _ = fetch(path)
    assert answer.headers["Cache-Control"] == "private, no-cache"


@pytest.mark.parametrize("page", ["", "data", "figures", "slice"])
def test_a_database_that_is_away_is_said_in_words_and_asked_again(page: str) -> None:
    """The page reloads itself, and tells no stranger of hosts and users."""
    source = FakeSource()
    source.error = DatabaseUnavailable("connection to server at 10.0.0.7 failed")
    answer, text = fetch(PATH + page, source=source)
    assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
    assert '<meta http-equiv="refresh" content="5">' in text
    assert "The database does not answer" in text
    assert "10.0.0.7" not in text


def test_a_mistake_of_ours_is_said_in_words(caplog: pytest.LogCaptureFixture) -> None:
    """The traceback is the log's."""
    source = FakeSource()
    source.error = ZeroDivisionError("inner workings")
    answer, text = fetch(source=source)
    assert (answer.status, "inner workings" in text) == (500, False)
    assert "This page could not be made" in text
    assert "inner workings" in caplog.text


def test_a_method_that_is_not_offered_is_refused() -> None:
    """There is nothing to write here."""
    statuses = []

    async def story(client: Client) -> None:
        statuses.extend([(await client.post(PATH)).status, (await client.head(PATH)).status])

    visit(FakeSource(), story)
    assert statuses == [405, 200]


@pytest.mark.parametrize("path", [PATH, PATH + "data", "/nothing", "/healthz", "/" + asset_path("page.css")])
def test_browsers_are_held_to_this_server(path: str) -> None:
    """Whatever a page contains, it can load and send nothing elsewhere."""
    answer, _ = fetch(path)
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert (answer.headers["X-Content-Type-Options"], answer.headers["Referrer-Policy"]) == ("nosniff", "no-referrer")


def test_the_probes_do_not_ask_for_the_database() -> None:
    """A restart would not bring it back."""
    source = FakeSource()
    source.error = DatabaseUnavailable("away")
    assert [fetch(path, source=source)[0].status for path in ("/healthz", "/readyz")] == [200, 200]
    assert source.loads == 0


def test_polling_costs_nothing_while_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """304 for what the page has already, 200 as soon as a trial is there."""
    monkeypatch.setattr(server, "_now", lambda: NOW)
    source = FakeSource(a_study_data([a_finished_trial(0)]))
    seen = []

    async def story(client: Client) -> None:
        first = await client.get(PATH + "data")
        known = {"If-None-Match": first.headers["ETag"]}
        again = await client.get(PATH + "data", headers=known)
        source.data = replace(source.data, trials=(*source.data.trials, a_finished_trial(1)))
        changed = await client.get(PATH + "data", headers=known)
        seen.extend([first.status, again.status, await again.text(), changed.status])

    visit(source, story)
    assert seen == [200, 304, "", 200]


@pytest.mark.parametrize("file", ["", "slice"])
def test_a_page_knows_which_live_parts_it_has(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first look for news brings nothing but news: a thousand rows would be sent twice."""
    monkeypatch.setattr(server, "_now", lambda: NOW)
    answers: list[int] = []

    async def story(client: Client) -> None:
        page = await (await client.get(PATH + file)).text()
        version = html.unescape(re.findall(r'data-version="([^"]+)"', page)[0])
        answers.append((await client.get(PATH + "data", headers={"If-None-Match": version})).status)

    visit(FakeSource(), story)
    assert answers == [304]


def test_the_live_parts_are_those_of_the_page() -> None:
    """What is replaced every few seconds is what was there."""
    source = FakeSource(a_study_data(status=a_status(Phase.COMPLETE)))
    _, text = fetch(PATH + "data", source=source)
    live = json.loads(text)
    assert (live["title"], live["terminal"], live["figures"]) == ("58/80 digits", True, "58-1061")
    assert live["params"] == ["learning_rate", "weight_decay", "dropout", "layers", "hidden_dim", "activation"]
    _, page = fetch(source=source)
    assert all(part in page for part in ('data-trial="57"', 'data-terminal="true"', "58/80 digits"))
    assert live["rows"].count("<tr") == page.count("<tr data-trial")


def test_readers_at_the_same_time_share_one_look_at_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifty people with the page open are one query."""
    monkeypatch.setattr(server, "FRESH_SECONDS", 3600.0)
    source = FakeSource()
    source.gate.clear()

    async def story(client: Client) -> None:
        requests = [asyncio.create_task(client.get(PATH + "data")) for _ in range(5)]
        # One reader who goes away must not take the others' answer with him.
        await asyncio.to_thread(source.asked.wait, 10)
        requests[0].cancel()
        source.gate.set()
        for request in requests[1:]:
            assert (await request).status == 200
        with suppress(asyncio.CancelledError):
            await requests[0]

    visit(source, story)
    assert source.loads == 1


def test_what_was_loaded_long_ago_is_loaded_again() -> None:
    """The page is live."""
    source = FakeSource()

    async def story(client: Client) -> None:
        for _ in range(3):
            await client.get(PATH + "data")

    visit(source, story)
    assert source.loads == 3


ALL_ENDED = [a_finished_trial(0), a_finished_trial(1)]
MOMENTS: dict[str, tuple[StudyData, StudyData, bool]] = {
    "it has ended": (
        a_study_data(list(ALL_ENDED), status=a_status(Phase.COMPLETE)),
        a_study_data(list(ALL_ENDED), status=a_status(Phase.COMPLETE)),
        True,
    ),
    "it goes on": (a_study_data(list(ALL_ENDED)), a_study_data(list(ALL_ENDED)), False),
    "its budget was raised": (
        a_study_data(list(ALL_ENDED), status=a_status(Phase.COMPLETE)),
        a_study_data(list(ALL_ENDED), status=a_status(Phase.RUNNING)),
        False,
    ),
    "a trial of it still runs": (
        a_study_data(a_search(5, running=1), status=a_status(Phase.COMPLETE)),
        a_study_data(a_search(5, running=1), status=a_status(Phase.COMPLETE)),
        False,
    ),
}


@pytest.mark.parametrize(("before", "after", "is_same"), MOMENTS.values(), ids=MOMENTS)
def test_the_page_of_a_study_in_which_nothing_happens_is_made_once(
    before: StudyData, after: StudyData, *, is_same: bool
) -> None:
    """However often it is looked at; where something runs, times go on."""

    async def looks() -> bool:
        loader = server.Loader(source := FakeSource(before))
        first = await loader.load("research", "digits")
        source.data = after
        return first is await loader.load("research", "digits")

    assert asyncio.run(looks()) is is_same


def test_answers_are_compressed_for_those_who_can_read_it() -> None:
    """A table of a thousand rows is mostly repetition."""
    answers: list[tuple[str | None, bytes]] = []

    async def story(client: Client) -> None:
        for encoding in ("gzip", "identity"):
            answer = await client.get(PATH, headers={"Accept-Encoding": encoding})
            answers.append((answer.headers.get("Content-Encoding"), await answer.read()))

    visit(FakeSource(), story, unpack=False)
    (encoding, packed), (none, plain) = answers
    assert (encoding, none) == ("gzip", None)
    assert b"<!doctype html>" in gzip.decompress(packed)
    assert len(packed) < len(plain) / 4


@pytest.mark.parametrize("name", ["page.js", "page.css", "theme.js", "logo.svg", "plotly-basic.min.js"])
def test_static_files_are_cached_for_ever_under_their_version(name: str) -> None:
    """A new version has a new name, so no browser mixes two."""
    answers: list[tuple[ClientResponse, bytes]] = []

    async def story(client: Client) -> None:
        for encoding in ("gzip", "identity"):
            answer = await client.get("/" + asset_path(name), headers={"Accept-Encoding": encoding})
            answers.append((answer, await answer.read()))

    visit(FakeSource(), story, unpack=False)
    (first, packed), (_, plain) = answers
    assert gzip.decompress(packed) == plain
    assert first.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert re.fullmatch(r"static/[0-9a-f]{12}/" + re.escape(name), asset_path(name))


def test_plotly_has_the_version_that_the_figures_are_made_for() -> None:
    """The Python package has the whole of Plotly.js, of which a page gets the part that it draws with (ADR 0026)."""
    whole = files("plotly").joinpath("package_data", "plotly.min.js").read_text()
    version = re.match(r"/\*\*\n\* plotly.js (v[\d.]+)\n", whole)
    assert version
    own = assets()[asset_path(PLOTLY).removeprefix("static/")][1].decode()
    assert own.startswith(f"/**\n* plotly.js (basic - minified) {version[1]}\n"), (
        f"npm pack plotly.js-basic-dist-min@{version[1]} has the one that fits, see operator/tuning_operator/charts/vendored"
    )


def test_every_file_that_is_served_is_used() -> None:
    """What no page asks for is not part of this server."""
    pages = [fetch(path)[1] for path in (PATH, PATH + "slice", "/nothing")]
    assert all(any(path in page for page in pages) for path in assets())


@pytest.mark.parametrize("page", ["", "slice"])
def test_nothing_in_a_page_points_elsewhere(page: str) -> None:
    """It works without the internet, and below any path."""
    _, text = fetch(PATH + page)
    links = re.findall(r'(?:href|src)="([^"]*)"', text)
    assert links
    assert [link for link in links if link.startswith(("/", "http", "//"))] == []


def test_names_and_values_of_people_are_escaped_everywhere() -> None:
    """Parameters, choices, failures and tracebacks are written by whoever may create a study."""
    status = a_status(message="<script>alert('status')</script>", trouble=Reason.TRIALS_FAILING)
    source = FakeSource(a_study_data(hostile_trials(), status=status))
    (_, page), (_, live) = fetch(source=source), fetch(PATH + "data", source=source)
    for text in (page, *(value for value in json.loads(live).values() if isinstance(value, str))):
        assert "<script>alert" not in text
        assert HOSTILE_NAME not in text
    assert "&lt;script&gt;alert(&#39;details&#39;)" in page


EVIL_NAMES = {
    "a tag": "<img src=x onerror=alert(1)>",
    "the end of a script": "</script><script>alert(1)</script>",
    "a comment in a script": "<!--<script>",
    "a quote": "\"onmouseover='alert(1)'",
    "an entity": "&lt;b&gt;",
    "a template": "{{ 7 * 7 }}{% raw %}",
    "a placeholder": "${trial.dir}`${alert(1)}`",
    "a line break": "a\nb\r\nSet-Cookie: x",
    "a separator of lines": "a\u2028b",
    "very long": "x" * 5000,
}


@pytest.mark.parametrize("name", EVIL_NAMES.values(), ids=EVIL_NAMES)
def test_a_name_of_any_letters_is_text_in_the_page_in_the_report_and_in_json(name: str) -> None:
    """As a parameter, as a choice, as a metric, in a failure and in the status: what is read is what was written."""
    distributions = {name: CategoricalDistribution([name, "other"])}
    trials = [
        a_finished_trial(
            number, value=number / 9, params={name: [name, "other"][number % 2]}, distributions=distributions
        )
        for number in range(4)
    ]
    failure = {"reason": "Error", "message": name, "details": name}
    failed = a_finished_trial(4, TrialState.FAIL, attributes={contract.FAILURE_ATTRIBUTE: failure})
    spec = a_spec(objectives=[{"metric": name[:128], "direction": "maximize"}])
    data = replace(a_study_data([*trials, failed], status=a_status(message=name)), spec=spec)
    pages = [fetch(PATH + page, source=FakeSource(data))[1] for page in ("", "report.html", "optimization-history")]
    pages += [
        part for part in json.loads(fetch(PATH + "data", source=FakeSource(data))[1]).values() if isinstance(part, str)
    ]
    figures = render(subject(data, now=NOW))
    report = Read(report_page(Moment(data, NOW), figures=figures))
    assert json.loads(report.figures) == {key: json.loads(figure) for key, figure in figures.items()}
    for read in (report, *map(Read, pages)):
        assert read.handlers == []
        assert {*read.tags} <= OUR_TAGS
    assert any(name in Read(text).text for text in pages)


OUR_TAGS = {
    "html",
    "head",
    "meta",
    "title",
    "link",
    "style",
    "script",
    "body",
    "header",
    "main",
    "nav",
    "section",
    "div",
    "span",
    "h1",
    "h2",
    "h3",
    "p",
    "a",
    "b",
    "button",
    "img",
    "svg",
    "path",
    "circle",
    "dl",
    "dt",
    "dd",
    "ul",
    "li",
    "table",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
    "details",
    "summary",
    "pre",
    "noscript",
}


class Read(HTMLParser):
    """A page as a browser reads it: its elements, what would run something, its text, and the figures in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._holds_figures = False
        self.tags: list[str] = []
        self.handlers: list[str] = []
        self.text = self.figures = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """See HTMLParser."""
        self.tags.append(tag)
        self.handlers += [name for name, _ in attributes if name.startswith("on")]
        self._holds_figures = ("type", "application/json") in attributes

    def handle_data(self, data: str) -> None:
        """See HTMLParser."""
        if self._holds_figures:
            self.figures += data
        else:
            self.text += data


def test_without_trials_the_page_is_words() -> None:
    """Nobody looks at an empty table."""
    _, text = fetch(source=FakeSource(a_study_data([], status=a_status(Phase.PENDING))))
    assert "No trial has started yet." in text
    assert "No trial has run yet." in text
