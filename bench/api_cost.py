"""What a study costs the API server: all requests about its namespace, from the audit log."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

import yaml
from tests.support.audit import WRITES as WRITING
from tests.support.audit import Request

from bench.aim import Aim
from bench.conditions import ROOT
from bench.on_node import on_node
from tuning_api.spec import PLURAL

Document = dict[str, Any]

TITLE = "What a study costs the API server"
ABOUT = """\
A study of many trials of a second each (the sample `manifests/samples/digits-objective.yaml`) at four workers, on the node of
`make cluster-up` with the chart installed. Counted is every request about something in the study's namespace, from before
`kubectl apply` until the last worker is gone, in the API server's own audit log: those of the operator and of the workers, and
what Kubernetes itself does for their Jobs and pods. A watch counts once, when it ends.
"""
SAMPLE = ROOT / "manifests" / "samples" / "digits-objective.yaml"
WORKERS = 4
WRITES = 0.3
"""A trial."""
OPERATOR = "tuningstudy-operator"
PODS = "the workers"
PERSON = "kubectl"
"""Who applies the study and waits for it: the benchmark itself."""


def measure(*, longer: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """Run a study to its end, and count."""
    trials = 1000 if longer else 100
    with on_node() as place:
        began = datetime.now(UTC)
        study = a_study(place.namespace, trials=trials)
        name, here = study["metadata"]["name"], f"--namespace={place.namespace}"
        place.kubectl("apply", "--filename=-", stdin=json.dumps(study))
        say(f"{trials} trials at {WORKERS} workers")
        place.kubectl("wait", "--for=condition=Complete", f"{PLURAL}/{name}", here, f"--timeout={300 + 5 * trials}s")
        seconds = place.kubectl.get(PLURAL, name, here)["status"]["elapsedSeconds"]
        place.kubectl("wait", "--for=jsonpath={.status.workers}=0", f"{PLURAL}/{name}", here, "--timeout=120s")
        place.kubectl("wait", "--for=condition=Complete", "jobs", "--all", here, "--timeout=60s")
        counted = count(place.requests(since=began), namespace=place.namespace)
    return {"trials": trials, "workers": WORKERS, "seconds": seconds, "requests": counted}


def a_study(namespace: str, *, trials: int) -> Document:
    """The sample with more trials and workers, which may use whatever the node has."""
    document: Document = yaml.safe_load(SAMPLE.read_text())
    document["metadata"]["namespace"] = namespace
    document["spec"] |= {"maxTrials": trials, "parallelism": WORKERS}
    del document["spec"]["trial"]["podTemplate"]
    return document


def count(requests: Iterable[Request], *, namespace: str) -> list[Document]:
    """How often each program asked for what; the most frequent first."""
    counted = Counter(
        (_client(request, namespace=namespace), request.agent.partition(" ")[0], request.verb, request.what)
        for request in requests
    )
    return [
        {"client": client, "agent": agent, "verb": verb, "what": what, "requests": number}
        for (client, agent, verb, what), number in counted.most_common()
    ]


def _client(request: Request, *, namespace: str) -> str:
    """NB: whatever runs in a pod of the namespace would sign in as one of its service accounts, or as nobody."""
    is_of_a_pod = request.user.startswith((f"system:serviceaccount:{namespace}:", "system:anonymous"))
    return PODS if is_of_a_pod else request.client


def _total(figures: dict[str, Any], *, verbs: Iterable[str] | None = None, client: str | None = None) -> int:
    return sum(
        row["requests"]
        for row in figures["requests"]
        if (verbs is None or row["verb"] in verbs) and (client is None or row["client"] == client)
    )


def tell(figures: dict[str, Any]) -> Iterator[str]:
    """A row for each program and verb."""
    trials = figures["trials"]
    yield f"{trials} trials at {figures['workers']} workers in {figures['seconds']:.0f} s; requests, and requests a trial."
    yield ""
    yield "| who | user agent | verb | what | requests | a trial |"
    yield "|---|---|---|---|---|---|"
    for client, rows in groupby(sorted(figures["requests"], key=_order), key=lambda row: str(row["client"])):
        for row in rows:
            number = row["requests"]
            yield f"| {client} | {row['agent']} | {row['verb']} | {row['what']} | {number} | {number / trials:.2f} |"
    yield f"| {PODS} | | | | {_total(figures, client=PODS)} | |"
    yield ""
    yield (
        f"Writes a trial: {_writes(figures) / trials:.2f} in all, {_writes(figures, client=OPERATOR) / trials:.2f} of them the"
        " operator's. For comparison, Katib was measured apart on such a machine (after v0.19.0, on Kubernetes 1.34.4,"
        " 20 trials, 4 in parallel, images present): 18 to 25 a trial."
    )


def _order(row: Document) -> tuple[str, int]:
    return row["client"], -row["requests"]


def _writes(figures: dict[str, Any], *, client: str | None = None) -> int:
    """Of a program, or of all but the person's."""
    if client is not None:
        return _total(figures, verbs=WRITING, client=client)
    return _total(figures, verbs=WRITING) - _total(figures, verbs=WRITING, client=PERSON)


def aims(figures: dict[str, Any]) -> list[Aim]:
    """Writes a trial, and the silence of the workers."""
    trials, workers = figures["trials"], figures["workers"]
    writes, operators = _writes(figures), _writes(figures, client=OPERATOR)
    of_a_pod = (writes - operators) / workers
    return [
        Aim(
            what=f"API writes a trial, all that Kubernetes does for Jobs and pods included, {trials} trials",
            wanted=f"at most {WRITES}",
            measured=f"{writes / trials:.2f}",
            reached=writes <= WRITES * trials,
            cause=(
                f"A worker's Job and pod cost {of_a_pod:.0f} writes of Kubernetes' own, whatever runs in them and however long;"
                f" the operator writes {operators / trials:.2f} a trial, Jobs included."
            ),
        ),
        Aim(
            what="the operator's API writes a trial, Jobs included",
            wanted=f"at most {WRITES}",
            measured=f"{operators / trials:.2f}",
            reached=operators <= WRITES * trials,
            cause="Its writes grow with a study's time, a status in 20 s, and these trials were few for it.",
        ),
        Aim(
            what="requests of the workers",
            wanted="0",
            measured=str(_total(figures, client=PODS)),
            reached=_total(figures, client=PODS) == 0,
            cause="Something in a pod asked the API server, and a worker has no reason to.",
        ),
    ]
