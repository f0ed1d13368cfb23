"""A real S3 server for tests: versitygw over a folder, built from source once, with credentials that are really checked.

It can be stopped and started again under the feet of whoever uses it; what was written stays.
"""

import itertools
import os
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import binaries
from tests.support.ports import free_port
from tests.support.wait import wait_until

ACCESS_KEY, SECRET_KEY = "a-key", "a-secret"
START_SECONDS = 60
_numbers = itertools.count(1)


class S3Server:
    """One server. A folder of its data folder is a bucket, and a file in it an object."""

    def __init__(self, directory: Path) -> None:
        self._data, self._metadata = directory / "data", directory / "metadata"
        for folder in (self._data, self._metadata):
            folder.mkdir(parents=True)
        self._log = directory / "s3.log"
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def environment(self) -> dict[str, str]:
        """What its clients need, by the names of the AWS tools."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def start(self) -> None:
        """Start it, and wait until it answers."""
        program = binaries.VERSITYGW.ensure() / "versitygw"
        # NB: not every file system has extended attributes for the metadata.
        command = [program, "--port", f"127.0.0.1:{self._port}", "posix", "--sidecar", self._metadata, self._data]
        credentials = {"ROOT_ACCESS_KEY": ACCESS_KEY, "ROOT_SECRET_KEY": SECRET_KEY}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | credentials)
        wait_until(self._answers, bool, seconds=START_SECONDS, what=f"the S3 server answers, see {self._log}")

    def stop(self) -> None:
        """End it at once; connections are cut."""
        if self._process:
            self._process.kill()
            self._process.wait()
        self._process = None

    def create_bucket(self) -> "Bucket":
        """A bucket of the test's own, empty."""
        folder = self._data / f"bucket-{next(_numbers)}"
        folder.mkdir()
        return Bucket(folder)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._log.read_text(errors="replace")[-2000:]
        try:
            with urllib.request.urlopen(self.endpoint, timeout=5):  # noqa: S310 - ours
                return True
        except urllib.error.HTTPError as refused:
            refused.close()
            return True
        except OSError:
            return False


class Bucket:
    """A bucket, as its server has it on the disk: what a client wrote is looked at from behind."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def uri(self) -> str:
        """A prefix in it."""
        return f"s3://{self.folder.name}/some/prefix"

    def files(self) -> list[str]:
        """All objects below the prefix, relative to it."""
        root = self.folder / "some" / "prefix"
        return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())

    def read(self, name: str) -> bytes:
        """What is in an object."""
        return (self.folder / "some" / "prefix" / name).read_bytes()


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One server for the session; a test that stops it starts it again."""
    if not binaries.VERSITYGW.is_cached() and (reason := binaries.reason_it_cannot_build()):
        pytest.skip(f"tests of buckets need an S3 server: {reason}")
    server = S3Server(tmp_path_factory.mktemp("s3"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def bucket(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """An empty bucket; this process, and what it starts, has the credentials in its environment."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return s3_server.create_bucket()
