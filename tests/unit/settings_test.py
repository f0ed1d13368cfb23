"""The operator's settings: what the chart says by environment variables."""

import pytest
from pydantic import ValidationError

from tuning_operator.__main__ import MISCONFIGURED, main
from tuning_operator.settings import CHARTS_ROLE, ChartsSettings, OperatorSettings

URL = "postgresql://me:hunter2@db.example:5433/tuning"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but a signing key."""
    monkeypatch.setenv("TUNING_SIGNING_KEY", "key")


PLACES = {
    "a URL": ({"DATABASE_URL": URL}, "postgresql+psycopg2://me:***@db.example:5433/tuning"),
    "libpq's other spelling": (
        {"DATABASE_URL": URL.replace("postgresql", "postgres")},
        "postgresql+psycopg2://me:***@db.example:5433/tuning",
    ),
    "parts, as CloudNativePG has them": (
        {
            "DATABASE_HOST": "db-rw",
            "DATABASE_PORT": "5432",
            "DATABASE_NAME": "app",
            "DATABASE_USER": "app",
            "DATABASE_PASSWORD": "p@ss/word",
        },
        "postgresql+psycopg2://app:***@db-rw:5432/app",
    ),
}


@pytest.mark.parametrize(("variables", "url"), PLACES.values(), ids=PLACES)
def test_the_database_is_a_url_or_its_parts(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], url: str
) -> None:
    """Both ways of writing it give the same; and the password is in no representation."""
    for name, value in variables.items():
        monkeypatch.setenv(f"TUNING_{name}", value)
    settings = OperatorSettings()
    assert str(settings.url) == url
    assert "hunter2" not in repr(settings)
    assert "p@ss" not in repr(settings)


def test_workers_and_charts_have_their_own_way_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another host for workers in other namespaces, and a read-only role for the charts server."""
    monkeypatch.setenv("TUNING_DATABASE_URL", URL)
    monkeypatch.setenv("TUNING_WORKER_DATABASE_HOST", "db.databases.svc")
    monkeypatch.setenv("TUNING_CHARTS_DATABASE_PASSWORD", "other")
    assert OperatorSettings().worker_url.host == "db.databases.svc"
    assert ChartsSettings().charts_url.username == CHARTS_ROLE


def test_lists_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Helm's join writes them."""
    monkeypatch.setenv("TUNING_DATABASE_URL", URL)
    monkeypatch.setenv("TUNING_NAMESPACES", "research,team-vision")
    assert OperatorSettings().namespaces == ("research", "team-vision")


MISTAKES = {
    "no signing key": ({"SIGNING_KEY": None, "DATABASE_URL": URL}, "TUNING_SIGNING_KEY"),
    "another database": ({"DATABASE_URL": "mysql://host/db"}, "must be a Postgres URL, not mysql"),
    "no URL at all": ({"DATABASE_URL": "db.example"}, "is not a URL of the form postgresql://"),
    "no database": ({}, "set TUNING_DATABASE_URL, or TUNING_DATABASE_HOST"),
    "a word for a number": ({"DATABASE_URL": URL, "RESYNC_SECONDS": "often"}, "TUNING_RESYNC_SECONDS"),
    "never": ({"DATABASE_URL": URL, "RESYNC_SECONDS": "0"}, "greater than 0"),
}


@pytest.mark.parametrize(("variables", "words"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_named_in_one_line_and_ends_the_operator(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variables: dict[str, str | None],
    words: str,
) -> None:
    """The exit code says that a restart will not help; the variable is named as it is written."""
    for name, value in variables.items():
        if value is None:
            monkeypatch.delenv(f"TUNING_{name}")
        else:
            monkeypatch.setenv(f"TUNING_{name}", value)
    assert main(["run"]) == MISCONFIGURED
    said = capsys.readouterr().err
    assert words in said
    assert "Traceback" not in said


def test_a_setting_of_the_wrong_type_is_refused_when_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Early: before anything is connected."""
    monkeypatch.setenv("TUNING_STATUS_SECONDS", "-1")
    with pytest.raises(ValidationError):
        OperatorSettings()
