"""The operator's settings, from environment variables with the prefix TUNING_; the chart's values set them.

The order is that of the chart's values.yaml.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self, get_args

from pydantic import Field, FilePath, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from tuning_api.naming import CHARTS_ROLE
from tuning_operator.decide.pod_templates import Restriction
from tuning_operator.render.job import CERTIFICATE_PATH, WorkerDefaults

DRIVER = "postgresql+psycopg2"
SslMode = Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]
"""libpq's, from the weakest to the strongest (PostgreSQL, "SSL Mode Descriptions")."""
SHORTEST_KEY = 32
"""Characters. Every pod has a password that follows from a key and a name that it knows: it may try keys at leisure."""
_FEWEST_CHARACTERS = 8
"""Different ones in a key."""
_QUERY = frozenset(
    {"sslmode", "sslrootcert", "sslnegotiation", "ssl_min_protocol_version", "channel_binding", "gssencmode"}
)
"""What a URL may say behind its question mark. All that libpq takes there wins over what stands before it: with a user or
a password the workers' URL would name the operator's role (PostgreSQL, "Connection URIs")."""
_OF_THE_SYSTEM = "system"
"""A value of `sslrootcert`: the authorities that the operating system trusts."""


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
    database_ssl_mode: SslMode | None = None
    """How connections are encrypted, where the URL does not say (its `sslmode`)."""
    database_ca_file: FilePath | None = None
    """The certificate of the authority that signed the server's, where the URL does not name it (its `sslrootcert`)."""
    worker_database_host: str | None = None
    """The database's host as the workers see it, where that differs."""
    worker_database_port: int | None = None
    charts_database_password: SecretStr | None = None
    """Password of the charts server's read-only role, which the operator sets."""
    signing_key: SecretStr
    """Signs chart links."""

    @field_validator("database_url")
    @classmethod
    def _is_postgres(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        try:
            url = make_url(value.get_secret_value())
        except (ArgumentError, ValueError):
            # NB: without the cause, which may quote a part of the password as a port.
            msg = "this is not a URL of the form postgresql://user:password@host:port/name"
            raise ValueError(msg) from None
        # CloudNativePG and libpq write postgresql:// or postgres://
        if url.get_backend_name() not in {"postgresql", "postgres"}:
            msg = f"this must be a Postgres URL, not {url.get_backend_name()}"
            raise ValueError(msg)
        if unknown := sorted(set(url.query) - _QUERY):
            msg = (
                f"the query of this URL has {unknown[0]}, and may have {', '.join(sorted(_QUERY))}:"
                " user, password, host, port and name stand before it"
            )
            raise ValueError(msg)
        if isinstance(mode := url.query.get("sslmode", "prefer"), tuple) or mode not in get_args(SslMode):
            msg = f"sslmode must be one of {', '.join(get_args(SslMode))}"
            raise ValueError(msg)
        return value

    @field_validator("signing_key", "password_key", check_fields=False)
    @classmethod
    def _is_strong(cls, value: SecretStr) -> SecretStr:
        key = value.get_secret_value()
        if len(key) < SHORTEST_KEY or len(set(key)) < _FEWEST_CHARACTERS:
            msg = (
                f"a key has at least {SHORTEST_KEY} characters, {_FEWEST_CHARACTERS} different ones among them:"
                " make one by `openssl rand -hex 24`"
            )
            raise ValueError(msg)
        return value

    @model_validator(mode="after")
    def _has_a_database(self) -> Self:
        if self.database_url is None and self.database_host is None:
            msg = "set TUNING_DATABASE_URL, or TUNING_DATABASE_HOST and its companions"
            raise ValueError(msg)
        if str(self.url.query.get("sslmode", "")).startswith("verify-") and "sslrootcert" not in self.url.query:
            msg = "sslmode verify-ca and verify-full need the authority's certificate: set TUNING_DATABASE_CA_FILE"
            raise ValueError(msg)
        if self._root_certificate and not self._root_certificate.is_file():
            msg = f"sslrootcert names {self._root_certificate}, and there is no such file"
            raise ValueError(msg)
        return self

    @property
    def url(self) -> URL:
        """The operator's own way into the database."""
        if self.database_url is not None:
            url = make_url(self.database_url.get_secret_value()).set(drivername=DRIVER)
            return url.set(query=self._encryption | url.query)
        password = self.database_password.get_secret_value() if self.database_password else None
        return URL.create(
            DRIVER,
            username=self.database_user,
            password=password,
            host=self.database_host,
            port=self.database_port,
            database=self.database_name,
            query=self._encryption,
        )

    @property
    def _encryption(self) -> Mapping[str, str]:
        given = {"sslmode": self.database_ssl_mode, "sslrootcert": self.database_ca_file}
        return {name: str(value) for name, value in given.items() if value is not None}

    @property
    def _root_certificate(self) -> Path | None:
        path = self.url.query.get("sslrootcert", _OF_THE_SYSTEM)
        return None if path == _OF_THE_SYSTEM else Path(str(path))

    @property
    def charts_url(self) -> URL:
        """The charts server's way into the database: its own role, which may only read."""
        if self.charts_database_password is None:
            return self.url
        return self.url.set(username=CHARTS_ROLE, password=self.charts_database_password.get_secret_value())


class OperatorSettings(DatabaseSettings):
    """What the operator needs to know."""

    password_key: SecretStr
    """From which the passwords of the workers' roles are derived; another one than the links'."""
    namespace_connections: int | None = Field(default=None, ge=4)
    """How many connections the workers of a namespace may have together; default: half of what the server has."""
    trial_image: str = "localhost/tuningstudy-trial:dev"
    """The workers' image where a study names none."""
    trial_image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    trial_image_pull_secrets: Annotated[tuple[str, ...], NoDecode] = ()
    """Names of Secrets, comma-separated."""
    tmp_size: str | None = Field(default=None, min_length=1)
    """How much a worker may write to /tmp, as a quantity such as 20Gi; default: as much as the node has."""
    pod_templates: Literal["any", "restricted"] = "any"
    """What studies may ask for in trial.podTemplate: whatever a pod may have, or what decide/pod_templates.py allows."""
    pod_template_secrets: Annotated[tuple[str, ...], NoDecode] = ()
    """Names of Secrets that restricted podTemplates may name, comma-separated."""
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

    @model_validator(mode="after")
    def _has_two_keys(self) -> Self:
        if self.signing_key == self.password_key:
            msg = "TUNING_SIGNING_KEY and TUNING_PASSWORD_KEY must differ: the first is the charts server's, too"
            raise ValueError(msg)
        return self

    @field_validator("namespaces", "trial_image_pull_secrets", "pod_template_secrets", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part for part in value.replace(",", " ").split() if part) if isinstance(value, str) else value

    @property
    def worker_url(self) -> URL:
        """The database as the workers see it, without a role."""
        url = self.url.set(host=self.worker_database_host or self.url.host)
        url = url.set(port=self.worker_database_port or self.url.port)
        return url.update_query_dict({"sslrootcert": CERTIFICATE_PATH}) if self._certificate else url

    @property
    def _certificate(self) -> str | None:
        """The authority's certificate, as PEM, which the workers are given."""
        return self._root_certificate.read_text(encoding="utf-8") if self._root_certificate else None

    @property
    def worker_defaults(self) -> WorkerDefaults:
        """What the settings say about all workers."""
        return WorkerDefaults(
            image=self.trial_image,
            image_pull_policy=self.trial_image_pull_policy,
            image_pull_secrets=self.trial_image_pull_secrets,
            certificate=self._certificate,
            tmp_size=self.tmp_size,
        )

    @property
    def restriction(self) -> Restriction | None:
        """What restricts podTemplates; None if nothing does."""
        if self.pod_templates == "any":
            return None
        return Restriction(frozenset(self.pod_template_secrets), frozenset(self.trial_image_pull_secrets))


class ChartsSettings(DatabaseSettings):
    """What the charts server needs to know."""

    charts_port: int = 8000
    log_format: Literal["json", "text"] = "json"
