"""The operator's settings, from environment variables with the prefix TUNING_; the chart's values set them.

The order is that of the chart's values.yaml.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from tuning_api.naming import CHARTS_ROLE
from tuning_operator.render.job import WorkerDefaults

DRIVER = "postgresql+psycopg2"


class DatabaseSettings(BaseSettings):
    """Where the database is: a URL, or its parts (as CloudNativePG's Secrets have them)."""

    model_config = SettingsConfigDict(env_prefix="TUNING_", use_attribute_docstrings=True)

    database_url: SecretStr | None = None
    """postgresql://user:password@host:port/name; takes precedence over the parts."""
    database_host: str | None = None
    database_port: int = 5432
    database_name: str = "tuningstudy"
    database_user: str = "tuningstudy"
    database_password: SecretStr | None = None
    worker_database_host: str | None = None
    """The database's host as the workers see it, where that differs."""
    worker_database_port: int | None = None
    charts_database_password: SecretStr | None = None
    """Password of the charts server's read-only role, which the operator sets."""
    signing_key: SecretStr
    """Signs chart links and derives the workers' passwords."""

    @field_validator("database_url")
    @classmethod
    def _is_postgres(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        try:
            backend = make_url(value.get_secret_value()).get_backend_name()
        except ArgumentError as error:
            msg = "this is not a URL of the form postgresql://user:password@host:port/name"
            raise ValueError(msg) from error
        # CloudNativePG and libpq write postgresql:// or postgres://
        if backend not in {"postgresql", "postgres"}:
            msg = f"this must be a Postgres URL, not {backend}"
            raise ValueError(msg)
        return value

    @model_validator(mode="after")
    def _has_a_database(self) -> Self:
        if self.database_url is None and self.database_host is None:
            msg = "set TUNING_DATABASE_URL, or TUNING_DATABASE_HOST and its companions"
            raise ValueError(msg)
        return self

    @property
    def url(self) -> URL:
        """The operator's own way into the database."""
        if self.database_url is not None:
            return make_url(self.database_url.get_secret_value()).set(drivername=DRIVER)
        password = self.database_password.get_secret_value() if self.database_password else None
        return URL.create(
            DRIVER,
            username=self.database_user,
            password=password,
            host=self.database_host,
            port=self.database_port,
            database=self.database_name,
        )

    @property
    def worker_url(self) -> URL:
        """The database as the workers see it, without a role."""
        url = self.url.set(host=self.worker_database_host) if self.worker_database_host else self.url
        return url.set(port=self.worker_database_port) if self.worker_database_port else url

    @property
    def charts_url(self) -> URL:
        """The charts server's way into the database: its own role, which may only read."""
        if self.charts_database_password is None:
            return self.url
        return self.url.set(username=CHARTS_ROLE, password=self.charts_database_password.get_secret_value())


class OperatorSettings(DatabaseSettings):
    """What the operator needs to know."""

    trial_image: str = "localhost/tuningstudy-trial:dev"
    """The workers' image where a study names none."""
    trial_image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    trial_image_pull_secrets: Annotated[tuple[str, ...], NoDecode] = ()
    """Names of Secrets, comma-separated."""
    charts_url_external: str = Field(default="http://localhost:8000", validation_alias="TUNING_CHARTS_URL")
    """Where people reach the charts server; the start of every link."""
    charts_link_days: float = Field(default=7, gt=0, le=3650)
    """How long a link is good; the status gets a fresh one when half of that is over."""
    namespaces: Annotated[tuple[str, ...], NoDecode] = ()
    """The namespaces to watch, comma-separated; empty: all."""
    resync_seconds: float = Field(default=5, gt=0)
    """How often the trials of running studies are counted: they end in the database, and no event tells of it."""
    status_seconds: float = Field(default=20, ge=0)
    """Counts are written to the status at most this often; a new phase or verdict is written at once."""
    probe_port: int = 8080
    metrics_port: int = 9090
    log_format: Literal["json", "text"] = "json"

    @field_validator("namespaces", "trial_image_pull_secrets", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part for part in value.replace(",", " ").split() if part) if isinstance(value, str) else value

    @property
    def worker_defaults(self) -> WorkerDefaults:
        """What the settings say about all workers."""
        return WorkerDefaults(
            image=self.trial_image,
            image_pull_policy=self.trial_image_pull_policy,
            image_pull_secrets=self.trial_image_pull_secrets,
        )


class ChartsSettings(DatabaseSettings):
    """What the charts server needs to know."""

    charts_port: int = 8000
    log_format: Literal["json", "text"] = "json"
