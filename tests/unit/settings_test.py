"""The operator's settings: what the chart says by environment variables."""

from pathlib import Path

import pytest
from pydantic import ValidationError
from tests.support.tenancy import PASSWORD_KEY, SIGNING_KEY

from tuning_operator.__main__ import MISCONFIGURED, main
from tuning_operator.decide.pod_templates import Restriction
from tuning_operator.render.job import CERTIFICATE_PATH
from tuning_operator.settings import CHARTS_ROLE, ChartsSettings, OperatorSettings

URL = "postgresql://me:hunter2@db.example:5433/tuning"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but the two keys."""
    monkeypatch.setenv("TUNING_SIGNING_KEY", SIGNING_KEY)
    monkeypatch.setenv("TUNING_PASSWORD_KEY", PASSWORD_KEY)


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


ENCRYPTED = {
    "by the settings": ({"DATABASE_URL": URL, "DATABASE_SSL_MODE": "require"}, {"sslmode": "require"}),
    "by the settings, of parts": ({"DATABASE_HOST": "db", "DATABASE_SSL_MODE": "require"}, {"sslmode": "require"}),
    "by the URL, which knows its server": (
        {"DATABASE_URL": f"{URL}?sslmode=verify-full&sslrootcert=system", "DATABASE_SSL_MODE": "require"},
        {"sslmode": "verify-full", "sslrootcert": "system"},
    ),
}


@pytest.mark.parametrize(("variables", "query"), ENCRYPTED.values(), ids=ENCRYPTED)
def test_every_way_in_is_encrypted_alike(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], query: dict[str, str]
) -> None:
    """The operator's, the charts server's and the workers'."""
    for name, value in variables.items():
        monkeypatch.setenv(f"TUNING_{name}", value)
    monkeypatch.setenv("TUNING_CHARTS_DATABASE_PASSWORD", "other")
    assert OperatorSettings().url.query == OperatorSettings().worker_url.query == query
    assert ChartsSettings().charts_url.query == query


def test_workers_are_given_the_certificate_and_told_where_they_find_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The operator's own file is not in their pods: they have it from the Secret."""
    authority = tmp_path / "ca.crt"
    authority.write_text("-----BEGIN CERTIFICATE-----")
    monkeypatch.setenv("TUNING_DATABASE_URL", f"{URL}?sslmode=verify-full")
    monkeypatch.setenv("TUNING_DATABASE_CA_FILE", str(authority))
    settings = OperatorSettings()
    assert settings.url.query["sslrootcert"] == str(authority)
    assert settings.worker_url.query["sslrootcert"] == CERTIFICATE_PATH
    assert settings.worker_defaults.certificate == "-----BEGIN CERTIFICATE-----"


HIDDEN = "postgresql://me@host/db?{}=hunter2"
MISTAKES = {
    "no password key": ({"PASSWORD_KEY": None, "DATABASE_URL": URL}, "TUNING_PASSWORD_KEY"),
    "a short key": ({"PASSWORD_KEY": "tuning2024", "DATABASE_URL": URL}, "at least 32 characters"),
    "an empty key": ({"SIGNING_KEY": "", "DATABASE_URL": URL}, "TUNING_SIGNING_KEY: a key has at least 32"),
    "a key of one letter": ({"SIGNING_KEY": "a" * 64, "DATABASE_URL": URL}, "8 different ones"),
    "one key for both": ({"SIGNING_KEY": PASSWORD_KEY, "DATABASE_URL": URL}, "must differ"),
    **{
        f"{name} in the query": ({"DATABASE_URL": HIDDEN.format(name)}, f"has {name}, and may have")
        for name in (
            "user",
            "password",
            "passfile",
            "service",
            "host",
            "hostaddr",
            "port",
            "dbname",
            "options",
            "sslkey",
        )
    },
    "a query of two": ({"DATABASE_URL": f"{URL}?sslmode=require&sslmode=disable"}, "sslmode must be one of"),
    "no such sslmode": ({"DATABASE_URL": f"{URL}?sslmode=always"}, "sslmode must be one of"),
    "no such mode": ({"DATABASE_URL": URL, "DATABASE_SSL_MODE": "always"}, "TUNING_DATABASE_SSL_MODE"),
    "nothing to verify by": ({"DATABASE_URL": f"{URL}?sslmode=verify-ca"}, "set TUNING_DATABASE_CA_FILE"),
    "no such certificate": ({"DATABASE_URL": URL, "DATABASE_CA_FILE": "/none"}, "TUNING_DATABASE_CA_FILE"),
    "no such certificate in the URL": ({"DATABASE_URL": f"{URL}?sslrootcert=/none"}, "there is no such file"),
    "a port that is no number": ({"DATABASE_URL": "postgresql://me:hunter2@host:hunter2/db"}, "is not a URL"),
    "no signing key": ({"SIGNING_KEY": None, "DATABASE_URL": URL}, "TUNING_SIGNING_KEY"),
    "another database": ({"DATABASE_URL": "mysql://host/db"}, "must be a Postgres URL, not mysql"),
    "no URL at all": ({"DATABASE_URL": "db.example"}, "is not a URL of the form postgresql://"),
    "no database": ({}, "set TUNING_DATABASE_URL, or TUNING_DATABASE_HOST"),
    "a word for a number": ({"DATABASE_URL": URL, "RESYNC_SECONDS": "often"}, "TUNING_RESYNC_SECONDS"),
    "never": ({"DATABASE_URL": URL, "RESYNC_SECONDS": "0"}, "greater than 0"),
}


def test_pod_templates_are_restricted_where_the_platform_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the Secrets that it allows, and the registry credentials that all workers get."""
    monkeypatch.setenv("TUNING_DATABASE_URL", URL)
    assert OperatorSettings().restriction is None
    monkeypatch.setenv("TUNING_POD_TEMPLATES", "restricted")
    monkeypatch.setenv("TUNING_POD_TEMPLATE_SECRETS", "checkpoints-s3, wandb")
    monkeypatch.setenv("TUNING_TRIAL_IMAGE_PULL_SECRETS", "registry")
    restriction = Restriction(frozenset({"checkpoints-s3", "wandb"}), frozenset({"registry"}))
    assert OperatorSettings().restriction == restriction


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
    assert "hunter2" not in said


def test_a_setting_of_the_wrong_type_is_refused_when_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Early: before anything is connected."""
    monkeypatch.setenv("TUNING_STATUS_SECONDS", "-1")
    with pytest.raises(ValidationError):
        OperatorSettings()
