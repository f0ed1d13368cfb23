"""What people do to a study that runs, on a real kubelet: each thing once, by kubectl."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster import release
from tests.support.installed import Installed
from tests.support.study_on_cluster import StudyOnCluster, slow
from tests.support.wait import wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

SAMPLES = Path(__file__).resolve().parent.parent.parent / "manifests" / "samples"
CPU = {"gpus": 0}


@pytest.fixture
def study(installed: Installed, research: str) -> StudyOnCluster:
    """A study that is not applied yet."""
    return StudyOnCluster(installed.kubectl, research)


def test_scale_suspend_kill_delete_and_resume(study: StudyOnCluster, installed: Installed) -> None:
    """One study through all of it: the budget stays exact and no trial is lost."""
    kubectl, namespace = installed.kubectl, f"--namespace={study.namespace}"
    study.apply(maxTrials=4, parallelism=1, **slow(**CPU))
    study.wait_for_trials("running", 1)

    kubectl("scale", "tuningstudy/digits", "--replicas=2", namespace)
    study.wait_for_trials("running", 2)

    kubectl("delete", "pod", study.pods()[0]["metadata"]["name"], namespace, "--wait=false")
    study.wait_for_trials("retried", 1)
    study.wait_for_trials("running", 2)

    study.patch(suspend=True)
    study.wait_for("Suspended")
    kubectl("wait", "--for=condition=Suspended", "tuningstudy/digits", namespace, "--timeout=30s")
    wait_until(study.pods, lambda pods: not pods, seconds=90, what="no pod is left")
    wait_until(study.status, lambda status: status["trials"]["running"] == 0, seconds=60, what="no trial is running")
    study.patch(suspend=False)
    status = study.wait_for_trials("running", 2)
    assert status["trials"]["finished"] == 0

    study.delete()
    wait_until(study.pods, lambda pods: not pods, seconds=90, what="no pod is left")
    study.apply(maxTrials=4, parallelism=2, **slow(**CPU))
    status = study.wait_for_trials("running", 2)
    assert status["trials"]["retried"] >= 3, "the study of the same name went on with the rows that it had"
    assert status["trials"]["running"] + status["trials"]["waiting"] + status["trials"]["finished"] == 4


def test_the_operator_may_be_replaced_in_the_middle(study: StudyOnCluster, installed: Installed) -> None:
    """A restart, as an upgrade or a drained node makes it, changes nothing for the user."""
    study.apply(maxTrials=6, parallelism=1, trial=_quick(), pruner={"type": "none"})
    study.wait_for_trials("finished", 1)
    system = f"--namespace={release.NAMESPACE}"
    installed.kubectl("delete", "pod", "--selector=app.kubernetes.io/component=operator", system, "--now")
    status = study.wait_for("Complete", seconds=240)
    assert (status["trials"]["finished"], status["trials"]["failed"]) == (6, 0)


def test_an_interrupted_trial_goes_on_at_its_last_epoch(study: StudyOnCluster, installed: Installed) -> None:
    """With checkpoints on a claim: the pod is deleted, and its successor says from where it goes on."""
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "checkpoints", "namespace": study.namespace},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    installed.kubectl("apply", "--filename=-", stdin=json.dumps(claim))
    study.apply(maxTrials=1, parallelism=1, **slow(**CPU, checkpoints={"persistentVolumeClaim": "checkpoints"}))

    def log() -> str:
        selector = "--selector=tuningstudy.io/study=digits"
        return installed.kubectl.run("logs", selector, "--tail=-1", f"--namespace={study.namespace}").stdout

    wait_until(log, lambda text: "epoch 5/" in text, seconds=120, what="five epochs")
    pod = study.pods()[0]["metadata"]["name"]
    installed.kubectl("delete", "pod", pod, f"--namespace={study.namespace}", "--timeout=100s")
    text = wait_until(log, lambda text: "val_acc" in text.partition("goes on after")[2], seconds=120, what="it goes on")
    resumed, following = re.findall(r"goes on after epoch (\d+).*?epoch (\d+)/", text, re.DOTALL)[0]
    assert int(resumed) >= 4
    assert int(following) == int(resumed) + 1


def test_the_reference_study_runs_on_a_slice_of_its_data(study: StudyOnCluster, installed: Installed) -> None:
    """The glosses manifest with its own ranges; less data and fewer epochs, for a CPU."""
    manifest: dict[str, Any] = yaml.safe_load((SAMPLES / "glosses.yaml").read_text())
    trial = manifest["spec"]["trial"]
    trial["gpus"] = 0
    trial["lightning"]["data"]["init_args"]["limit"] = 300
    trial["lightning"]["trainer"]["max_epochs"] = 2
    manifest["spec"] |= {"maxTrials": 2, "parallelism": 1}
    manifest["metadata"]["namespace"] = study.namespace
    assert installed.kubectl.apply(manifest).returncode == 0
    glosses = StudyOnCluster(installed.kubectl, study.namespace, "glosses")
    status = glosses.wait_for("Complete", seconds=400)
    assert (status["trials"]["finished"], status["trials"]["failed"]) == (2, 0)
    assert set(status["best"]["params"]) == {parameter["name"] for parameter in manifest["spec"]["searchSpace"]}


def test_a_limit_that_does_not_even_hold_the_imports_is_named(study: StudyOnCluster) -> None:
    """The kernel kills the worker before its first trial; the condition says what to raise."""
    hungry = {"spec": {"containers": [{"name": "trial", "resources": {"limits": {"memory": "150Mi"}}}]}}
    study.apply(maxTrials=2, maxFailedTrials=1, parallelism=1, trial=_quick(podTemplate=hungry))
    message = study.wait_for_reason("WorkersFailing", seconds=200)
    assert "killed for its memory (OOMKilled): raise the memory limit" in message


def _quick(**changes: Any) -> dict[str, Any]:
    spec: dict[str, Any] = slow(**CPU)["trial"]
    return spec | {"lightning": spec["lightning"] | {"trainer": {"max_epochs": 3}}} | changes
