"""Rules of the house that no other tool checks."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_the_source_roots_are_no_packages() -> None:
    """`operator/__init__.py` would shadow the standard library's module of that name, and Python itself would not start."""
    assert not (ROOT / "operator" / "__init__.py").exists()
    assert not (ROOT / "trial_image" / "__init__.py").exists()
    subprocess.run([sys.executable, "-c", "import collections"], cwd=ROOT, check=True)


@pytest.mark.parametrize("file", sorted((ROOT / "requirements").glob("*.txt")), ids=lambda path: path.name)
def test_dependencies_are_pinned_by_hash_and_name_no_host(file: Path) -> None:
    """A lock file says what, not from where."""
    text = file.read_text()
    pinned = re.findall(r"^([A-Za-z0-9._-]+)==", text, re.MULTILINE)
    assert pinned
    assert text.count("--hash=sha256:") >= len(pinned)
    assert "://" not in text


@pytest.mark.parametrize("name", ["lightning"])
def test_a_compromised_package_is_never_installed(name: str) -> None:
    """The releases 2.6.2 and 2.6.3 of `lightning` were; pytorch-lightning is what we use."""
    for file in (ROOT / "requirements").glob("*.txt"):
        assert not re.search(rf"^{name}==", file.read_text(), re.MULTILINE)


def test_one_version_everywhere() -> None:
    """The chart's default images carry the project's version."""
    chart = yaml.safe_load((ROOT / "charts" / "tuningstudy-operator" / "Chart.yaml").read_text())
    assert chart["appVersion"] == PROJECT["project"]["version"]


def test_every_make_target_that_documents_name_exists() -> None:
    """A command in a document that does not work is worse than none."""
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    documents = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    named = {
        (path.name, target)
        for path in documents
        for target in re.findall(r"\bmake (?:-s )?([a-z][a-z0-9-]*)\b", "\n".join(_code(path.read_text())))
    }
    assert not {(file, target) for file, target in named if target not in targets}


def test_links_between_documents_lead_somewhere() -> None:
    """Relative links only; the others cannot be checked here."""
    links = [
        (path, link)
        for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text())
    ]
    assert not [f"{path.name}: {link}" for path, link in links if not (path.parent / link).exists()]


def _code(text: str) -> list[str]:
    """Code blocks and inline code."""
    return re.findall(r"```.*?```|`[^`\n]+`", text, re.DOTALL)


_CONFLICT = re.compile(r"^(<{7} |>{7} |={7}$)", re.MULTILINE)


def test_no_file_has_the_marks_of_a_merge() -> None:
    """They read as text, and have been committed once."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    texts = [ROOT / name for name in listed.split("\0") if Path(name).suffix in _TEXTS]
    assert len(texts) > 100
    assert not [str(path.relative_to(ROOT)) for path in texts if path.exists() and _CONFLICT.search(path.read_text())]


_TEXTS = {".md", ".py", ".yaml", ".yml", ".toml", ".json", ".tpl", ".txt", ".html", ".css", ".sh", ".go"}


def test_every_row_of_the_security_page_names_its_test() -> None:
    """What no test shows is not claimed; what can be done all the same stands in its list, not in a table."""
    rows = [
        line.strip().strip("|").split("|")
        for line in (ROOT / "docs" / "security.md").read_text().splitlines()
        if line.startswith("| ") and not line.startswith(("| ---", "| What"))
    ]
    assert len(rows) > 40
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("*_test.py"))
    named = [(row[0].strip(), re.findall(r"`([a-z0-9_]+)`", row[-1])) for row in rows]
    assert not [what for what, names in named if not names]
    assert not [(what, name) for what, names in named for name in names if f"def test_{name}(" not in tests]
