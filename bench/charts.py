"""The page of a study with very many trials: how long it takes, how much is sent, what the server needs."""

import gzip
import html
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from statistics import median
from typing import Any
from urllib.parse import urljoin

from cluster import prerequisites
from playwright.sync_api import Browser, sync_playwright
from sqlalchemy.engine import URL
from tests.support.chart_studies import a_search, a_search_spec
from tests.support.chromium import FLAGS
from tests.support.operator_process import CHARTS_PASSWORD, as_in_the_image
from tests.support.ports import free_port
from tests.support.postgres import running_server
from tests.support.tenancy import SIGNING_KEY, UID, a_tenancy
from tests.support.wait import wait_until

from bench.aim import Aim, spread
from bench.gauges import memory_mib
from tuning_api import naming
from tuning_operator import additions
from tuning_operator.charts.links import study_path
from tuning_operator.database import open_storage
from tuning_operator.model import StudyKey
from tuning_operator.studies import OptunaStudies

TITLE = "The page of a study"
ABOUT = """\
The charts server as the chart runs it, over a real Postgres, and a study of six parameters whose trials reported for twenty
epochs each, half of them pruned. Read is all that a browser reads before the charts can be drawn: the page, what it links to,
and its figures, one after the other, each over a connection of its own, compressed. Cold: the server has just started and was
asked for nothing yet. Cached: the same again, with what the reader has kept. The browser is Chromium on the same cores; its
time is from the start of the navigation until all charts are drawn, over a server that knows the study.
"""
SIZES = (100, 1_000, 10_000)
COLD_SECONDS = 5.0
CACHED_SECONDS = 0.2
MOST_BYTES = 1_500_000
DRAWN_SECONDS = 3.0
CAUSES = {
    "cold": (
        "Reading the rows, 200,000 of them reports, takes one core 1.5 s, and the process that draws needs as long to import"
        " what it needs; on two cores the reader waits for both."
    ),
    "drawn": "Its marks are elements of the page, of which the slices alone have 3,000; and the server has the same two cores.",
}
"""Why an aim was missed, if it was: what the profiles of the server and of Chromium show."""
NAMESPACE = "bench"
_LINK_SECONDS = 3600
"""So long a link is good, which is longer than the benchmark takes."""

Figures = dict[str, Any]


@dataclass(frozen=True)
class Read:
    """A page that was read with all that belongs to it."""

    first_byte: float
    complete: float
    """Seconds since it was asked for."""
    sent: int
    """Bytes of all answers' bodies, as they were sent."""


def measure(*, longer: bool, say: Callable[[str], None]) -> Figures:
    """See `catalogue.Bench`."""
    if reason := prerequisites.reason_against_browser():
        raise prerequisites.PrerequisiteError(f"pages are drawn by a browser: {reason}")
    prerequisites.install(prerequisites.BROWSER_PACKAGES)
    repeats = 9 if longer else 3
    with running_server() as postgres, sync_playwright() as playwright:
        database = postgres.create_database()
        browser = playwright.chromium.launch(executable_path=which("chromium"), headless=True, args=list(FLAGS))
        sizes = []
        for size in SIZES:
            _fill(database, size)
            say(f"{size} trials are there")
            sizes.append({"trials": size} | _look(database, _path(size), browser, repeats=repeats))
            say(f"{size} trials: read and drawn {repeats} times")
        browser.close()
    return {"sizes": sizes}


def _path(size: int) -> str:
    end = int(time.time()) + _LINK_SECONDS
    return study_path(key=SIGNING_KEY, namespace=NAMESPACE, study=_name(size), uid=UID, end=end)


def _name(size: int) -> str:
    return f"trials-{size}"


def _fill(database: URL, size: int) -> None:
    """A study with so many trials that have ended or run."""
    studies = OptunaStudies(a_tenancy(database, charts_password=CHARTS_PASSWORD))
    key = StudyKey(NAMESPACE, _name(size))
    studies.open(key, a_search_spec(maxTrials=size))
    storage = open_storage(database, naming.database_schema(NAMESPACE))
    study_id = storage.get_study_id_from_name(key.name)
    with storage.engine.begin() as connection:
        additions.add(connection, study_id, a_search(size))


def _look(database: URL, path: str, browser: Browser, *, repeats: int) -> Figures:
    cold, cached, drawn, memory = [], [], [], []
    for _ in range(repeats):
        with _server(database) as server:
            reader = Reader(server.origin)
            cold.append(reader.read(path))
            cached += [reader.read(path) for _ in range(3)]
            drawn.append(_drawn(browser, server.origin + path))
            memory.append(memory_mib(server.pid))
    return {
        "cold": [read.complete for read in cold],
        "coldFirstByte": [read.first_byte for read in cold],
        "cached": [read.complete for read in cached],
        "cachedFirstByte": [read.first_byte for read in cached],
        "sent": cold[0].sent,
        "sentAgain": cached[0].sent,
        "drawn": drawn,
        "memory": memory,
    }


@dataclass(frozen=True)
class _Server:
    origin: str
    pid: int


@contextmanager
def _server(database: URL) -> Iterator[_Server]:
    """`python -m tuning_operator charts`, just started."""
    port = free_port()
    origin = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            **as_in_the_image(Path(folder)),
            "TUNING_DATABASE_URL": database.render_as_string(hide_password=False),
            "TUNING_SIGNING_KEY": SIGNING_KEY,
            "TUNING_CHARTS_DATABASE_PASSWORD": CHARTS_PASSWORD,
            "TUNING_CHARTS_PORT": str(port),
        }
        process = subprocess.Popen([sys.executable, "-m", "tuning_operator", "charts"], env=environment)
        try:
            wait_until(lambda: _answers(origin), bool, seconds=60, what="the charts server answers")
            yield _Server(origin, process.pid)
        finally:
            process.terminate()
            process.wait(30)


def _answers(origin: str) -> bool:
    try:
        with urllib.request.urlopen(f"{origin}/readyz", timeout=2):  # noqa: S310 - our own server
            return True
    except (urllib.error.URLError, OSError):
        return False


class Reader:
    """Reads a page as a browser does, and keeps what it may keep."""

    def __init__(self, origin: str) -> None:
        self._origin = origin
        self._kept: dict[str, str] = {}
        """Entity tags by URL; those that may be kept for ever have an empty one."""

    def read(self, path: str) -> Read:
        """A page, what it links to, its figures and its first refresh."""
        begun = time.monotonic()
        url = self._origin + path
        body, sent, first_byte = self._get(url)
        assert body is not None  # noqa: S101 - a page has no entity tag
        text = body.decode()
        links = [urljoin(url, link) for link in re.findall(r'(?:href|src)="([^"]*static/[^"]+)"', text)]
        self._kept[url + "data"] = html.unescape(re.findall(r'data-version="([^"]+)"', text)[0])
        for link in (*links, url + "figures", url + "data"):
            sent += self._get(link)[1]
        return Read(first_byte - begun, time.monotonic() - begun, sent)

    def _get(self, url: str) -> tuple[bytes | None, int, float]:
        """What is there, how many bytes came, and when the first did; nothing comes of what was kept."""
        if self._kept.get(url) == "":
            return None, 0, time.monotonic()
        headers = {"Accept-Encoding": "gzip"} | ({"If-None-Match": self._kept[url]} if url in self._kept else {})
        try:
            request = urllib.request.Request(url, headers=headers)  # noqa: S310 - our own server
            with urllib.request.urlopen(request, timeout=120) as answer:  # noqa: S310
                first = answer.read(1)
                arrived = time.monotonic()
                body = first + answer.read()
        except urllib.error.HTTPError as error:
            if error.code != 304:  # noqa: PLR2004 - not modified
                raise
            return None, 0, time.monotonic()
        if "immutable" in answer.headers.get("Cache-Control", ""):
            self._kept[url] = ""
        elif "ETag" in answer.headers:
            self._kept[url] = answer.headers["ETag"]
        is_compressed = answer.headers.get("Content-Encoding") == "gzip"
        return gzip.decompress(body) if is_compressed else body, len(body), arrived


def _drawn(browser: Browser, url: str) -> float:
    """Seconds until a browser that has never been here has drawn all charts."""
    page = browser.new_page(viewport={"width": 1360, "height": 900})
    page.goto(url)
    # NB: not wait_for_function, whose text would be evaluated: the page's security policy forbids it.
    page.wait_for_selector("body[data-drawn]", timeout=120_000)
    milliseconds: float = page.evaluate("performance.now()")
    page.close()
    return milliseconds / 1000


def tell(figures: Figures) -> Iterator[str]:
    """See `catalogue.Bench`."""
    yield "| | " + " | ".join(f"{size['trials']:,} trials" for size in figures["sizes"]) + " |"
    yield "|---|" + "---|" * len(figures["sizes"])
    for what, words in _ROWS:
        yield f"| {what} | " + " | ".join(map(words, figures["sizes"])) + " |"


_ROWS: tuple[tuple[str, Callable[[Figures], str]], ...] = (
    ("cold: first byte", lambda size: f"{spread(size['coldFirstByte'], '.2f')} s"),
    ("cold: complete", lambda size: f"{spread(size['cold'], '.2f')} s"),
    ("cached: first byte", lambda size: f"{spread(size['cachedFirstByte'], '.3f')} s"),
    ("cached: complete", lambda size: f"{spread(size['cached'], '.3f')} s"),
    ("sent, compressed: at first", lambda size: f"{size['sent'] / 1e6:.2f} MB"),
    ("sent, compressed: again", lambda size: f"{size['sentAgain'] / 1e6:.2f} MB"),
    ("server's memory, with the process that draws", lambda size: f"{spread(size['memory'], '.0f')} MiB"),
    ("drawn by the browser", lambda size: f"{spread(size['drawn'], '.2f')} s"),
)


def aims(figures: Figures) -> list[Aim]:
    """See `catalogue.Bench`."""
    most = figures["sizes"][-1]
    name = f"page of {most['trials']:,} trials"
    return [
        _within(f"{name}, cold", COLD_SECONDS, most["cold"], CAUSES["cold"]),
        _within(f"{name}, cached", CACHED_SECONDS, most["cached"], ""),
        Aim(
            f"{name}, sent compressed",
            f"at most {MOST_BYTES / 1e6:g} MB",
            f"{most['sent'] / 1e6:.2f} MB",
            most["sent"] <= MOST_BYTES,
        ),
        _within(f"{name}, drawn by the browser", DRAWN_SECONDS, most["drawn"], CAUSES["drawn"]),
    ]


def _within(what: str, seconds: float, measured: list[float], cause: str) -> Aim:
    return Aim(what, f"at most {seconds:g} s", f"{spread(measured, '.2f')} s", median(measured) <= seconds, cause)
