"""Which pod templates a study may have where the platform restricts them."""

import json
from pathlib import Path
from typing import Any

import pytest
from manifests.pod_policy import WORKER
from tests.support.builders import DIGITS_TRIAL, a_manifest, a_spec, a_study
from tests.support.command import Tuningstudy
from tests.support.pod_templates import ALLOWED, MALFORMED, MEANINGLESS, REFUSED, RESTRICTION, TWO_SOURCES, trial

from tuning_operator.decide.pod_templates import Restriction, faults, found
from tuning_operator.executors.kubernetes import checked
from tuning_operator.render.job import WorkerDefaults, worker_job

Document = dict[str, Any]
DEFAULTS = WorkerDefaults("trial:1", image_pull_policy="Always", image_pull_secrets=("registry-credentials",))
NOT_ALLOWED = REFUSED | MEANINGLESS | MALFORMED


@pytest.mark.parametrize("template", ALLOWED.values(), ids=ALLOWED)
def test_what_a_study_needs_passes(template: Document) -> None:
    """Places, resources, environment and volumes."""
    assert [*faults(template, RESTRICTION)] == []


@pytest.mark.parametrize(("template", "field"), NOT_ALLOWED.values(), ids=NOT_ALLOWED)
def test_what_it_may_not_have_is_refused_by_its_name(template: Document, field: str) -> None:
    """The message names the field, so that a person finds it."""
    found = [*faults(template, RESTRICTION)]
    assert found
    assert found[0].startswith(f"spec.trial.podTemplate.{field}")


def test_every_fault_is_found() -> None:
    """Of all containers, and not only of the first of a name."""
    template = {
        "spec": {"hostPID": True, "containers": [{"name": "trial", "args": ["a"]}, {"name": "trial", "tty": True}]}
    }
    words = "\n".join(faults(template, RESTRICTION))
    assert all(name in words for name in ("spec.hostPID", "containers[0].args", "containers[1].tty"))


def test_a_message_says_what_would_do() -> None:
    """What may be set there, or where the thing is said instead."""
    (image,) = faults(trial(image="mine"), RESTRICTION)
    assert "spec.trial.image names the image" in image
    (host,) = faults({"spec": {"hostPID": True}}, RESTRICTION)
    assert "of spec a study may set affinity, containers, imagePullSecrets, nodeSelector" in host


def test_a_name_of_any_length_makes_a_short_message() -> None:
    """Messages go into the status."""
    (fault,) = faults({"spec": {"x" * 100_000: 1}}, RESTRICTION)
    assert len(fault) < 500


def test_no_secret_is_allowed_unless_the_platform_says_so() -> None:
    """But for the workers' own, which is in each pod."""
    template = trial(envFrom=[{"secretRef": {"name": "checkpoints-s3"}}])
    assert [*faults(template, Restriction())]
    assert not [*faults(trial(envFrom=[{"secretRef": {"name": "tuningstudy-worker"}}]), Restriction())]


def test_a_study_that_asks_for_too_much_cannot_be_used() -> None:
    """It becomes one with a fault, which the controller refuses as InvalidSpec before anything runs."""
    study = a_study(spec=a_spec(trial=DIGITS_TRIAL | {"podTemplate": {"spec": {"hostPID": True}}}))
    refused = checked(study, defaults=DEFAULTS, restriction=RESTRICTION)
    assert refused.spec is None
    assert "spec.trial.podTemplate.spec.hostPID" in str(refused.fault)


@pytest.mark.parametrize("trial", [{}, {"podTemplate": ALLOWED["volumes"]}], ids=["without a template", "with one"])
def test_a_study_that_asks_for_what_it_may_is_left_alone(trial: Document) -> None:
    """Most have no template at all."""
    study = a_study(spec=a_spec(trial=DIGITS_TRIAL | trial))
    assert checked(study, defaults=DEFAULTS, restriction=RESTRICTION) is study


@pytest.mark.parametrize("restriction", [None, RESTRICTION], ids=["any", "restricted"])
@pytest.mark.parametrize("name", TWO_SOURCES)
def test_two_sources_under_one_name_are_refused(name: str, restriction: Restriction | None) -> None:
    """Whatever the platform allows: neither is replaced in silence."""
    template, _ = TWO_SOURCES[name]
    study = a_study(spec=a_spec(trial=DIGITS_TRIAL | {"podTemplate": template}))
    refused = checked(study, defaults=DEFAULTS, restriction=restriction)
    assert refused.spec is None
    assert str(refused.fault).startswith("spec.trial.podTemplate.spec.")


def test_a_clash_is_told_by_its_name() -> None:
    """Both sources, and what to do."""
    template = {"spec": {"volumes": [{"name": "tmp", "persistentVolumeClaim": {"claimName": "mine"}}]}}
    study = a_study(spec=a_spec(trial=DIGITS_TRIAL | {"podTemplate": template}))
    fault = str(checked(study, defaults=DEFAULTS, restriction=None).fault)
    assert "volumes: tmp has emptyDir and persistentVolumeClaim" in fault
    assert "choose another name" in fault


@pytest.mark.parametrize("origin", [None, "a ConfigMap", {}, []])
def test_a_source_that_is_none_is_the_api_servers_to_refuse(origin: Any) -> None:
    """Not an error of the operator's own."""
    study = a_study(spec=a_spec(trial=DIGITS_TRIAL | {"podTemplate": trial(env=[{"name": "A", "valueFrom": origin}])}))
    assert checked(study, defaults=DEFAULTS, restriction=None) is study


EACH_WORKER: dict[str, Document] = {
    "the smallest": {},
    "code and a claim": {"code": {"configMapName": "code"}, "checkpoints": {"persistentVolumeClaim": "checkpoints"}},
    "a bucket": {"checkpoints": {"uri": "s3://bucket/prefix"}},
    "a template": {"podTemplate": ALLOWED["volumes"]},
}


@pytest.mark.parametrize("trial", EACH_WORKER.values(), ids=EACH_WORKER)
def test_every_worker_is_one_that_the_policy_lets_pass(trial: Document) -> None:
    """A field that a worker's pod gets and the policy does not know would stop all studies of a restricted platform."""
    job = worker_job(a_study(spec=a_spec(trial=DIGITS_TRIAL | trial)), index=0, defaults=DEFAULTS)
    job["spec"]["template"]["metadata"].pop("labels")  # the operator's own, which have a prefix
    assert [*found(job["spec"]["template"], WORKER, RESTRICTION, path="")] == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--restricted",), "containers[0].envFrom[0].secretRef.name names the Secret checkpoints-s3"),
        (("--restricted", "--secret", "another"), "names the Secret checkpoints-s3"),
        (("--secret", "checkpoints-s3"), "--secret needs --restricted"),
    ],
    ids=["restricted", "another Secret", "a Secret alone"],
)
def test_validate_judges_as_a_restricted_cluster(
    arguments: tuple[str, ...],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What a cluster allows cannot be known here, so a person says it."""
    template = trial(envFrom=[{"secretRef": {"name": "checkpoints-s3"}}])
    file = tmp_path / "digits.json"
    file.write_text(json.dumps(a_manifest(trial=DIGITS_TRIAL | {"podTemplate": template})))
    code, _, said = Tuningstudy(monkeypatch, capsys)("validate", str(file), *arguments)
    assert code == 2
    assert words in " ".join(said.split())
