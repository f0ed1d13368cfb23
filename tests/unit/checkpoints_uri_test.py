"""`trial.checkpoints.uri`: what it may be, and what is said of what it may not be."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tuning_api.spec import Checkpoints, StudySpec

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "user-guide.md"

PLACES = {
    "s3://bucket/prefix": "s3://bucket/prefix",
    "s3://bucket": "s3://bucket",
    "s3://bucket/": "s3://bucket/",
    "gs://bucket/a/b": "gs://bucket/a/b",
    "abfs://container@account.dfs.core.windows.net/prefix": "abfs://container@account.dfs.core.windows.net/prefix",
    "hdfs://name-node:8020/checkpoints": "hdfs://name-node:8020/checkpoints",
    "file:///data/my%20checkpoints": "/data/my checkpoints",
}


@pytest.mark.parametrize(("uri", "place"), PLACES.items(), ids=PLACES)
def test_a_worker_is_told_a_folder_or_the_uri(uri: str, place: str) -> None:
    """Whatever is no folder is a bucket."""
    checkpoints = Checkpoints.model_validate({"uri": uri})
    assert checkpoints.place == place
    assert checkpoints.bucket == (None if uri.startswith("file:") else uri)


def test_of_a_claim_there_is_nothing_to_tell() -> None:
    """It lies where it is mounted."""
    assert Checkpoints.model_validate({"persistentVolumeClaim": "ckpts"}).place is None


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no protocol": ({"uri": "bucket/prefix"}, "uri must be protocol://bucket/prefix"),
    "a path": ({"uri": "/data/checkpoints"}, "uri must be protocol://bucket/prefix"),
    "a folder without a path": ({"uri": "file://"}, "uri must be protocol://bucket/prefix"),
    "a protocol in capitals": ({"uri": "S3://bucket"}, "uri must be protocol://bucket/prefix"),
    "no bucket": ({"uri": "s3:///prefix"}, "uri must be protocol://bucket/prefix"),
    "one protocol over another": ({"uri": "simplecache::s3://bucket"}, "uri must be protocol://bucket/prefix"),
    "a query": ({"uri": "s3://bucket/prefix?versionId=1"}, "uri must be protocol://bucket/prefix"),
    "a pattern": ({"uri": "s3://bucket/*"}, "uri must be protocol://bucket/prefix"),
    "a space": ({"uri": "s3://bucket/a b"}, "uri must be protocol://bucket/prefix"),
    "a password": ({"uri": "s3://key:secret@bucket/prefix"}, "no credentials in uri: give them to the workers"),
    "two places": ({"uri": "s3://bucket", "persistentVolumeClaim": "ckpts"}, "either persistentVolumeClaim or uri"),
    "no place": ({"keep": 1}, "either persistentVolumeClaim or uri"),
}


@pytest.mark.parametrize(("document", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_place_is_refused_in_words(document: dict[str, Any], words: str) -> None:
    """The models say what the rules of the CRD say, which a component test asks a real API server."""
    with pytest.raises(ValueError, match=words):
        Checkpoints.model_validate(document)


def test_the_example_of_the_user_guide_is_a_study_with_its_secret() -> None:
    """A stranger pastes it; and no credentials are in the study."""
    section = GUIDE.read_text().partition("\n## Checkpoints in a bucket\n")[2].partition("\n## ")[0]
    (block,) = re.findall(r"```yaml\n(.*?)```", section, re.DOTALL)
    secret, study = yaml.safe_load_all(block)
    spec = StudySpec.model_validate(study["spec"])
    (container,) = (spec.trial.pod_template or {})["spec"]["containers"]
    assert container == {"name": "trial", "envFrom": [{"secretRef": {"name": secret["metadata"]["name"]}}]}
    assert secret["stringData"].keys() >= {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"}
