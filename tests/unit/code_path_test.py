"""Where the modules beside a manifest are found, and that Python starts without them."""

from pathlib import Path

import pytest

from tuning_api.contract import Env
from tuning_operator.local import interpreter
from tuning_trial import code_path

STANDARD = ["/mine", "/usr/lib/python311.zip", "/usr/lib/python3.11", "/usr/lib/python3.11/lib-dynload"]


@pytest.mark.parametrize(
    "installed", [["/venv/lib/python3.11/site-packages", "/src"], ["/usr/lib/python3/dist-packages"], []]
)
def test_the_folder_is_behind_the_standard_library_and_before_what_is_installed(installed: list[str]) -> None:
    """A json.py of it is not Python's; a model.py of it is not a package that happens to be there."""
    path = [*STANDARD, *installed]
    environment = {Env.CODE.value: "/code", "PYTHONPATH": "/mine"}
    code_path.add(environment, path)
    assert path == [*STANDARD, "/code", *installed]
    assert environment == {"PYTHONPATH": "/code:/mine"}


def test_in_a_pod_nothing_is_added() -> None:
    """There the code is on PYTHONPATH."""
    path, environment = [*STANDARD], {"PYTHONPATH": "/code"}
    code_path.add(environment, path)
    assert (path, environment) == (STANDARD, {"PYTHONPATH": "/code"})


def test_python_starts_without_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In whichever way PYTHONPATH names it; what else the person has set holds, from where the command was called."""
    (tmp_path / "link").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    inherited = {"HOME": "/home/me", "PYTHONPATH": f":/mine:.::{tmp_path}:link:src"}
    assert interpreter.environment(tmp_path, inherited) == {
        "HOME": "/home/me",
        "PYTHONPATH": f"/mine:{tmp_path}/src",
        Env.CODE.value: str(tmp_path),
    }
    assert interpreter.environment(tmp_path, {"PYTHONPATH": ":."}) == {Env.CODE.value: str(tmp_path)}
    assert "-P" in interpreter.COMMAND
