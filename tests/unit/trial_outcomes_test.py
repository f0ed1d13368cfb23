"""What the end of a trial's process means, as tables."""

import json
import math
import signal
import sys
from pathlib import Path

import pytest
from optuna.trial import TrialState

from tuning_api.contract import FAILURE_ATTRIBUTE, LIMITED_ATTRIBUTE, Failure, FailureReason
from tuning_api.row_limits import LONGEST_FAILURE
from tuning_trial.errors import InvalidConfigError
from tuning_trial.outcomes import (
    Completed,
    DatabaseLost,
    Ended,
    Failed,
    Interrupted,
    Outcome,
    Progress,
    Pruned,
    Replaced,
    StoppedFor,
    completed,
    failed,
    failure_of,
    outcome,
    record,
)

ERROR = Failed(Failure(reason=FailureReason.ERROR, message="ValueError: no (model.py:3)"))
MISSING = Failed(Failure(reason=FailureReason.MISSING_METRIC, message="no metric"))
INTERRUPTION, TIMEOUT, STALL = StoppedFor.INTERRUPTION, StoppedFor.TIMEOUT, StoppedFor.STALL


@pytest.mark.parametrize(
    ("ended", "expected"),
    [
        (Ended(result=Completed((0.5,)), exit_code=0), Completed((0.5,))),
        (Ended(result=Pruned(), exit_code=0), Pruned()),
        (Ended(result=ERROR, exit_code=0), ERROR),
        (Ended(result=Replaced(), exit_code=0), Replaced()),
        (Ended(result=DatabaseLost("gone"), exit_code=0), DatabaseLost("gone")),
        # it had a value when it was stopped, or when it would not leave
        (Ended(result=Completed((0.5,)), exit_code=-9, stopped_for=INTERRUPTION), Completed((0.5,))),
        (Ended(result=Pruned(), exit_code=-15, stopped_for=TIMEOUT), Pruned()),
        (Ended(result=Completed((0.5,)), exit_code=-9, was_out_of_memory=True), Completed((0.5,))),
        # what it says while it is being stopped may come from that
        (Ended(result=ERROR, exit_code=0, stopped_for=INTERRUPTION), Interrupted()),
        (Ended(exit_code=-9, stopped_for=INTERRUPTION), Interrupted()),
        (Ended(result=DatabaseLost("gone"), stopped_for=INTERRUPTION), Interrupted()),
    ],
)
def test_a_result_that_arrived_counts(ended: Ended, expected: Outcome) -> None:
    """A value that was reached is never thrown away; a failure counts unless we caused it."""
    assert outcome(ended) == expected


@pytest.mark.parametrize(
    ("ended", "reason", "message"),
    [
        (Ended(exit_code=-9, was_out_of_memory=True), "OutOfMemory", "more memory than the pod's limit"),
        (Ended(exit_code=-9), "Crashed", "ended by SIGKILL (Killed)"),
        (Ended(exit_code=-11, was_out_of_memory=True), "Crashed", "ended by SIGSEGV (Segmentation fault)"),
        (Ended(exit_code=-6), "Crashed", "ended by SIGABRT"),
        (Ended(exit_code=-200), "Crashed", "ended by signal 200"),
        (Ended(exit_code=3), "Crashed", "left with exit status 3"),
        (Ended(exit_code=0), "Crashed", "left with exit status 0 before it had a result"),
        (Ended(exit_code=-9, stopped_for=TIMEOUT, timeout="20m"), "TimedOut", "longer than trial.timeout, 20m"),
        (Ended(result=ERROR, exit_code=0, stopped_for=TIMEOUT, timeout="9s"), "TimedOut", "trial.timeout, 9s"),
        (Ended(exit_code=-9, stopped_for=STALL, progress_timeout="5m"), "Stalled", "than trial.progressTimeout, 5m"),
        (Ended(result=ERROR, exit_code=0, was_out_of_memory=True), "OutOfMemory", "it then raised ValueError: no"),
        (Ended(result=MISSING, exit_code=0, was_out_of_memory=True), "MissingMetric", "no metric"),
    ],
)
def test_an_end_without_a_result_is_explained_by_its_exit_status(ended: Ended, reason: str, message: str) -> None:
    """Whoever was killed cannot say why; the kernel's counter and the signal can."""
    result = outcome(ended)
    assert isinstance(result, Failed)
    assert result.failure.reason == reason
    assert message in result.failure.message


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_fails_the_trial(value: float) -> None:
    """-inf would otherwise be the best value of a minimise study for ever."""
    result = completed({"val_acc": 0.5, "loss": value})
    assert isinstance(result, Failed)
    assert result.failure.reason is FailureReason.NOT_FINITE
    assert result.failure.message == f"loss is {value} at the end of the training"


def test_finite_values_complete_the_trial_in_the_order_of_the_objectives() -> None:
    """Optuna takes values by position."""
    assert completed({"b": 2.0, "a": 1.0}) == Completed((2.0, 1.0))


@pytest.mark.parametrize(
    ("result", "progress", "state", "attributes"),
    [
        (
            Completed((1.0,)),
            Progress(20, 20),
            TrialState.COMPLETE,
            {"tuningstudy:epochs": 20, "tuningstudy:maxEpochs": 20},
        ),
        (Pruned(), Progress(11, 20), TrialState.PRUNED, {"tuningstudy:epochs": 11, "tuningstudy:maxEpochs": 20}),
        (Pruned(), Progress(3, None), TrialState.PRUNED, {"tuningstudy:epochs": 3}),
        (
            ERROR,
            None,
            TrialState.FAIL,
            {"tuningstudy:failure": {"reason": "Error", "message": "ValueError: no (model.py:3)"}},
        ),
    ],
)
def test_an_end_is_told_with_what_is_known_of_it(
    result: Outcome, progress: Progress | None, state: TrialState, attributes: dict[str, object]
) -> None:
    """The controller reads epochs and failures from the trial's attributes."""
    told = record(result, progress, curve={})
    assert told is not None
    assert (told.state, told.attributes) == (state, attributes)


@pytest.mark.parametrize(
    ("curve", "values"),
    [({}, ()), ({0: 0.2, 3: 0.4, 1: 0.3}, (0.4,)), ({0: 0.2, 1: math.nan}, ()), ({0: math.inf}, (math.inf,))],
)
def test_the_value_of_a_pruned_trial_is_its_last_report(curve: dict[int, float], values: tuple[float, ...]) -> None:
    """As `Study.tell` has it, so that samplers and importances see what they would see there; NaN is no value."""
    told = record(Pruned(), None, curve=curve)
    assert told is not None
    assert told.values == values


@pytest.mark.parametrize("result", [Interrupted(), Replaced(), DatabaseLost("gone")])
def test_a_trial_that_is_not_ours_to_end_is_not_told(result: Outcome) -> None:
    """The controller queues it again, or has done so."""
    assert record(result, Progress(1, 2), curve={}) is None


def user_code() -> None:
    raise ValueError("shapes do not match\n\n  a second line")


def raised(function: object = user_code) -> BaseException:
    try:
        function()  # type: ignore[operator]
    except BaseException as error:  # noqa: BLE001
        return error
    raise AssertionError


def test_an_exception_is_told_in_one_sentence_with_its_place() -> None:
    """The first line of the message, and the file as the person knows it; the rest is in the details."""
    failure = failure_of(raised(), folders=[str(__file__).rpartition("/tests/")[0], *sys.path])
    line = user_code.__code__.co_firstlineno + 1
    assert failure.message == f"ValueError: shapes do not match (tests/unit/trial_outcomes_test.py:{line})"
    assert failure.reason is FailureReason.ERROR
    assert failure.details is not None
    assert failure.details.endswith("a second line")


def test_the_place_is_the_last_one_in_the_users_code() -> None:
    """Most exceptions are raised deep inside torch, where nobody can mend anything."""
    import json  # noqa: PLC0415

    def loads() -> None:
        json.loads("{")

    failure = failure_of(raised(loads))
    assert f"trial_outcomes_test.py:{loads.__code__.co_firstlineno + 1}" in failure.message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "Problem with 'Logger':\n\n  No module named 'tensorboard'\n  more",
            "Problem with 'Logger': No module named 'tensorboard'",
        ),
        ("Error:\nDownloading x.gz:\nTimed out", "Error: Downloading x.gz: Timed out"),
        ("nothing follows:", "nothing follows:"),
        ("one\ntwo", "one"),
    ],
)
def test_what_a_line_announces_comes_with_it(text: str, expected: str) -> None:
    """A first line that ends with a colon says nothing alone."""
    assert failure_of(RuntimeError(text)).message == f"RuntimeError: {expected}"


def test_a_library_is_not_the_users_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is installed; but the user's package may be, and then its line is named and not that of torch."""
    library = tmp_path / "site-packages" / "reads_tables"
    library.mkdir(parents=True)
    (library / "__init__.py").write_text("import json\ndef read(): json.loads('{')\n")
    monkeypatch.syspath_prepend(tmp_path / "site-packages")
    import reads_tables  # type: ignore[import-not-found]  # noqa: PLC0415

    def load() -> None:
        reads_tables.read()

    assert f"trial_outcomes_test.py:{load.__code__.co_firstlineno + 1})" in failure_of(raised(load)).message
    error = raised(load)
    error.__traceback__ = error.__traceback__.tb_next.tb_next  # type: ignore[union-attr]
    assert failure_of(error, folders=sys.path).message.endswith("(reads_tables/__init__.py:2)")


def test_the_place_of_a_syntax_error_is_in_the_file_that_has_it() -> None:
    """And not in the importer."""
    error = raised(lambda: compile("x = (", "net.py", "exec"))
    assert failure_of(error).message.endswith("(net.py:1)")


def test_a_fault_of_the_configuration_needs_no_place() -> None:
    """Its message says where already."""
    failure = failure_of(InvalidConfigError("trial.lightning.model needs width"))
    assert failure == Failure(reason=FailureReason.INVALID_CONFIG, message="trial.lightning.model needs width")


@pytest.mark.parametrize("text", ["", "x" * 5000])
def test_messages_of_any_length_fit_into_a_status(text: str) -> None:
    """They end up in conditions and events."""
    failure = failure_of(RuntimeError(text))
    assert failure.message.startswith("RuntimeError")
    assert len(failure.message) < 600


def test_details_are_the_last_lines_of_the_traceback() -> None:
    """An exception of a thousand frames must not fill the database."""

    def deep(levels: int) -> None:
        if levels:
            deeper(levels - 1)
        raise ValueError("no")

    def deeper(levels: int) -> None:
        deep(levels)

    failure = failure_of(raised(lambda: deep(50)))
    assert failure.details is not None
    assert len(failure.details.splitlines()) == 40
    assert failure.details.endswith("ValueError: no")
    assert len(failure_of(ValueError("x" * 100_000)).details or "") == 8_000


def test_the_signals_of_the_tables_are_those_of_this_machine() -> None:
    """The tables above write numbers."""
    assert (signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGTERM) == (9, 11, 6, 15)


def test_what_constraints_are_about_is_recorded_with_the_values() -> None:
    """By metric, so that another study can judge it by other bounds."""
    written = record(completed({"val_acc": 0.9}, {"latency": 12.5}), None, curve={})
    assert written is not None
    assert (written.values, written.attributes) == ((0.9,), {LIMITED_ATTRIBUTE: {"latency": 12.5}})


def test_a_constraint_that_cannot_be_judged_fails_the_trial() -> None:
    """NaN is neither within its bounds nor beyond them, and Optuna refuses it."""
    found = completed({"val_acc": 0.9}, {"latency": math.nan})
    assert found == Failed(
        Failure(reason=FailureReason.NOT_FINITE, message="latency is nan at the end of the training")
    )


@pytest.mark.parametrize("letter", ["x", "é", "\U0001f600", "\n"])
def test_a_failure_fits_into_a_row(letter: str) -> None:
    """However its letters are written in JSON; the sentence stays, and the end of the traceback."""
    failure = Failure(reason=FailureReason.ERROR, message=letter * 500, details=letter * 8000 + "the end")
    written = failed(Failed(failure)).attributes[FAILURE_ATTRIBUTE]
    assert len(json.dumps(written)) <= LONGEST_FAILURE
    assert written["details"].endswith("the end")
    assert written["message"] == " ".join((letter * 500).split("\n")).removesuffix(" ")
