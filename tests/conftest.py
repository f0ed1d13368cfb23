"""Fixtures for all levels."""

pytest_plugins = ["tests.support.postgres", "tests.support.cluster"]
