"""What `tuningstudy` says: results of a study that was run, and one sentence for each mistake."""

import json
import logging
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from optuna.trial import TrialState, create_trial
from playwright.sync_api import Browser, expect
from sqlalchemy.engine import URL
from tests.support.builders import a_manifest
from tests.support.chart_studies import SPACE, TWO, a_search, a_search_of_two, a_search_spec

from tuning_api import contract
from tuning_api.status import Phase, StudyStatus
from tuning_operator.charts.figures import CHARTS
from tuning_operator.cli.__main__ import main
from tuning_operator.local.database import OneDatabase, sqlite_url
from tuning_operator.local.folder import StudyFolder
from tuning_operator.local.place import choose
from tuning_operator.studies import OptunaStudies

Document = dict[str, Any]
MILLISECONDS = 30_000


class Command:
    """The command in this process, in a folder of its own."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.home = home
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        monkeypatch.chdir(home)
        monkeypatch.delenv("TUNINGSTUDY_DATABASE", raising=False)
        # A test of the operator may have left a handler that writes to its own, closed, standard error.
        monkeypatch.setattr(logging.getLogger(), "handlers", [])

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, standard output and standard error."""
        self._monkeypatch.setattr(sys, "argv", ["tuningstudy", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        said = self._capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    @property
    def folder(self) -> StudyFolder:
        """The folder of study digits."""
        return StudyFolder.beside(self.home / "digits.yaml", "digits")

    def write(self, document: Document | None = None) -> None:
        """Write digits.yaml."""
        (self.home / "digits.yaml").write_text(yaml.safe_dump(document or a_manifest()))


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command, and a valid digits.yaml."""
    command = Command(tmp_path, monkeypatch, capsys)
    command.write()
    return command


@pytest.fixture
def finished(command: Command) -> Command:
    """A search of thirty trials, as a run leaves it."""
    spec = a_search_spec(maxTrials=30)
    command.write(a_manifest() | {"spec": spec.to_document()})
    place = choose(Path("digits.yaml"), database=None, folder=None)
    place.folder.create()
    place.remember()
    database = OneDatabase(place.database)
    studies = OptunaStudies(database)
    studies.open(place.key, spec)
    study = optuna.load_study(study_name="digits", storage=database.open("research"))
    study.add_trials([trial for trial in a_search(30, running=0) if trial.state.is_finished()])
    studies.save(place.key, status=StudyStatus(phase=Phase.COMPLETE, message="30 of 30 trials done"))
    database.open("research").engine.dispose()
    return command


def best_of(command: Command) -> Document:
    document: Document = json.loads(command("best", "digits", "--json")[1])
    return document


def test_the_best_trial_is_printed_for_people_and_programs(finished: Command) -> None:
    """By the study's name or by its manifest."""
    code, text, _ = finished("best", "digits")
    assert (code, yaml.safe_load(text)) == (0, best_of(finished))
    assert text.startswith(f"# trial {best_of(finished)['trial']} of study digits: val_acc = ")
    assert finished("best", "digits.yaml") == (code, text, "")
    assert set(best_of(finished)["params"]) == set(SPACE)


def test_the_configuration_with_the_best_values_is_ready_to_train(finished: Command) -> None:
    """Typed values, and no placeholder is left."""
    _, text, _ = finished("best", "digits", "--config")
    params = best_of(finished)["params"]
    assert yaml.safe_load(text) == {"model": {"class_path": "m.M", "init_args": params}}


def test_a_front_is_printed_and_one_of_it_is_chosen_by_its_number(command: Command) -> None:
    """With several objectives there is no single best configuration."""
    spec = a_search_spec(objectives=TWO)
    command.write(a_manifest() | {"spec": spec.to_document()})
    place = choose(Path("digits.yaml"), database=None, folder=None)
    place.folder.create()
    place.remember()
    database = OneDatabase(place.database)
    OptunaStudies(database).open(place.key, spec)
    study = optuna.load_study(study_name="digits", storage=database.open("research"))
    study.add_trials([trial for trial in a_search_of_two(30) if trial.state.is_finished()])
    front = {trial.number for trial in study.best_trials}
    database.open("research").engine.dispose()
    _, text, _ = command("best", "digits")
    assert text.startswith(f"# the Pareto front of study digits: {len(front)} trials (maximize val_acc, ")
    assert front == {item["trial"] for item in best_of(command)["front"]}
    code, _, said = command("best", "digits", "--config")
    assert (code, "choose one with --trial" in said) == (2, True)
    code, text, _ = command("best", "digits", "--trial", str(min(front)), "--config")
    assert (code, text.startswith(f"# trial {min(front)} of study digits: val_acc = ")) == (0, True)


def test_trials_are_listed_for_people_and_spreadsheets(finished: Command) -> None:
    """Best first for people, by number with full precision for programs."""
    _, table, _ = finished("trials", "digits")
    assert table.split("\n")[1].split()[0] == str(best_of(finished)["trial"])
    _, rows, _ = finished("trials", "digits", "--csv")
    assert len(rows.splitlines()) == 31
    assert str(best_of(finished)["params"]["learning_rate"]) in rows


def test_the_report_is_one_file_that_asks_nobody(finished: Command, chromium: Browser) -> None:
    """Four charts first, the table, and no request leaves the page: not even to its own folder."""
    code, said, _ = finished("report", "digits", "-o", "page.html")
    assert (code, said) == (0, "page.html\n")
    page = chromium.new_page()
    requests: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
    url = (finished.home / "page.html").as_uri()
    page.goto(url)
    for key in list(CHARTS)[:4]:
        expect(page.locator(f"[data-chart={key}] .main-svg").first).to_be_visible(timeout=MILLISECONDS)
    expect(page.locator("body[data-drawn=enclosed]")).to_be_attached(timeout=MILLISECONDS)
    expect(page.locator("tbody tr")).to_have_count(30)
    expect(page.locator("#live")).to_contain_text("Written")
    page.get_by_role("button", name="Epochs").click()
    page.get_by_role("button", name="Switch between light and dark").click()
    assert [item for item in requests if item != url and not item.startswith(("data:", "blob:"))] == []
    assert errors == []
    page.close()


def _broken_yaml(command: Command) -> None:
    (command.home / "digits.yaml").write_text("kind: TuningStudy\nspec: [1\n")


def _unwritable(command: Command) -> None:
    (command.home / ".tuningstudy").write_text("a file is in the way")


def _newer_database(command: Command) -> None:
    command.folder.create()
    OneDatabase(choose(Path("digits.yaml"), database=None, folder=None).database).open("x").engine.dispose()
    with sqlite3.connect(command.folder.database) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'v99.0.0.a'")
    connection.close()


def _no_database(command: Command) -> None:
    command.folder.create()
    command.folder.database.write_text("this is no database, " * 100)


def _changed_space(command: Command) -> None:
    place = choose(command.home / "digits.yaml", database=None, folder=None)
    place.folder.create()
    database = OneDatabase(place.database)
    studies = OptunaStudies(database)
    before = a_manifest()["spec"]
    before["searchSpace"][1]["choices"] = [8, 16]
    studies.open(place.key, a_search_spec(**before))
    study = optuna.load_study(study_name="digits", storage=database.open("x"))
    study.add_trial(create_trial(state=TrialState.FAIL, user_attrs={contract.EPOCHS_ATTRIBUTE: 1}))
    database.open("x").engine.dispose()


def _as(change: Callable[[Document], None]) -> Callable[[Command], None]:
    def write(command: Command) -> None:
        document = a_manifest()
        change(document)
        command.write(document)

    return write


def _nothing(_: Command) -> None:
    pass


MISTAKES: dict[str, tuple[Callable[[Command], None], tuple[str, ...], str]] = {
    "a missing file": (
        _nothing,
        ("run", "digit.yaml"),
        "digit.yaml: there is no such file: did you mean digits.yaml?",
    ),
    "bad YAML": (_broken_yaml, ("run", "digits.yaml"), "digits.yaml:3:1: this is no valid YAML: while parsing"),
    "an unknown field": (
        _as(lambda document: document["spec"].update(maxTrails=1)),
        ("run", "digits.yaml"),
        'digits.yaml: unknown field "spec.maxTrails": did you mean maxTrials?',
    ),
    "something that this version cannot do": (
        _as(lambda document: document["spec"].update(database={"secretName": "mine"})),
        ("run", "digits.yaml"),
        "spec.database is not supported by this version",
    ),
    "no write permission": (
        _unwritable,
        ("run", "digits.yaml"),
        "cannot be written: Not a directory; choose another place with --folder",
    ),
    "a database of a newer Optuna": (
        _newer_database,
        ("run", "digits.yaml"),
        "the database cannot be used: The runtime",
    ),
    "a file that is no database": (_no_database, ("run", "digits.yaml"), "file is not a database"),
    "a search space that has changed": (
        _changed_space,
        ("run", "digits.yaml"),
        "parameter hidden_dim has another type, log or choices than in the database: create a study of another name",
    ),
    "a database that is none": (
        _nothing,
        ("run", "digits.yaml", "--database", "mine"),
        "--database: this is no database URL",
    ),
    "a database in memory": (_nothing, ("run", "digits.yaml", "--database", "sqlite://"), "SQLite needs a file"),
    "a database that does not answer": (
        _nothing,
        ("run", "digits.yaml", "--database", "postgresql://me:secret@127.0.0.1:1/x"),
        "postgresql+psycopg2://me:***@127.0.0.1:1/x: the database cannot be used: connection to server",
    ),
    "a database without a driver": (
        _nothing,
        ("run", "digits.yaml", "--database", "oracle://me@host/x"),
        "--database: there is no driver for oracle",
    ),
    "a study that was never run": (_nothing, ("best", "digits.yaml"), "study digits has not been run"),
    "a name that is none": (_nothing, ("trials", "digits"), "there is no study digits below"),
    "a manifest that is wrong, before the model is looked at": (
        _broken_yaml,
        ("validate", "digits.yaml"),
        "digits.yaml:3:1: this is no valid YAML",
    ),
}


@pytest.mark.parametrize(("prepare", "arguments", "words"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_answered_with_one_sentence(
    command: Command, prepare: Callable[[Command], None], arguments: tuple[str, ...], words: str
) -> None:
    """What to change, and never a traceback; the exit code is 2."""
    prepare(command)
    code, _, said = command(*arguments)
    last = said.splitlines()[-1]
    assert (code, last.startswith("error: ")) == (2, True), said
    assert words in last
    assert "Traceback" not in said
    assert "secret" not in said


def test_a_study_that_is_being_run_is_not_run_twice(command: Command) -> None:
    """Two controllers would take each other's workers for lost."""
    command.folder.create()
    with command.folder.held(command="tuningstudy run digits.yaml"):
        code, _, said = command("run", "digits.yaml")
    assert code == 2
    assert "the study is being run already, by process" in said
    assert "(tuningstudy run digits.yaml)" in said


@pytest.mark.parametrize("kind", ["postgres", "sqlite"])
def test_a_study_in_a_shared_database_is_not_run_from_two_folders(command: Command, postgres: URL, kind: str) -> None:
    """The folder's lock cannot know of the other folder, nor of the other machine."""
    shared = postgres if kind == "postgres" else sqlite_url(command.home / "shared.db")
    with OneDatabase(shared).held("digits"):
        code, _, said = command("run", "digits.yaml", "--database", shared.render_as_string(hide_password=False))
    assert code == 2
    assert "study digits is being run already, from another folder or machine" in said
    assert str(postgres.password) not in said


def test_a_study_without_a_result_has_no_best_trial(command: Command) -> None:
    """Said, instead of nothing printed."""
    _changed_space(command)
    choose(Path("digits.yaml"), database=None, folder=None).remember()
    code, _, said = command("best", "digits")
    assert (code, said) == (2, "error: no trial of study digits is complete yet\n")


def test_validate_finds_what_would_make_trials_fail(command: Command) -> None:
    """With torch in a process of its own: here an argument that the model does not have."""
    document = a_manifest()
    document["spec"]["trial"] = json.loads(json.dumps(document["spec"]["trial"]))
    model = document["spec"]["trial"]["lightning"]["model"]
    model["init_args"] = {"hiden_dim": "${hidden_dim}"}
    command.write(document)
    code, _, said = command("validate", "digits.yaml")
    assert code == 1
    assert "digits.yaml: " in said
    assert "hiden_dim" in said
    assert "hidden_dim" in said.replace("hiden_dim", "")


def test_help_teaches_by_example(command: Command) -> None:
    """Each command shows how it is used."""
    for name in ("run", "validate", "try", "best", "trials", "report"):
        code, said, _ = command(name, "--help")
        assert (code, f"  tuningstudy {name} digits" in said) == (0, True), said
