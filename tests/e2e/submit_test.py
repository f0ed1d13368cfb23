"""From laptop to cluster, as the user guide has it: a folder, `kubectl tuningstudy`, a real kubelet, real images."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import urllib3
import yaml
from cluster import release
from cluster.kubectl import Kubectl
from tests.support import packaged_model
from tests.support.builders import a_manifest
from tests.support.installed import Installed, namespace_of_its_own

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
BY_THE_API_SERVER = f"--operator-namespace={release.NAMESPACE}"


@dataclass(frozen=True)
class Submitted:
    """A study that was submitted from a folder and watched to its end."""

    kubectl: Kubectl
    namespace: str
    home: Path
    said: "subprocess.CompletedProcess[str]"

    def __call__(self, command: str, *options: str) -> str:
        """`kubectl tuningstudy COMMAND slope`; what it prints."""
        done = plugin(command, "slope", *options, f"--namespace={self.namespace}", *self.kubectl.flags)
        assert done.returncode == 0, done.stderr
        return done.stdout


def plugin(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """`kubectl tuningstudy`: kubectl finds it on the PATH, and takes flags only behind its name."""
    return Kubectl().run("tuningstudy", *arguments)


@pytest.fixture(scope="module")
def submitted(installed: Installed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Submitted]:
    """`kubectl tuningstudy submit slope.yaml --watch`, in a folder with a model of its own."""
    home = tmp_path_factory.mktemp("laptop")
    packaged_model.write(home)
    with pytest.MonkeyPatch.context() as patch, namespace_of_its_own(installed.kubectl) as namespace:
        patch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        manifest = a_manifest(name="slope", namespace=namespace) | {"spec": packaged_model.SPEC}
        (home / "slope.yaml").write_text(yaml.safe_dump(manifest))
        said = plugin("submit", str(home / "slope.yaml"), "--watch", *installed.kubectl.flags)
        yield Submitted(installed.kubectl, namespace, home, said)


def test_a_folder_that_no_image_has_is_trained(submitted: Submitted) -> None:
    """To its end, with its package and the module beside it; the code belongs to the study."""
    assert submitted.said.returncode == 0, submitted.said.stdout + submitted.said.stderr
    assert "packed 2 modules" in submitted.said.stderr
    assert "Complete: 3 of 3 trials done: 3 complete, 0 pruned, 0 failed" in submitted.said.stdout
    study = submitted.kubectl.get("tuningstudy", "slope", f"--namespace={submitted.namespace}")
    name = study["spec"]["trial"]["code"]["configMapName"]
    code = submitted.kubectl.get("configmap", name, f"--namespace={submitted.namespace}")
    assert [owner["uid"] for owner in code["metadata"]["ownerReferences"]] == [study["metadata"]["uid"]]


def test_the_plugin_reads_the_study(submitted: Submitted) -> None:
    """The best trial from the status, the others from the charts server: by its link, and by the API server."""
    best = json.loads(submitted("best", "--json"))
    assert 0.01 <= best["params"]["lr"] <= 0.5
    config = yaml.safe_load(submitted("best", "--config"))
    assert config["model"]["init_args"]["lr"] == pytest.approx(best["params"]["lr"])
    rows = submitted("trials", "--csv", BY_THE_API_SERVER).splitlines()
    assert len(rows) == 4
    assert rows[1 + best["trial"]].split(",")[2] == str(best["val_loss"])
    assert submitted("trials", "--csv").splitlines() == rows


def test_the_report_is_one_file(submitted: Submitted) -> None:
    """As the charts server makes it."""
    file = submitted.home / "report.html"
    assert submitted("report", f"--output={file}", BY_THE_API_SERVER) == f"{file}\n"
    page = file.read_text()
    assert "slope" in page
    assert page.rstrip().endswith("</html>")


def test_the_page_opens_by_the_api_server(submitted: Submitted) -> None:
    """`open` prints a link to this machine, which works for as long as the command runs."""
    where = [f"--namespace={submitted.namespace}", BY_THE_API_SERVER, *submitted.kubectl.flags]
    command = [sys.executable, "-m", "tuning_operator.cli", "open", "slope", "--no-browser", *where]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as opened:
        assert opened.stdout is not None
        try:
            link = opened.stdout.readline().strip()
            assert link.startswith("http://localhost:")
            page = urllib3.request("GET", link, timeout=60)
            assert (page.status, "slope" in page.data.decode()) == (200, True)
        finally:
            opened.terminate()


def test_a_trials_lines_are_found(submitted: Submitted) -> None:
    """From its claim to its end, and no other trial's."""
    lines = submitted("logs", "--trial=0").splitlines()
    assert "trial 0: lr=" in lines[0]
    assert "trial 0 complete: val_loss=" in lines[-1]
    assert not [line for line in lines if "trial 1" in line]
    assert len(submitted("logs").splitlines()) > len(lines)


def test_a_trial_that_no_pod_has_run_is_said_to_be_so(submitted: Submitted) -> None:
    """With the exit code 1."""
    done = plugin("logs", "slope", "--trial=99", f"--namespace={submitted.namespace}", *submitted.kubectl.flags)
    assert (done.returncode, done.stdout) == (1, "")
    assert "trial 99" in done.stderr
