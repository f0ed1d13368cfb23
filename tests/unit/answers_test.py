"""What the API server answers, whatever a tenant has written into it."""

import asyncio
import copy
import json
import logging
from collections.abc import Callable
from typing import Any

import kopf
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from kopf._cogs.clients import api
from kopf._cogs.clients.auth import APIContext
from tests.support.builders import a_manifest
from tests.support.wait import within

from tuning_api import limits
from tuning_operator import answers
from tuning_operator.executors.kubernetes import read_study
from tuning_operator.framework import open_session

Document = dict[str, Any]


def deep(levels: int) -> str:
    """JSON of so many levels, with brackets in texts, which are none."""
    return '{"a\\\\\\"[":' * levels + '"]}"' + "}" * levels


def a_study(*, levels: int = 1, where: str = "podTemplate", name: str = "digits") -> bytes:
    """A TuningStudy in which something nests, as the API server sends it."""
    document = copy.deepcopy(a_manifest(name=name)) | {
        "status": {"phase": "Running", "workers": 2, "observedGeneration": 1}
    }
    document["metadata"] |= {"uid": f"uid-of-{name}", "generation": 2, "resourceVersion": "7", "finalizers": ["a", "b"]}
    document["metadata"] |= {"managedFields": [], "annotations": {"other": "x", "tuningstudy.io/released": "{}"}}
    document["spec"]["deletionPolicy"] = "Delete"
    places = {
        "podTemplate": document["spec"]["trial"],
        "managedFields": document["metadata"],
        "status": document["status"],
        "annotations": document["metadata"],
    }
    places[where][where] = "DEEP"
    return json.dumps(document).replace('"DEEP"', deep(levels)).encode()


ESSENCE = {
    "apiVersion": "tuningstudy.io/v1alpha1",
    "kind": "TuningStudy",
    "metadata": {
        "name": "digits",
        "namespace": "research",
        "uid": "uid-of-digits",
        "generation": 2,
        "resourceVersion": "7",
        "finalizers": ["a", "b"],
        "labels": {},
        "annotations": {"tuningstudy.io/released": "{}"},
        "ownerReferences": [],
    },
    "spec": {"deletionPolicy": "Delete"},
    "status": {"phase": "Running", "workers": 2, "observedGeneration": 1, "conditions": []},
}
LEVELS = [1, 150, 300, 990, 9_900]


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("where", ["podTemplate", "managedFields", "status"])
def test_handlers_see_the_same_of_an_object_however_deep_it_is(where: str, levels: int) -> None:
    """The API server takes 10,000 levels, and Python's parser gives up at about 1,000."""
    assert answers.read_essence(a_study(levels=levels, where=where)) == ESSENCE


@pytest.mark.parametrize("levels", LEVELS)
def test_a_study_that_nests_too_deep_is_refused_in_words(levels: int) -> None:
    """A pass reads it whole; its owner reads why it does not run."""
    study = read_study(answers.read(a_study(levels=levels)))
    assert (study.fault is None) is (levels < limits.DEEPEST)
    assert study.fault is None or "spec.trial.podTemplate" in study.fault


@pytest.mark.parametrize("levels", LEVELS)
def test_a_status_that_nests_too_deep_counts_as_not_written(levels: int) -> None:
    """It would be read in each pass, and a part of it written again."""
    document = answers.read(
        a_study(levels=levels).replace(
            b'"workers": 2', b'"best": {"trial": 1, "display": "", "params":{"a":' + deep(levels).encode() + b"}}"
        )
    )
    study = read_study(document)
    assert (study.status.phase is None) is (levels > 90)


GARBAGE: list[Any] = [None, 5, "x", [], {}, [[]], [None], {"a": []}]
FIELDS: list[Callable[[Document], tuple[Document, str]]] = [
    lambda it: (it["metadata"], "labels"),
    lambda it: (it["metadata"], "annotations"),
    lambda it: (it["metadata"], "ownerReferences"),
    lambda it: (it["metadata"], "finalizers"),
    lambda it: (it["metadata"], "generation"),
    lambda it: (it, "spec"),
    lambda it: (it, "status"),
    lambda it: (it["status"], "phase"),
    lambda it: (it["status"], "workers"),
    lambda it: (it["status"], "conditions"),
    lambda it: (it["spec"], "deletionPolicy"),
]


@pytest.mark.parametrize("garbage", GARBAGE, ids=json.dumps)
def test_garbage_anywhere_comes_to_handlers_as_nothing(garbage: Any) -> None:
    """Mappings are mappings and texts are texts, whatever was written."""
    for field in FIELDS:
        document = json.loads(a_study())
        holder, name = field(document)
        holder[name] = garbage
        found = answers.read_essence(json.dumps(document).encode())
        assert {type(found[part]) for part in ("metadata", "spec", "status")} == {dict}
        assert {type(found["metadata"][part]) for part in ("labels", "annotations")} == {dict}
        assert isinstance(found["metadata"]["ownerReferences"], list)
        assert isinstance(found["status"].get("phase", ""), str)


def test_a_large_object_is_read_as_quickly_as_a_small_one_twenty_times() -> None:
    """What is cut off is looked at once, by the token."""
    text = '[["\\\\"],' * 150_000 + "0" + "]" * 150_000
    with within(10):
        found = answers.read(f'{{"metadata":{{"uid":"u"}},"a":{text}}}'.encode())
    assert found["metadata"] == {"uid": "u"}


def test_kopf_reads_deep_and_large_objects_as_their_essence() -> None:
    """In lists, watches and answers to its patches; fails if Kopf no longer reads by what is given to it."""
    resource = "/apis/tuningstudy.io/v1alpha1/tuningstudies"
    lines = [b'{"type":"MODIFIED","object":' + a_study(levels=levels) + b"}\n" for levels in LEVELS]

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.method == "PATCH":
            return web.Response(body=a_study(levels=9_900), content_type="application/json")
        if "watch" not in request.query:
            items = b",".join(a_study(levels=levels) for levels in LEVELS)
            return web.Response(body=b'{"kind":"TuningStudyList","items":[' + items + b"]}")
        response = web.StreamResponse()
        await response.prepare(request)
        for line in lines:
            half = len(line) // 2
            await response.write(line[:half])
            await response.write(line[half:])
        return response

    async def scenario() -> list[Any]:
        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", resource, answer)
        async with TestServer(app) as server:
            url = str(server.make_url("")).rstrip("/")
            session = open_session(kopf.ConnectionInfo(server=url), connections=2)
            context: Any = APIContext(kopf.AiohttpSession(server=url, aiohttp_session=session))
            arguments: Any = {"settings": kopf.OperatorSettings(), "logger": logging.getLogger()}
            try:
                response = await api.request("get", resource, context=context, **arguments)
                listed = (await response.json())["items"]
                response = await api.request("patch", resource, context=context, payload={}, **arguments)
                patched = await response.json()
                response = await api.request("get", f"{resource}?watch=true", context=context, **arguments)
                watched = [json.loads(line)["object"] async for line in api.iter_jsonlines(response.content)]
            finally:
                await context.close()
            return [*listed, patched, *watched]

    assert asyncio.run(scenario()) == [ESSENCE] * (2 * len(LEVELS) + 1)
