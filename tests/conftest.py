"""Fixtures for all levels."""

pytest_plugins = [
    "tests.support.chromium",
    "tests.support.postgres",
    "tests.support.cluster",
    "tests.support.installed",
]
