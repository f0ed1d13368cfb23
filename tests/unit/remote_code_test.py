"""A folder of code as a ConfigMap: what is taken along, and that Python can import it there."""

import base64
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some
from tests.support.builders import DIGITS_TRIAL, a_manifest, a_spec

from tuning_api import naming
from tuning_api.spec import Trial
from tuning_operator.cli.submit import which_code
from tuning_operator.local.errors import BadInputError
from tuning_operator.remote import code
from tuning_operator.remote.code import Folder, SourceFile

OWN = {
    "lightning": {"model": {"class_path": "mine.Model", "init_args": {"a": "${learning_rate}", "b": "${hidden_dim}"}}}
}


def a_trial(**changes: Any) -> Trial:
    return a_spec(trial=OWN | changes).trial


def a_folder(**files: str) -> Folder:
    """Modules by their names, `__` for a slash."""
    sources = [SourceFile(name.replace("__", "/") + ".py", text.encode()) for name, text in files.items()]
    return Folder(Path("project"), tuple(sources), others=0)


def write(folder: Path, *names: str) -> None:
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"NAME = {name!r}\n")


def test_modules_and_packages_are_taken_along_and_nothing_else(tmp_path: Path) -> None:
    """No secrets, no data, no caches, no virtual environment, no earlier study."""
    taken = ("layers/__init__.py", "layers/deep/attention.py", "mine.py")
    write(tmp_path, *taken, "data.csv", "notes.ipynb", ".env", ".hidden.py", ".git/hook.py", ".tuningstudy/x/a.py")
    write(tmp_path, "layers/__pycache__/mine.py", "venv/pyvenv.cfg", "venv/lib/torch.py", "mine.pyc")
    folder = code.read_folder(tmp_path)
    assert tuple(file.name for file in folder.files) == taken
    assert folder.others == 3
    assert folder.modules == {"mine", "layers"}


def test_python_imports_packages_from_the_archive(tmp_path: Path) -> None:
    """Modules, packages, and packages without __init__.py, at any depth."""
    write(tmp_path, "mine.py", "layers/__init__.py", "layers/attention.py", "plain/deep/block.py")
    archive = tmp_path / "code.zip"
    archive.write_bytes(code.archive(code.read_folder(tmp_path)))
    names = ("mine", "layers.attention", "plain.deep.block")
    program = f"import importlib; print([importlib.import_module(name).NAME for name in {names!r}])"
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path / 'nothing'}{os.pathsep}{archive}"}
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, env=environment, cwd="/", capture_output=True, text=True
    )
    assert done.stdout.strip() == "['mine.py', 'layers/attention.py', 'plain/deep/block.py']", done.stderr


@given(some.dictionaries(some.from_regex(r"[a-z]{1,8}(__[a-z]{1,8})?", fullmatch=True), some.text(), min_size=1))
def test_the_same_code_has_the_same_name_and_other_code_another(files: dict[str, str]) -> None:
    """The name is what keeps a running study's code from changing under it."""

    def name(**sources: str) -> str:
        return naming.code_config_map(study="digits", archive=code.archive(a_folder(**sources)))

    assert name(**files) == name(**files)
    assert name(**files) != name(**files, another_one="")


@pytest.mark.parametrize("study", ["a", "b" * 63])
def test_a_config_maps_name_fits_the_manifest(study: str) -> None:
    """spec.trial.code takes 63 characters; two studies with long names do not meet."""
    name = naming.code_config_map(study=study, archive=b"code")
    assert len(name) <= 63
    assert name != naming.code_config_map(study=study[:-1] + "c", archive=b"code")
    Trial.model_validate(OWN | {"code": {"configMapName": name}})


def test_code_that_a_config_map_cannot_hold_is_refused_with_its_largest_files() -> None:
    """Before anything is made, and with the way out."""
    noise = base64.b64encode(os.urandom(1_500_000)).decode()
    with pytest.raises(BadInputError) as refused:
        code.archive(a_folder(mine="a = 1", weights=noise))
    assert "a ConfigMap holds 1 MiB; the largest files are weights.py (1.9 MiB), mine.py (5 B)" in str(refused.value)
    assert "build an image with the code and set spec.trial.image" in str(refused.value)


def test_a_home_directory_is_not_taken_along(tmp_path: Path) -> None:
    """Who keeps the manifest there is told to name the folder."""
    write(tmp_path, *(f"m{number}.py" for number in range(code.MOST_FILES + 1)))
    with pytest.raises(BadInputError, match="more than 1000 modules: name the folder of your model by --code"):
        code.read_folder(tmp_path)


def linked(path: str) -> Callable[[Path], object]:
    return lambda file: file.symlink_to(path)


HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a link out": (linked("../secret"), "is a link to a file that is not taken along by itself"),
    "an absolute link": (linked("/etc/passwd"), "is a link to a file that is not taken along by itself"),
    "a link to what is hidden here": (linked(".env"), "is a link to a file that is not taken along by itself"),
    "a link to what is no module": (linked("notes.txt"), "is a link to a file that is not taken along by itself"),
    "a link past a folder's link": (linked("up/secret"), "is a link to a file that is not taken along by itself"),
    "a link to a link": (linked("other.txt"), "is a link to a file that is not taken along by itself"),
    "a link to nothing": (linked("nothing"), "cannot be read: No such file or directory"),
    "a link to itself": (linked("x.py"), "cannot be read: Too many levels of symbolic links"),
    "a link to a device": (linked("/dev/zero"), "cannot be read: it is a device, not a file"),
    "a link to a folder": (linked(".."), "cannot be read: Is a directory"),
    "a pipe": (os.mkfifo, "cannot be read: it is a pipe, not a file"),
    "a file larger than memory": (
        lambda file: (file.touch(), os.truncate(file, 1 << 42)),
        "the modules of . have more than 16.0 MiB: name a smaller one by --code",
    ),
}


@pytest.mark.parametrize(("make", "words"), HOSTILE.values(), ids=HOSTILE)
def test_a_folder_of_somebody_else_takes_along_nothing_but_its_modules(
    make: Callable[[Path], object], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its code, which runs in the pod, would read a person's key out of the archive; pipes hang, devices have no end."""
    here = tmp_path / "here"
    write(here, "mine.py", ".env", "notes.txt")
    write(tmp_path, "secret")
    monkeypatch.chdir(here)
    Path("up").symlink_to("..")
    Path("other.txt").symlink_to("../secret")
    make(Path("x.py"))
    with pytest.raises(BadInputError) as refused:
        code.read_folder(Path())
    assert str(refused.value).startswith(f"x.py: {words}")


def test_a_link_to_a_module_beside_it_is_taken_along(tmp_path: Path) -> None:
    """What it leads to is, too."""
    write(tmp_path, "real.py", "package/__init__.py")
    (tmp_path / "package" / "link.py").symlink_to("../real.py")
    files = {file.name: file.content for file in code.read_folder(tmp_path).files}
    assert files["package/link.py"] == files["real.py"]


def test_all_modules_together_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes are asked before anything is read."""
    monkeypatch.setattr(code, "LARGEST_SOURCE", 20)
    write(tmp_path, "a.py", "b.py")
    with pytest.raises(BadInputError, match="have more than 20 B: name a smaller one by --code"):
        code.read_folder(tmp_path)


def test_a_folder_without_an_end_is_not_walked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither down nor along; Python's own walk calls itself for each level."""
    deep = tmp_path / "deep"
    write(deep, "/".join(["d"] * 60) + "/x.py")
    with pytest.raises(
        BadInputError, match="has folders more than 50 levels deep: name the folder of your model by --code"
    ):
        code.read_folder(deep)
    monkeypatch.setattr(code, "MOST_ITEMS", 10)
    write(tmp_path, *(f"data{number}.csv" for number in range(11)))
    with pytest.raises(BadInputError, match="has more than 10 files and folders: name the folder of your model"):
        code.read_folder(tmp_path)


@pytest.mark.parametrize("name", [b"a\nb.py", b"\xff.py", b"a\x1b[31m.py"])
def test_a_name_that_cannot_be_written_is_refused(name: bytes, tmp_path: Path) -> None:
    """No text has it, and no line that lists it."""
    Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), name))).touch()  # noqa: PTH118 - bytes
    with pytest.raises(BadInputError, match="cannot be written: rename that module"):
        code.read_folder(tmp_path)


def test_the_config_map_belongs_to_its_study_and_never_changes() -> None:
    """It goes with the study; and what it holds is the archive."""
    packed = code.archive(a_folder(mine="a = 1"))
    without = code.config_map(packed, study="digits", namespace="research", uid=None)
    owned = code.config_map(packed, study="digits", namespace="research", uid="1-2-3")
    assert "ownerReferences" not in without["metadata"]
    assert [owner["uid"] for owner in owned["metadata"]["ownerReferences"]] == ["1-2-3"]
    assert owned["immutable"] is True
    with zipfile.ZipFile(BytesIO(base64.b64decode(owned["binaryData"]["code.zip"]))) as archive:
        assert archive.read("mine.py") == b"a = 1"


def test_nothing_but_the_code_of_a_manifest_changes() -> None:
    """And the manifest that was read stays as it was."""
    manifest = a_manifest()
    changed = code.with_code(manifest, "digits-code-1")
    assert changed["spec"]["trial"].pop("code") == {"configMapName": "digits-code-1"}
    assert changed == manifest


@pytest.mark.parametrize(
    ("trial", "names"),
    [
        (OWN, ("mine",)),
        (DIGITS_TRIAL, ("tuning_trial", "torch")),
        ({"objective": "package.train:objective"}, ("package",)),
        (
            {
                "lightning": {
                    "model": {"class_path": "a.b.M", "init_args": {"heads": [{"class_path": "c.H"}]}},
                    "data": "x.y",
                }
            },
            ("a", "c"),
        ),
    ],
)
def test_the_modules_of_a_trial_are_those_of_its_classes(trial: dict[str, Any], names: tuple[str, ...]) -> None:
    """Wherever they stand in the configuration."""
    assert code.named_modules(Trial.model_validate(trial)) == names


WHY_NOT = {
    "code that is there already": ({"code": {"configMapName": "theirs"}}, "spec.trial.code names ConfigMap theirs"),
    "an image": ({"image": "mine:1"}, "spec.trial.image is given, and has it (mine:1)"),
    "modules of the image": (DIGITS_TRIAL, "tuning_trial, torch must be in the trial image"),
}


@pytest.mark.parametrize(("changes", "words"), WHY_NOT.values(), ids=WHY_NOT)
def test_no_code_is_packed_where_the_image_has_it(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    """And the person is told why."""
    write(tmp_path, "mine.py")
    folder, why = which_code(a_trial(**changes), beside=tmp_path, chosen=None)
    assert folder is None
    assert why.startswith(words)


def test_a_folder_that_a_person_names_is_packed_whatever_the_image_has(tmp_path: Path) -> None:
    """--code is meant."""
    write(tmp_path, "src/other.py")
    folder, _ = which_code(a_trial(image="mine:1"), beside=tmp_path, chosen=tmp_path / "src")
    assert folder is not None
    assert folder.modules == {"other"}


def test_a_folder_that_contradicts_the_manifest_is_refused(tmp_path: Path) -> None:
    """Two codes, an empty folder, or none at all."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInputError, match="names ConfigMap theirs already: remove it, or leave out --code"):
        which_code(a_trial(code={"configMapName": "theirs"}), beside=tmp_path, chosen=tmp_path)
    with pytest.raises(BadInputError, match="there is no module in it"):
        which_code(a_trial(), beside=tmp_path, chosen=tmp_path / "empty")
    with pytest.raises(BadInputError, match="there is no such folder"):
        which_code(a_trial(), beside=tmp_path, chosen=tmp_path / "none")
