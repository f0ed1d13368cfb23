"""What the commands read from a cluster: a trial's lines, links, statuses."""

from typing import Any

import pytest
from tests.support.chart_studies import NOW, a_study_data

from tuning_api.status import BestTrial, StudyStatus
from tuning_operator.charts.trials import read_trials, trials_json
from tuning_operator.cli.cluster import in_the_name_of
from tuning_operator.cli.logs import has_started
from tuning_operator.cli.remote_results import described
from tuning_operator.cli.submit import in_one_line
from tuning_operator.local.errors import BadInputError
from tuning_operator.local.progress import progress
from tuning_operator.remote.charts import link_of, refusal
from tuning_operator.remote.links import Service, page_path, service_in
from tuning_operator.remote.relay import may_pass
from tuning_operator.remote.trial_lines import TrialFilter, lines_of

LOG = """\
2026-01-01T12:00:00Z worker digits-0 joins study digits
2026-01-01T12:00:10Z imported torch 2.8 and the model in 10 s
2026-01-01T12:00:11Z trial 1: lr=0.1 (seed 7)
what the model prints
2026-01-01T12:00:12Z WARNING py.warnings: something about a DataLoader
2026-01-01T12:00:13Z trial 1: epoch 1/3 val_acc=0.5
2026-01-01T12:00:14Z trial 1 complete: val_acc=0.5 (3 epochs, 3.0 s)
2026-01-01T12:00:15Z trial 12: lr=0.2 (seed 8)
trial 1 is what this model prints by itself
2026-01-01T12:00:16Z ERROR trial 12 failed, Error: ValueError: no (mine.py:3) (1 epochs, 1.0 s)
2026-01-01T12:00:16Z ERROR trial 12: Traceback (most recent call last):
  File "mine.py", line 3, in training_step
ValueError: no
2026-01-01T12:00:17Z trial 13: lr=0.3 (seed 9)
2026-01-01T12:00:18Z trial 13 pruned (2 of 3 epochs, 1.0 s)
2026-01-01T12:00:28Z no trial is waiting: leaving after 3 trials
""".splitlines()


@pytest.mark.parametrize(("trial", "first", "last"), [(1, 2, 6), (12, 7, 12), (13, 13, 14)])
def test_a_trials_lines_are_those_from_its_claim_to_its_end(trial: int, first: int, last: int) -> None:
    """With what the model prints, and with the traceback that comes after the end."""
    assert list(lines_of(trial, LOG)) == LOG[first : last + 1]


@pytest.mark.parametrize("trial", [0, 2, 14])
def test_a_trial_of_another_worker_has_no_lines_here(trial: int) -> None:
    """Nor has one whose number begins like another's."""
    assert list(lines_of(trial, LOG)) == []


def test_following_a_trial_ends_with_the_line_after_it() -> None:
    """Not before: its traceback comes after its end."""
    trial = TrialFilter(12)
    passed = []
    for line in LOG:
        trial.takes(line)
        passed.append(trial.is_over)
    assert passed.index(True) == LOG.index("2026-01-01T12:00:17Z trial 13: lr=0.3 (seed 9)")


@pytest.mark.parametrize(
    ("link", "service"),
    [
        ("http://release-charts.system.svc/studies/research/digits/s1g/", Service("system", "release-charts")),
        ("http://release-charts.system.svc:8080/studies/research/digits/s1g/", Service("system", "release-charts")),
        (
            "http://release-charts.system.svc.cluster.local/studies/research/digits/s1g/",
            Service("system", "release-charts"),
        ),
        ("https://tuning.example.com/studies/research/digits/s1g/", None),
        ("http://localhost:8000/studies/research/digits/s1g/", None),
        ("https://svc.example.com/studies/research/digits/s1g/", None),
        ("http://10.0.0.1:30080/studies/research/digits/s1g/", None),
    ],
)
def test_a_link_says_whether_it_works_outside_of_the_cluster(link: str, service: Service | None) -> None:
    """A Service's name is known inside only."""
    assert service_in(link) == service
    assert page_path(link) == "/studies/research/digits/s1g/"


def test_a_page_below_a_path_of_an_ingress_is_found() -> None:
    """The charts server does not know that path, which may even look like one of its own."""
    assert (
        page_path("https://example.com/studies/of/all/studies/research/digits/s1g/") == "/studies/research/digits/s1g/"
    )


def test_a_right_is_named_as_rbac_names_it() -> None:
    """What an administrator writes into resourceNames is in the path of the request."""
    service = Service("system", "release-charts")
    assert service.resource == "http:release-charts:http"
    assert service.proxy_path == "/api/v1/namespaces/system/services/http:release-charts:http/proxy"


@pytest.mark.parametrize(
    ("path", "passes"),
    [
        ("/studies/research/digits/s1-_g/", True),
        ("/studies/research/digits/s1g/trials.json", True),
        ("/static/0123456789ab/plotly.min.js", True),
        ("/healthz", False),
        ("/", False),
        ("/studies/../../pods", False),
        ("/studies/%2e%2E/pods", False),
        ("/studies/x?watch=true", False),
        ("//studies/x", False),
    ],
)
def test_the_relay_passes_on_pages_of_studies_only(path: str, passes: bool) -> None:  # noqa: FBT001
    """It has the person's rights, and listens on this machine."""
    assert may_pass(path) is passes


def test_a_study_without_a_link_is_one_that_nobody_has_looked_at() -> None:
    """Said, instead of a page that does not exist."""
    with pytest.raises(BadInputError, match="study digits has no link yet: the operator has not looked at it"):
        link_of({"metadata": {"name": "digits"}})


def test_a_link_that_has_ended_in_the_status_is_a_question_about_the_operator() -> None:
    """It would have renewed it; the page's advice to read the status again would go in a circle."""
    words = refusal(410, b"<!doctype html>", Service("system", "release-charts"))
    assert words.endswith("the operator, which renews it, has not done so; does it run?")


def test_trials_arrive_as_they_were_sent() -> None:
    """Numbers with all their digits, causes, states; and not-a-number, which a model may report."""
    data = a_study_data()
    seen = progress(data, status=data.status, workers=data.status.workers or 0, now=NOW)
    assert read_trials(trials_json(data, now=NOW)) == seen


@pytest.mark.parametrize("text", ["<html>a page to sign in</html>", "{}", '{"name": "digits"}'])
def test_another_answer_is_not_taken_for_trials(text: str) -> None:
    """Of a proxy before the charts server, or of another version."""
    with pytest.raises(ValueError, match=r"."):
        read_trials(text)


@pytest.mark.parametrize(
    ("statuses", "started"),
    [
        ([], False),
        ([{"state": {"waiting": {"reason": "ContainerCreating"}}}], False),
        ([{"state": {"running": {}}}], True),
        ([{"state": {"terminated": {"exitCode": 0}}}], True),
    ],
)
def test_only_a_pod_that_has_started_has_a_log(statuses: list[Any], started: bool) -> None:  # noqa: FBT001
    """The API server refuses before."""
    assert has_started({"status": {"containerStatuses": statuses}}) is started


@pytest.mark.parametrize(
    ("status", "line"),
    [
        ({}, ""),
        ({"phase": "Pending", "message": "0 of 5 trials done"}, "Pending: 0 of 5 trials done"),
        (
            {"phase": "Running", "message": "3 of 5 trials done", "bestDisplay": "0.95"},
            "Running: 3 of 5 trials done; best 0.95",
        ),
    ],
)
def test_a_status_is_watched_in_one_line(status: dict[str, Any], line: str) -> None:
    """The message, and the best value so far."""
    assert in_one_line(StudyStatus.model_validate(status)) == line


def test_the_best_trial_reads_as_without_a_cluster() -> None:
    """The same keys, with one objective and with several."""
    best = BestTrial(trial=3, value=0.5, display="0.5", params={"lr": 0.1})
    assert described(best, ["val_acc"]) == {"trial": 3, "val_acc": 0.5, "params": {"lr": 0.1}}
    one = BestTrial(trial=3, values=[0.5, 20.0], display="0.5, 20", params={})
    assert described(one, ["val_acc", "latency"]) == {"trial": 3, "val_acc": 0.5, "latency": 20.0, "params": {}}


def test_help_is_in_the_name_of_the_program_that_is_asked() -> None:
    """And kubectl's own commands keep theirs."""
    text = "tuningstudy open digits\n  kubectl get tuningstudy digits"
    assert (
        in_the_name_of("kubectl tuningstudy", text)
        == "kubectl tuningstudy open digits\n  kubectl get tuningstudy digits"
    )
