"""Nothing is lost: an upgrade, an uninstall and the loss of everything, each in the middle of a study, on a real kubelet."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import binaries, release
from cluster.kubectl import Kubectl
from tests.support import before, documents
from tests.support.held_study import HeldStudy
from tests.support.installed import Installed, namespace_of_its_own

from tuning_api import naming
from tuning_api.crd import crd

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

SYSTEM = f"--namespace={release.NAMESPACE}"
SECRET = "tuningstudy-operator-secrets"
POSTGRES = "statefulset/tuningstudy-operator-postgresql"
BACKUP, RESTORE = "Backup", "Restore"
"""Headings of docs/operations.md."""


@pytest.fixture
def release_of_the_tests(installed: Installed) -> Iterator[Installed]:
    """The release, which the test may remove; afterwards it is there again, as the other tests need it."""
    if installed.node is None:
        pytest.skip("the release of a cluster of yours, and its data, may be wanted")
    yield installed
    release.install(installed.kubectl, values=installed.values)


@pytest.fixture
def study(research: str, release_of_the_tests: Installed) -> HeldStudy:
    """A study that is not applied yet, whose trials end when the test says so."""
    return HeldStudy(release_of_the_tests.kubectl, research)


def test_an_upgrade_in_the_middle_of_a_study(study: HeldStudy, release_of_the_tests: Installed, tmp_path: Path) -> None:
    """From the version before: its rows and its trials go on, under today's CRD, rules and names.

    docs/adr/0022 says which version that is. The release is brought back to it first; the studies, their namespaces' schemas
    and all that is in them are then the old operator's work. One namespace has a name that it cut.
    """
    node, kubectl = release_of_the_tests.node, release_of_the_tests.kubectl
    assert node is not None
    old = before.unpack(tmp_path)
    before.bring(old, node.machine)
    release.install(kubectl, values=release_of_the_tests.values | old.values, chart=old.chart)
    study.apply(maxTrials=4, parallelism=1)
    half_way(study)
    (worker,) = study.pods()
    assert worker["spec"]["containers"][0]["image"].endswith(f":{before.TAG}")
    status, keys = study.status(), kubectl.get("secret", SECRET, SYSTEM)["data"]
    with namespace_of_its_own(kubectl, "a-namespace-whose-name-is-longer-than-postgres-takes") as cut:
        of_cut_name = HeldStudy(kubectl, cut)
        of_cut_name.apply(maxTrials=3, parallelism=1)
        best = half_way(of_cut_name)["best"]

        release.install(kubectl, values=release_of_the_tests.values)

        of_cut_name.patch(parallelism=2)
        assert of_cut_name.wait_for_trials("running", 1)["best"] == best
        trials = of_cut_name.finish()["trials"]
        assert (trials["complete"], trials["failed"]) == (3, 0)
    assert kubectl.get("secret", SECRET, SYSTEM)["data"].items() >= keys.items()
    assert kubectl.get("crd", crd()["metadata"]["name"])["spec"]["versions"] == crd()["spec"]["versions"]
    study.patch(parallelism=2)
    assert study.wait_for_trials("running", 2)["best"] == status["best"]
    with namespace_of_its_own(kubectl) as fresh:
        new = HeldStudy(kubectl, fresh)
        new.apply(maxTrials=1, suspend=True)
        new.wait_for("Suspended")
        assert schema_of(kubectl, study.namespace) == schema_of(kubectl, fresh)
    trials = study.finish()["trials"]
    # NB: passwords are others since this version: a worker of before that needs a connection leaves, once.
    assert (trials["complete"], trials["failed"], trials["retried"] <= 1) == (4, 0, True)


def test_a_study_goes_on_after_uninstall_and_install(study: HeldStudy, release_of_the_tests: Installed) -> None:
    """The CRD, the Secret and the volume claim stay; the worker waits for its database, and never learns of the rest."""
    kubectl = release_of_the_tests.kubectl
    study.apply(maxTrials=4, parallelism=1)
    half_way(study)
    (worker,) = study.pods()
    keys = kubectl.get("secret", SECRET, SYSTEM)["data"]

    release.uninstall(kubectl)
    release.install(kubectl, values=release_of_the_tests.values)

    assert kubectl.get("secret", SECRET, SYSTEM)["data"] == keys
    study.let_go()
    trials = study.wait_for("Complete")["trials"]
    assert (trials["complete"], trials["failed"], trials["retried"]) == (4, 0, 0)
    assert kubectl.items("pods", f"--namespace={study.namespace}")[0]["metadata"]["uid"] == worker["metadata"]["uid"]


def test_a_backup_brings_back_everything(study: HeldStudy, release_of_the_tests: Installed, tmp_path: Path) -> None:
    """By the commands of docs/operations.md: the release, its keys and its data are gone, and the study goes on."""
    kubectl = release_of_the_tests.kubectl
    study.apply(maxTrials=4, parallelism=1)
    best = half_way(study)["best"]
    (backup,) = documents.commands("operations.md", BACKUP)
    keys, data = documents.commands("operations.md", RESTORE)

    run(backup, kubectl, tmp_path)
    study.delete()
    release.uninstall(kubectl)
    kubectl("delete", "namespace", release.NAMESPACE, "--timeout=120s")
    run(keys, kubectl, tmp_path)
    release.install(kubectl, values=release_of_the_tests.values)
    run(data, kubectl, tmp_path)

    study.apply(maxTrials=4, parallelism=1)
    study.wait_for_trials("retried", 1)  # the one that ran when the dump was made
    status = study.wait_for_trials("running", 1)
    assert status["trials"]["complete"] == 2
    assert status["best"] == best
    study.let_go()
    trials = study.wait_for("Complete")["trials"]
    assert (trials["complete"], trials["failed"], trials["retried"]) == (4, 0, 1)


def half_way(study: HeldStudy) -> dict[str, object]:
    """Let two of a study's trials end; the status while the third runs."""
    study.wait_for_trials("running", 1)
    study.let_go(0, 1)
    study.wait_for_trials("complete", 2)
    return study.wait_for_trials("running", 1)


def schema_of(kubectl: Kubectl, namespace: str) -> list[str]:
    """Tables, rules and rights of a namespace's schema, as statements without its name."""
    name = naming.database_schema(namespace)
    dump = ["pg_dump", "--username=tuningstudy", "--schema-only", f"--schema={name}", "tuningstudy"]
    statements = kubectl("exec", POSTGRES, SYSTEM, "--", *dump)
    # NB: a token that is different each time (CVE-2025-8714), and the schema's owner.
    apart = r"^\\.*$|^COMMENT ON SCHEMA .*$"
    return sorted(re.sub(apart, "", statements.replace(name, "SCHEMA"), flags=re.MULTILINE).splitlines())


def run(script: str, kubectl: Kubectl, folder: Path) -> None:
    """Run commands as a person would, in a shell whose kubectl talks to the tests' cluster."""
    environment = os.environ | {
        "KUBECONFIG": str(kubectl.kubeconfig),
        "PATH": os.pathsep.join([str(binaries.KUBERNETES.ensure()), os.environ["PATH"]]),
    }
    command = ["bash", "-euo", "pipefail", "-c", script]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
