"""The whole system in seconds.

A real API server and Job controller, a real Postgres, the operator with the chart's own rights, and workers as local
processes. What a user does with kubectl is done here with kubectl.
"""

from collections.abc import Iterator
from typing import Any

import optuna
import pytest
from cluster.control_plane import ControlPlane
from cluster.kubectl import Kubectl
from optuna.storages import RDBStorage
from sqlalchemy.engine import URL
from tests.support.builders import DIGITS_TRIAL
from tests.support.operator_process import OperatorProcess
from tests.support.process_kubelet import ProcessKubelet
from tests.support.study_on_cluster import TRIAL_SECONDS, StudyOnCluster, slow
from tests.support.tenancy import worker_url
from tests.support.wait import wait_until

Document = dict[str, Any]
UNPULLABLE = "registry.example/missing:1"


@pytest.fixture(scope="module")
def kubelet(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessKubelet]:
    """Runs pods as processes."""
    with ProcessKubelet(
        control_plane.kubeconfig, tmp_path_factory.mktemp("pods"), unpullable=frozenset({UNPULLABLE})
    ) as kubelet:
        yield kubelet


def rows(study: StudyOnCluster, database: URL) -> list[optuna.trial.FrozenTrial]:
    """Its trials, read with the worker's role."""
    url = worker_url(database, study.namespace, uid=study.namespace_uid)
    storage = RDBStorage(url.render_as_string(hide_password=False), skip_table_creation=True)
    return optuna.load_study(study_name=study.name, storage=storage).get_trials(deepcopy=False)


@pytest.fixture
def study(kubectl: Kubectl, namespace: str, kubelet: ProcessKubelet, operator: OperatorProcess) -> StudyOnCluster:
    """A study that is not applied yet, on a running system."""
    assert kubelet.gpus > 0
    assert operator.metrics()
    return StudyOnCluster(kubectl, namespace)


def test_from_apply_to_best_parameters(study: StudyOnCluster, kubectl: Kubectl, database: URL) -> None:
    """The product, in one test: exactly the budget, best parameters, links, and kubectl's own words for it."""
    study.apply(maxTrials=12, parallelism=2)
    kubectl("wait", "--for=condition=Complete", "tuningstudy/digits", "-n", study.namespace, "--timeout=150s")
    status = study.status()
    assert (status["trials"]["finished"], status["trials"]["total"], status["trials"]["running"]) == (12, 12, 0)
    assert len(rows(study, database)) == 12
    assert status["best"]["value"] == max(trial.value or 0.0 for trial in rows(study, database))
    assert {"learning_rate", "hidden_dim"} == set(status["best"]["params"])
    assert status["charts"]["slice"].startswith(f"https://charts.example/studies/{study.namespace}/digits/")
    table = kubectl("get", "tuningstudies", "-n", study.namespace)
    assert table.splitlines()[0].split() == ["NAME", "PHASE", "TRIALS", "RUNNING", "PRUNED", "FAILED", "BEST", "AGE"]
    assert "12/12" in table
    explained = kubectl("explain", "tuningstudy.spec.searchSpace")
    assert "Sample on a logarithmic scale" in explained


def test_raising_the_budget_of_a_complete_study_goes_on(study: StudyOnCluster) -> None:
    """Exact again, and the earlier trials count."""
    study.apply(maxTrials=2, parallelism=1)
    study.wait_for("Complete")
    study.patch(maxTrials=4)
    status = wait_until(
        study.status,
        lambda status: status.get("progress") == "4/4" and status["phase"] == "Complete",
        seconds=TRIAL_SECONDS,
        what="4/4",
    )
    assert status["trials"]["finished"] == 4


def test_a_killed_worker_loses_no_trial(study: StudyOnCluster, kubelet: ProcessKubelet) -> None:
    """The trial goes on elsewhere with the same parameters, and counts once."""
    study.apply(maxTrials=2, parallelism=1, **slow())
    study.wait_for_trials("running", 1)
    kubelet.kill(study.pods()[0]["metadata"]["uid"])
    status = study.wait_for_trials("retried", 1)
    assert status["trials"]["finished"] == 0
    study.wait_for_trials("running", 1)


def test_suspend_and_resume(study: StudyOnCluster) -> None:
    """Suspend stops all workers and keeps everything; resume goes on."""
    study.apply(maxTrials=3, parallelism=2, **slow())
    study.wait_for_trials("running", 2)
    study.patch(suspend=True)
    study.wait_for("Suspended")
    wait_until(study.pods, lambda pods: not pods, seconds=60, what="no pod is left")
    wait_until(study.status, lambda status: status["trials"]["running"] == 0, seconds=30, what="no trial is running")
    study.patch(suspend=False)
    status = study.wait_for_trials("running", 2)
    assert status["trials"]["retried"] >= 2


def test_scale_up_and_down(study: StudyOnCluster, kubectl: Kubectl) -> None:
    """`kubectl scale` is parallelism."""
    study.apply(maxTrials=20, parallelism=1, **slow())
    study.wait_for_trials("running", 1)
    kubectl("scale", "tuningstudy/digits", "-n", study.namespace, "--replicas=3")
    study.wait_for_trials("running", 3)
    kubectl("scale", "tuningstudy/digits", "-n", study.namespace, "--replicas=1")
    wait_until(study.pods, lambda pods: len(pods) == 1, seconds=60, what="one pod is left")


def test_delete_while_running_and_create_again_resumes(study: StudyOnCluster, database: URL) -> None:
    """Retain: pods go, rows stay, and a resource of the same name goes on with them."""
    study.apply(maxTrials=4, parallelism=1)
    study.wait_for_trials("finished", 1)
    study.delete()
    wait_until(study.pods, lambda pods: not pods, seconds=60, what="no pod is left")
    before = len(rows(study, database))
    study.apply(maxTrials=4, parallelism=1)
    status = study.wait_for("Complete")
    assert status["trials"]["finished"] == 4
    assert before <= len(rows(study, database))


def test_deleting_with_policy_delete_leaves_no_rows(study: StudyOnCluster, database: URL) -> None:
    """The other policy."""
    study.apply(maxTrials=1, parallelism=1, deletionPolicy="Delete")
    study.wait_for("Complete")
    study.delete()
    with pytest.raises(KeyError):
        rows(study, database)


def test_an_operator_that_was_killed_goes_on_where_it_was(study: StudyOnCluster, operator: OperatorProcess) -> None:
    """For the user nothing changes."""
    study.apply(maxTrials=8, parallelism=2)
    study.wait_for_trials("finished", 2)
    operator.kill()
    operator.start()
    status = study.wait_for("Complete")
    assert status["trials"]["finished"] == 8


def test_an_api_server_that_was_away_is_not_noticed_by_workers(
    study: StudyOnCluster, control_plane: ControlPlane
) -> None:
    """Workers know only the database; the operator waits and goes on."""
    study.apply(maxTrials=8, parallelism=2)
    study.wait_for_trials("finished", 1)
    control_plane.stop_apiserver()
    control_plane.start_apiserver()
    status = study.wait_for("Complete", seconds=200)
    assert status["trials"]["finished"] == 8


NOTHING_MOVES = {
    "more GPUs than there are": (
        {"trial": DIGITS_TRIAL | {"gpus": 64}},
        "PodUnschedulable",
        "Insufficient nvidia.com/gpu",
    ),
    "an image that cannot be pulled": (
        {"trial": DIGITS_TRIAL | {"image": UNPULLABLE}},
        "ImagePull",
        "cannot be pulled",
    ),
    "no workers wanted": ({"parallelism": 0}, "NoWorkersWanted", "parallelism is 0"),
    "a known good point that is none": (
        {"enqueue": [{"hidden_dim": 7}]},
        "InvalidSpec",
        "enqueue[0] gives hidden_dim the value 7, which is none of its choices (",
    ),
    "a placeholder that no parameter has": (
        {"trial": {"lightning": {"model": "${learning_rate} ${hidden_dim} ${depth}"}}},
        "InvalidSpec",
        "uses ${depth}, and searchSpace has no such parameter",
    ),
}


@pytest.mark.parametrize(("spec", "reason", "words"), NOTHING_MOVES.values(), ids=NOTHING_MOVES)
def test_it_says_why_nothing_moves(study: StudyOnCluster, spec: Document, reason: str, words: str) -> None:
    """The cause, in the words of whoever knows it, within seconds."""
    study.apply(**spec)
    assert words in study.wait_for_reason(reason)


def test_a_quota_is_named(study: StudyOnCluster, kubectl: Kubectl) -> None:
    """The Job controller's event says it; nobody should have to look for it."""
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "team", "namespace": study.namespace},
        "spec": {"hard": {"pods": "0"}},
    }
    kubectl.apply(quota)
    study.apply(parallelism=1)
    assert "exceeded quota: team" in study.wait_for_reason("QuotaExceeded")


BAD_TRIALS = {
    "a class that does not exist": (
        {
            "lightning": {
                "model": {"class_path": "digits.Nope", "init_args": {"a": "${learning_rate}", "b": "${hidden_dim}"}}
            }
        },
        "InvalidConfig",
        "digits",
    ),
    "an argument that is misspelt": (
        {
            "lightning": DIGITS_TRIAL["lightning"]
            | {
                "model": {
                    "class_path": "tuning_trial.examples.digits.DigitsClassifier",
                    "init_args": {"hiden_dim": "${hidden_dim}"},
                }
            }
        },
        "InvalidConfig",
        "did you mean 'hidden_dim'?",
    ),
}


@pytest.mark.parametrize(("trial", "reason", "words"), BAD_TRIALS.values(), ids=BAD_TRIALS)
def test_trials_that_cannot_run_fail_with_the_cause_and_stop(
    study: StudyOnCluster, trial: Document, reason: str, words: str
) -> None:
    """Never a traceback as the only answer, never a hot loop."""
    study.apply(maxTrials=30, maxFailedTrials=3, parallelism=1, trial=trial)
    status = study.wait_for("Failed")
    assert "3 trials have failed and maxFailedTrials is 3" in status["message"]
    assert reason in status["message"]
    assert words in status["message"]


def test_a_metric_that_is_never_logged_is_named_with_those_that_are(study: StudyOnCluster) -> None:
    """A typo must not mean 'never prunes' in silence."""
    study.apply(maxFailedTrials=1, objectives=[{"metric": "val_accuracy", "direction": "maximize"}])
    message = str(study.wait_for("Failed")["message"])
    assert "val_accuracy" in message
    assert "val_acc, val_loss" in message or "val_loss" in message


def test_one_broken_study_does_not_keep_others_from_being_served(
    study: StudyOnCluster, kubectl: Kubectl, namespace: str
) -> None:
    """Katib's controller stops listing all when one object does not parse."""
    broken = StudyOnCluster(kubectl, namespace, "broken")
    broken.apply(trial={"lightning": {"model": "${nothing}"}})
    broken.wait_for_reason("InvalidSpec")
    study.apply(maxTrials=1, parallelism=1)
    study.wait_for("Complete")


def test_namesakes_in_two_namespaces_do_not_meet(study: StudyOnCluster, kubectl: Kubectl, database: URL) -> None:
    """Two schemas, two roles, two results."""
    kubectl("create", "namespace", "twin")
    twin = StudyOnCluster(kubectl, "twin")
    study.apply(maxTrials=1, parallelism=1)
    twin.apply(maxTrials=2, parallelism=1)
    study.wait_for("Complete")
    twin.wait_for("Complete")
    assert (len(rows(study, database)), len(rows(twin, database))) == (1, 2)
    twin.delete()
