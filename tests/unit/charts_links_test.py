"""Signed links: whoever has one may open one study until it ends, and nothing else."""

from datetime import timedelta
from typing import Any

import pytest
from tests.support.builders import NOW

from tuning_api.status import Charts
from tuning_operator.charts.links import Ticket, namespace_mark, read_ticket, sign, study_links, study_path
from tuning_operator.tenancy import role_password

KEY = "a signing key"
END = 1_800_000_000
UID = "5f1c"
MARK = namespace_mark(UID)


def ticket(
    *, end: int = END, mark: str = MARK, key: str = KEY, namespace: str = "research", study: str = "digits"
) -> str:
    return sign(Ticket(end=end, mark=mark), key=key, namespace=namespace, study=study)


def signature(**of: Any) -> str:
    return ticket(**of).rpartition(".")[2]


TICKET = ticket()
OTHER_MARK = namespace_mark("the uid of another namespace of this name")
FORGERIES = {
    "another study": (TICKET, KEY, "research", "glosses"),
    "another namespace": (TICKET, KEY, "other", "digits"),
    "another key": (TICKET, "another key", "research", "digits"),
    "a shorter signature": (TICKET[:-1], KEY, "research", "digits"),
    "a longer signature": (TICKET + "A", KEY, "research", "digits"),
    "nothing": ("", KEY, "research", "digits"),
    "an end without a signature": (f"{END}.{MARK}.", KEY, "research", "digits"),
    "a signature without an end": (signature(), KEY, "research", "digits"),
    "a later end": (f"{END + 1}.{MARK}.{signature()}", KEY, "research", "digits"),
    "the same end, written otherwise": (f"0{TICKET}", KEY, "research", "digits"),
    "an end in other digits": (TICKET.replace("8", "٨", 1), KEY, "research", "digits"),
    "an end that is no number": (f"never.{MARK}.{signature()}", KEY, "research", "digits"),
    "the signature of another end": (f"{END}.{MARK}.{signature(end=END - 1)}", KEY, "research", "digits"),
    "another mark": (f"{END}.{OTHER_MARK}.{signature()}", KEY, "research", "digits"),
    "the signature of another mark": (f"{END}.{MARK}.{signature(mark=OTHER_MARK)}", KEY, "research", "digits"),
    "no mark": (f"{END}.{signature()}", KEY, "research", "digits"),
    "letters of other alphabets": ("ü" * len(TICKET), KEY, "research", "digits"),
    "a ticket of nothing": (ticket(namespace="", study=""), KEY, "research", "digits"),
    "the names in another order": (ticket(namespace="digits", study="research"), KEY, "research", "digits"),
    "a signature in other letters": (f"{END}.{MARK}.{signature().swapcase()}", KEY, "research", "digits"),
    "a signature with its padding": (TICKET + "=", KEY, "research", "digits"),
    "a worker's password": (
        f"{END}.{MARK}.{role_password(KEY, role=f'{END}.{MARK}/research/digits', uid=UID)}",
        KEY,
        "research",
        "digits",
    ),
    "the two names run together otherwise": (TICKET, KEY, "researchd", "igits"),
    "a name that has moved into the mark": (f"{END}.{MARK}/research.{signature()}", KEY, "digits", ""),
}


@pytest.mark.parametrize(("forged", "key", "namespace", "study"), FORGERIES.values(), ids=FORGERIES)
def test_a_ticket_is_refused_for(forged: str, key: str, namespace: str, study: str) -> None:
    """It is good for one study of one namespace, until one moment, under one key."""
    assert read_ticket(forged, key=key, namespace=namespace, study=study) is None


def test_a_ticket_is_accepted_for_its_study() -> None:
    """Any server with the key can tell, and nothing is stored."""
    assert read_ticket(TICKET, key=KEY, namespace="research", study="digits") == Ticket(end=END, mark=MARK)


WEEK = timedelta(days=7)


def links(
    old: Charts | None = None, *, after: timedelta = timedelta(), lifetime: timedelta = WEEK, uid: str = UID
) -> Charts:
    return study_links(
        old,
        external_url="https://charts.example/tuning/",
        key=KEY,
        namespace="research",
        study="digits",
        uid=uid,
        lifetime=lifetime,
        now=NOW + after,
    )


def test_the_status_has_a_link_for_the_page_and_one_for_each_of_four_charts() -> None:
    """Below one another, so that one ticket opens all five."""
    signed = ticket(end=int((NOW + WEEK).timestamp()))
    report = f"https://charts.example/tuning/studies/research/digits/{signed}/"
    assert {
        "report": report,
        "optimizationHistory": report + "optimization-history",
        "paramImportances": report + "param-importances",
        "parallelCoordinate": report + "parallel-coordinate",
        "slice": report + "slice",
    } == links().to_document()


SECOND = timedelta(seconds=1)
OLD = {
    "a moment later": (links(), SECOND, True),
    "a second before half of its time is over": (links(), WEEK / 2 - SECOND, True),
    "when half of its time is over": (links(), WEEK / 2, False),
    "after its end": (links(), WEEK * 3, False),
    "when the lifetime was shortened": (links(lifetime=WEEK * 10), SECOND, False),
    "when the clock was set back": (links(after=SECOND * 2), SECOND, False),
    "when the namespace was made again": (links(uid="another"), SECOND, False),
    "when an older version wrote it": (
        Charts(report=f"https://charts.example/studies/research/digits/{END}.{signature()}/"),
        SECOND,
        False,
    ),
}


@pytest.mark.parametrize(("old", "after", "stays"), OLD.values(), ids=OLD)
def test_a_link_stays_until_half_of_its_time_is_over(old: Charts, after: timedelta, *, stays: bool) -> None:
    """A status is written for it twice in a lifetime, and what is read there is good for half of one at least."""
    fresh = links(after=after)
    assert links(old, after=after) == (old if stays else fresh)
    assert fresh != old


def test_a_link_under_an_old_key_or_address_is_replaced() -> None:
    """Whoever changes either wants all links changed; their end stays."""
    old = Charts(report=links().report.replace("charts.example", "old.example").replace(signature()[:5], "XXXXX"))
    assert links(old, after=SECOND) == links()


def test_names_are_quoted_in_a_path() -> None:
    """Kubernetes' names need no quoting, and this does not rely on it."""
    assert study_path(key=KEY, namespace="a b", study="x/y?", uid=UID, end=END).startswith("/studies/a%20b/x%2Fy%3F/")
