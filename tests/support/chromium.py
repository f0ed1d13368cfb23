"""A real browser: Debian's package `chromium`, driven by Playwright, whose own browsers are not needed."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import prerequisites
from playwright.sync_api import Browser, sync_playwright

FLAGS = (
    "--no-sandbox",  # tests may run as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One browser for a module, installed if it is missing; skips with the reason where it cannot be.

    NB: not for the session: while Playwright's synchronous interface is open, no test can call asyncio.run.
    """
    if reason := prerequisites.reason_against_browser():
        pytest.skip(f"pages are looked at with a browser: {reason}")
    prerequisites.install(prerequisites.BROWSER_PACKAGES)
    path = shutil.which("chromium") or ""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=Path(path), headless=True, args=list(FLAGS))
        yield browser
        browser.close()
