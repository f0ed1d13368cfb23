"""Files on a real S3 server, through fsspec: what is written whole, what is said when it cannot be."""

from pathlib import Path

import pytest
from s3fs import S3FileSystem
from tests.support.s3_server import Bucket, S3Server

from tuning_api.store import Store, StoreError, StoreRefusedError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:botocore")


@pytest.fixture(autouse=True)
def fresh_clients() -> None:
    """NB: fsspec keeps a client for each place, with the credentials that it was made with."""
    S3FileSystem.clear_instance_cache()


def test_a_file_is_written_read_and_removed(bucket: Bucket, tmp_path: Path) -> None:
    """Its name is a path below the URI; what was there is replaced."""
    store = Store(bucket.uri)
    for text in ("first", "second"):
        (tmp_path / "here").write_text(text)
        store.put(tmp_path / "here", "digits/trial-3.ckpt")
    assert bucket.read("digits/trial-3.ckpt") == b"second"
    assert store.get("digits/trial-3.ckpt", tmp_path / "new" / "copy")
    assert (tmp_path / "new" / "copy").read_text() == "second"
    assert store.names("digits") == ["trial-3.ckpt"]
    store.remove("digits/trial-3.ckpt")
    store.remove("digits/trial-3.ckpt")
    assert (store.names("digits"), bucket.files()) == ([], [])
    assert not store.get("digits/trial-3.ckpt", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_large_file_arrives_in_parts_and_at_once(bucket: Bucket, tmp_path: Path) -> None:
    """S3 takes at most 5 GB in one piece; s3fs sends parts of 50 MB, which become an object when the last has arrived."""
    content = bytes(range(256)) * (120 * 2**20 // 256)
    (tmp_path / "here").write_bytes(content)
    Store(bucket.uri).put(tmp_path / "here", "digits/large")
    assert bucket.read("digits/large") == content
    assert bucket.files() == ["digits/large"]


def test_a_folder_is_read_and_removed_with_all_that_is_in_it(bucket: Bucket, tmp_path: Path) -> None:
    """And nothing that only begins with the same name."""
    store = Store(bucket.uri)
    (tmp_path / "here").write_text("x")
    for name in ("trial-1.files/a", "trial-1.files/b/c", "trial-1.files.d", "trial-11.files/e"):
        store.put(tmp_path / "here", f"digits/{name}")
    assert store.get_folder("digits/trial-1.files", tmp_path / "copy")
    assert sorted(str(path.relative_to(tmp_path / "copy")) for path in (tmp_path / "copy").rglob("?")) == [
        "a",
        "b",
        "b/c",
    ]
    assert not store.get_folder("digits/trial-2.files", tmp_path / "none")
    assert not store.get_folder("digits/trial-1.files.d", tmp_path / "none")
    store.remove("digits/trial-1.files")
    assert bucket.files() == ["digits/trial-1.files.d", "digits/trial-11.files/e"]


def test_a_check_leaves_nothing(bucket: Bucket) -> None:
    """Every worker makes one."""
    Store(bucket.uri).check()
    assert bucket.files() == []


REFUSED = {
    "a bucket that does not exist": ("s3://no-such-bucket/prefix", {}, "The specified bucket does not exist"),
    "a key that nobody knows": ("", {"AWS_ACCESS_KEY_ID": "nobody"}, "No user exists with the provided access key"),
    "a secret that is wrong": ("", {"AWS_SECRET_ACCESS_KEY": "wrong"}, "PermissionError: "),
    "no credentials": ("", {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "credentials"),
    "a protocol that nobody knows": ("s4://bucket/prefix", {}, "Protocol not known: s4"),
    "a protocol without its package": (
        "gs://bucket/prefix",
        {},
        "needs a Python package that is not here (Please install gcsfs",
    ),
}


@pytest.mark.parametrize(("uri", "environment", "words"), REFUSED.values(), ids=REFUSED)
def test_what_can_never_be_written_is_refused_in_words(
    uri: str, environment: dict[str, str], words: str, *, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the URI, so that a person knows which."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(StoreRefusedError) as refused:
        Store(uri or bucket.uri).check()
    assert str(refused.value).startswith(f"{uri or bucket.uri}: ")
    assert words in str(refused.value)
    assert bucket.files() == []


def test_a_store_that_is_away_may_come_back(s3_server: S3Server, bucket: Bucket, tmp_path: Path) -> None:
    """It is no refusal; what it has is as it was."""
    store = Store(bucket.uri)
    (tmp_path / "here").write_text("first")
    store.put(tmp_path / "here", "file")
    s3_server.stop()
    try:
        (tmp_path / "here").write_text("second")
        with pytest.raises(StoreError) as away:
            store.put(tmp_path / "here", "file")
    finally:
        s3_server.start()
    assert not isinstance(away.value, StoreRefusedError)
    assert bucket.read("file") == b"first"
    store.put(tmp_path / "here", "file")
    assert bucket.read("file") == b"second"
