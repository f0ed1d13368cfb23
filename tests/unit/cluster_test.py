"""The cluster's own parts that need no cluster: processes, programs, layers, the demonstration's words."""

import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from cluster import binaries, demo, engines, folders, images, layers, prerequisites, release
from cluster.__main__ import app
from cluster.binaries import BuildError, Program
from cluster.engines import Image
from cluster.machine import Machine
from cluster.processes import ProcessEndedError, Processes, identify
from typer.testing import CliRunner


def test_a_process_is_told_from_another_that_gets_its_id() -> None:
    """An id alone is handed out again; with its start time and the boot it is unique."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    process = identify(child.pid)
    assert process is not None
    assert process.is_alive()
    process.kill()
    child.wait()
    assert not process.is_alive()
    assert identify(child.pid) is None


def test_whoever_comes_later_finds_and_ends_the_processes(tmp_path: Path) -> None:
    """`up` and `down` are two processes."""
    command = [sys.executable, "-c", "import time; print('begun', flush=True); time.sleep(600)"]
    first = Processes(tmp_path, die_with_parent=False)
    first.start("sleeper", command)
    later = Processes(tmp_path, die_with_parent=False)
    process = later.find("sleeper")
    assert process is not None
    later.stop_all()
    assert (later.names(), process.is_alive()) == ([], False)
    first.stop("sleeper")  # its parent reaps it


def test_a_part_that_ended_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    """Nobody should have to look for the log first."""
    processes = Processes(tmp_path, die_with_parent=False)
    processes.start("part", [sys.executable, "-c", "import time; print('no such flag', flush=True); time.sleep(0.2)"])
    processes._children["part"].wait(30)
    with pytest.raises(ProcessEndedError, match="no such flag"):
        processes.check_alive("part")
    processes.stop_all()


def test_a_build_is_whole_or_not_at_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A build that broke off leaves nothing that the next one would take for the program."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    outcomes = iter([BuildError("no network"), None])

    def build(folder: Path) -> None:
        (folder / "half").touch()
        if error := next(outcomes):
            raise error
        (folder / "program").touch()

    program = Program("a program", "program-1", 0, build)
    with pytest.raises(BuildError):
        program.ensure()
    assert not program.is_cached()
    assert sorted(path.name for path in program.ensure().iterdir()) == ["half", "program"]


def an_image_in_a_layout(folder: Path, name: str, *, layer: bytes) -> None:
    """An image of one layer, after an earlier one that lost its name."""

    def blob(content: bytes) -> dict[str, Any]:
        digest = str(len(list((folder / "blobs/sha256").glob("*"))))
        (folder / "blobs/sha256" / digest).write_bytes(content)
        return {"mediaType": "application/octet-stream", "digest": f"sha256:{digest}", "size": len(content)}

    (folder / "blobs/sha256").mkdir(parents=True)
    manifest = {"layers": [blob(layer)], "config": blob(b"{}")}
    entry = blob(json.dumps(manifest).encode())
    named = entry | {"annotations": {"org.opencontainers.image.ref.name": name}}
    (folder / "index.json").write_text(json.dumps({"manifests": [entry, named]}))


@pytest.mark.parametrize(("is_moved_again", "files"), [(False, 5), (True, 4)])
def test_a_layer_that_the_node_has_is_not_moved_again(tmp_path: Path, *, is_moved_again: bool, files: int) -> None:
    """A hollow file of the same length stands for it, and takes no space."""
    an_image_in_a_layout(tmp_path, "localhost/trial:dev", layer=b"x" * 2_000_000)
    manifest = layers._manifest(tmp_path, "localhost/trial:dev")
    layer = layers._blob(tmp_path, manifest["content"]["layers"][0])
    if is_moved_again:
        layers._hollow_out(layer)
        assert layer.stat().st_size == 2_000_000
    archive = io.BytesIO()
    layers._write_archive(archive, tmp_path, "localhost/trial:dev", manifest)
    with tarfile.open(fileobj=io.BytesIO(archive.getvalue())) as written:
        assert len(written.getnames()) == files


STATUSES = {
    "nothing yet": ({}, ""),
    "running": (
        {"trials": {"running": 2, "pruned": 1, "failed": 0}, "best": {"display": "0.97"}},
        "best 0.97, 2 running, 1 pruned, 0 failed",
    ),
    "stuck": (
        {
            "phase": "Pending",
            "trials": {"running": 0, "pruned": 0, "failed": 0},
            "conditions": [{"type": "Progressing", "status": "False", "message": "no node fits"}],
        },
        "0 running, 0 pruned, 0 failed, no node fits",
    ),
}


@pytest.mark.parametrize(("status", "words"), STATUSES.values(), ids=STATUSES)
def test_the_demonstration_says_how_a_study_stands(status: dict[str, Any], words: str) -> None:
    """And why nothing moves, when nothing does."""
    assert demo.summary(status) == words


def test_pods_start_again_when_their_image_has_the_old_name_and_a_new_content() -> None:
    """A Deployment that did not change restarts nothing."""
    first, second = (release.values_for_node({images.OPERATOR: image_id}) for image_id in ("a", "b"))
    assert {path for path in first if first[path] != second[path]} == {
        "operator.podAnnotations.image-id",
        "charts.podAnnotations.image-id",
    }


def test_a_pinned_base_is_that_of_the_projects_own_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Postgres stands on another one."""
    bases: dict[str, str | None] = {}
    monkeypatch.setattr(images, "build", lambda _, image, *, base: bases.update({image.name: base}))
    monkeypatch.setattr(engines, "find_engine", lambda: None)
    monkeypatch.setattr(Machine, "is_running", lambda _: False)
    pinned = "python:3.11-slim@sha256:" + "0" * 64
    assert CliRunner().invoke(app, ["images", "--base-image", pinned]).exit_code == 0
    assert bases == {images.OPERATOR.name: pinned, images.TRIAL.name: pinned, images.POSTGRES.name: None}


def test_a_cluster_of_the_users_gets_the_images_of_its_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `make images REGISTRY=... PUSH=1` pushed."""
    monkeypatch.setenv(release.REGISTRY_VARIABLE, "registry.example/team/")
    values = release.values_for_context()
    assert (values["image.repository"], values["image.tag"]) == ("registry.example/team/tuningstudy-operator", "dev")


def test_a_name_in_a_registry_keeps_its_tag() -> None:
    """localhost/NAME:TAG is how it is called here."""
    image = Image("localhost/tuningstudy-trial:dev", Path(), Path("Dockerfile"))
    assert images.name_in("ghcr.io/me", image) == "ghcr.io/me/tuningstudy-trial:dev"


def test_what_is_missing_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And with the command that brings it."""
    monkeypatch.setattr(prerequisites.os, "geteuid", lambda: 1000)
    packages = {str(tmp_path / "absent"): "some-package", sys.executable: "python3"}
    assert prerequisites.missing_packages(packages) == ["some-package"]
    with pytest.raises(prerequisites.PrerequisiteError, match=r"as root: apt-get install .* some-package"):
        prerequisites.install(packages)


def test_costly_things_lie_in_the_cache_and_never_in_the_checkout(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`git clean` costs no builds, and two checkouts share them."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for folder in (folders.cache(), folders.state(), binaries.KUBERNETES.folder):
        assert folder.is_relative_to(tmp_path)
        assert not folder.is_relative_to(folders.REPOSITORY)
