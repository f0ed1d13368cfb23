"""From `kubectl apply` to the first trial and its first report, from what everyone writes down on the way.

Kubernetes' own times are whole seconds. So the times are those of the audit log (microseconds), of containerd's log, and
those with which containerd keeps each line of a container; all are of one machine's clock.
"""

import json
import re
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from itertools import pairwise
from typing import Any

import yaml
from tests.support.audit import Request

from bench.aim import Aim, spread
from bench.conditions import ROOT
from bench.on_node import OnNode, on_node
from tuning_api import substitution
from tuning_api.naming import CONTAINER, LABEL_STUDY
from tuning_api.spec import PLURAL

Document = dict[str, Any]
Marks = dict[str, float]
"""When each step was done, in seconds from the start of kubectl."""

TITLE = "From `kubectl apply` to the first trial"
ABOUT = """\
`kubectl apply` of the digits sample, cut to one trial of one epoch, on the node of `make cluster-up` with the chart installed
and all images present; several studies, one after another. Each step is timed by what was written down: the API server's audit
log, containerd's log, and the times with which it keeps a worker's lines. The first study is reported apart: its namespace is
new to the operator, which makes a database schema and a role for it, and this machine may have to read the image's files from
its disk. The imports of a worker are also compared, in CPU time and as sets, with those of the same trial by `LightningCLI`
alone.
"""
SAMPLE = ROOT / "manifests" / "samples" / "digits.yaml"
OPERATORS_SHARE = 0.5
"""Seconds."""
STEPS = {
    "began": "",
    "applied": "kubectl",
    "job": "operator",
    "pod": "Job controller",
    "bound": "scheduler",
    "started": "kubelet and containerd, until the container runs",
    "opens": "interpreter, and the imports of every worker",
    "joined": "connection to the database",
    "imported": "imports of torch, Lightning and the model",
    "chosen": "claim, and the choice of parameters",
    "reported": "training, until the first report",
}
"""Each step by its end, in their order."""
_LINES = {
    "opens": re.compile(r"worker \S+ opens study"),
    "joined": re.compile(r"worker \S+ joins study"),
    "imported": re.compile(r"imported torch "),
    "chosen": re.compile(r"trial 0: \w+="),
    "reported": re.compile(r"trial 0: epoch 1"),
}
_STARTED = 'time="([^"]+)" level=info msg="StartContainer for \\\\"{id}\\\\" returns successfully"'

_OF_A_WORKER = """
from tuning_api.spec import StudySpec
from tuning_trial import __main__, child, preparation
preparation.import_all(StudySpec.model_validate(spec))
"""
_OF_LIGHTNING_ALONE = """
from pytorch_lightning import LightningDataModule, LightningModule
from pytorch_lightning.cli import LightningCLI
cli = LightningCLI(LightningModule, LightningDataModule, subclass_mode_model=True, subclass_mode_data=True,
                   save_config_callback=None, run=False, args=config)
cli.trainer.fit(cli.model, datamodule=cli.datamodule)
"""
_WITH_FIGURES = """
import json, sys, time
spec, config = json.loads(sys.argv[1])
{code}
packages = {{name.partition(".")[0] for name in sys.modules}} - sys.stdlib_module_names
print(json.dumps({{"seconds": time.process_time(), "packages": sorted(packages)}}))
"""


def measure(*, longer: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """Apply studies one after another."""
    runs = []
    with on_node() as place:
        for number in range(21 if longer else 6):
            marks = first_trial(place, f"digits-{number}")
            runs.append(marks)
            say(f"study {number}: first report {marks['reported']:.1f} s after the start of kubectl")
    say("imports of a worker, and of LightningCLI alone")
    return {"first": runs[0], "runs": runs[1:], "imports": imports(times=3)}


def imports(*, times: int) -> dict[str, Document]:
    """CPU time and packages of a worker's imports, and of a whole trial of the same model by LightningCLI alone."""
    spec = a_study("digits", "research")["spec"]
    values = {item["name"]: item["choices"][0] if "choices" in item else item["low"] for item in spec["searchSpace"]}
    config = substitution.substitute(spec["trial"]["lightning"], values) | {"seed_everything": 0}
    config["trainer"] |= {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    codes = {"worker": _OF_A_WORKER, "alone": _OF_LIGHTNING_ALONE}
    runs = [{name: _figures_of(code, [spec, config]) for name, code in codes.items()} for _ in range(times)]
    return {
        name: {"seconds": [round(run[name]["seconds"], 3) for run in runs], "packages": runs[0][name]["packages"]}
        for name in codes
    }


def _figures_of(code: str, given: Any) -> Document:
    """Run a program that imports, in a fresh interpreter.

    Raises:
        CalledProcessError: it failed.
    """
    command = [sys.executable, "-c", _WITH_FIGURES.format(code=code), json.dumps(given)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    figures: Document = json.loads(done.stdout.splitlines()[-1])
    return figures


def a_study(name: str, namespace: str) -> Document:
    """The sample with one trial of one epoch, on the CPU."""
    document: Document = yaml.safe_load(SAMPLE.read_text())
    document["metadata"] = {"name": name, "namespace": namespace}
    document["spec"] |= {"maxTrials": 1, "parallelism": 1}
    document["spec"]["trial"]["gpus"] = 0
    document["spec"]["trial"]["lightning"]["trainer"]["max_epochs"] = 1
    return document


def first_trial(place: OnNode, name: str) -> Marks:
    """Apply a study, wait for its end, and read what was written down about it.

    Raises:
        RuntimeError: it was refused, or something was not written down.
        CommandError: it did not complete within five minutes.
    """
    kubectl, here = place.kubectl, f"--namespace={place.namespace}"
    began = datetime.now(UTC)
    applied = kubectl.apply(a_study(name, place.namespace))
    if applied.returncode:
        raise RuntimeError(applied.stderr)
    kubectl("wait", "--for=condition=Complete", f"{PLURAL}/{name}", here, "--timeout=300s")
    (pod,) = kubectl.items("pods", f"--selector={LABEL_STUDY}={name}", here)
    container = next(status for status in pod["status"]["containerStatuses"] if status["name"] == CONTAINER)
    times = {
        "began": began,
        **marks_of_requests(place.requests(since=began), study=name, pod=pod["metadata"]["name"]),
        "started": started(place.containerd_log.read_text(), container=container["containerID"].rpartition("/")[2]),
        **marks_of_log(kubectl("logs", pod["metadata"]["name"], "--timestamps", here)),
    }
    kubectl("delete", PLURAL, name, here, "--timeout=90s")
    return {step: round((times[step] - began).total_seconds(), 4) for step in STEPS}


def marks_of_requests(requests: Sequence[Request], *, study: str, pod: str) -> dict[str, datetime]:
    """When the API server had made the study, its Job, and its pod, and had taken the pod's node.

    Raises:
        RuntimeError: one of them is missing.
    """
    job = _first(requests, "create", "jobs", f"{study}-")
    # NB: the server chooses a pod's name, so that the request has none; studies come one after another. It comes after the
    # Job's request, and may come before its answer: the Job's controller is told of a Job at the same moment as its creator.
    after = [request for request in requests if request.received >= job.received]
    return {
        "applied": _first(requests, "create", PLURAL, study).answered,
        "job": job.answered,
        "bound": _first(requests, "create", "pods/binding", pod).answered,
        "pod": _first(after, "create", "pods", "").answered,
    }


def _first(requests: Sequence[Request], verb: str, what: str, name: str) -> Request:
    for request in requests:
        if (
            (request.verb, request.what) == (verb, what)
            and request.name.startswith(name)
            and request.code == HTTPStatus.CREATED
        ):
            return request
    raise RuntimeError(f"the audit log has no {verb} {what} {name}")


def started(containerd_log: str, *, container: str) -> datetime:
    """When containerd had started a container.

    Raises:
        RuntimeError: its log has no such line.
    """
    if found := re.search(_STARTED.replace("{id}", container), containerd_log):
        return _time(found[1])
    raise RuntimeError(f"containerd's log does not say when container {container} started")


def marks_of_log(log: str) -> dict[str, datetime]:
    """When a worker said what, from `kubectl logs --timestamps`.

    Raises:
        RuntimeError: it did not say something.
    """
    marks = {}
    for mark, pattern in _LINES.items():
        line = next((line for line in log.splitlines() if pattern.search(line)), None)
        if line is None:
            raise RuntimeError(f"the worker's log has no line with {pattern.pattern!r}:\n{log}")
        marks[mark] = _time(line.partition(" ")[0])
    return marks


def _time(text: str) -> datetime:
    """NB: Python keeps microseconds, and containerd writes nanoseconds without zeros at the end."""
    return datetime.fromisoformat(re.sub(r"(\.\d{1,6})\d*Z$", r"\1+00:00", text))


# The figures in words


def steps_of(marks: Marks) -> dict[str, float]:
    """Seconds of each step, by its end."""
    return {end: marks[end] - marks[start] for start, end in pairwise(STEPS)}


def tell(figures: dict[str, Any]) -> Iterator[str]:
    """A row for each step, and what was imported."""
    first, runs = steps_of(figures["first"]), [steps_of(marks) for marks in figures["runs"]]
    yield f"Seconds; the median of {len(runs)} studies with its range, and the first study apart."
    yield ""
    yield "| step | seconds | the first study |"
    yield "|---|---|---|"
    for end, step in STEPS.items():
        if step:
            yield f"| {step} | {spread([run[end] for run in runs], '.2f')} | {first[end]:.2f} |"
    for what, end in (("to the first trial", "chosen"), ("to the first report", "reported")):
        totals = [marks[end] for marks in figures["runs"]]
        yield f"| **in all, {what}** | {spread(totals, '.1f')} | {figures['first'][end]:.1f} |"
    yield ""
    worker, alone = figures["imports"]["worker"], figures["imports"]["alone"]
    yield (
        f"A worker's imports take {spread(worker['seconds'])} s of CPU time, and a whole trial of the same model by"
        f" LightningCLI alone {spread(alone['seconds'])} s, imports included. Packages that only the worker imports:"
        f" {', '.join(only_of_a_worker(figures))}."
    )


NEEDED = frozenset(
    {
        *("tuning_api", "tuning_trial", "optuna", "colorlog", "sqlalchemy", "psycopg2", "stamina", "tenacity"),
        *("pydantic", "pydantic_core", "annotated_types", "typing_inspection"),
    }
)
"""What a worker needs for its study and its database, whatever it trains."""


def only_of_a_worker(figures: dict[str, Any]) -> list[str]:
    """Packages that a worker imports and a trial of the same model by LightningCLI alone does not."""
    worker, alone = (set(figures["imports"][name]["packages"]) for name in ("worker", "alone"))
    return sorted(name for name in worker - alone if not name.startswith("_"))


def aims(figures: dict[str, Any]) -> list[Aim]:
    """The operator's share, what is imported, and what the imports are beside."""
    runs = [steps_of(marks) for marks in figures["runs"]]
    operator = [run["job"] for run in runs]
    needless = sorted(set(only_of_a_worker(figures)) - NEEDED)
    waiting = [run["joined"] + run["chosen"] for run in runs]
    return [
        Aim(
            what="from the study's creation to its Job, the operator's share",
            wanted="at most 0.5 s",
            measured=f"{spread(operator, '.2f')} s",
            reached=statistics.median(operator) <= OPERATORS_SHARE,
            cause="A pass reads and writes the database and the cluster one after another; its steps wait for both.",
        ),
        Aim(
            what="packages that a worker imports and no trial uses",
            wanted="none",
            measured=", ".join(needless) or "none",
            reached=not needless,
            cause="They come with the packages that are used.",
        ),
        Aim(
            what="connection and claim, beside the imports",
            wanted="overlapped",
            measured=f"one after another, {spread(waiting, '.2f')} s",
            reached=False,
            cause=(
                "Python imports under its global lock, so that a thread would hide only what the two wait for; and a trial"
                " that is claimed during the imports would be counted and timed while nothing trains."
            ),
        ),
    ]
