"""Signed links: whoever has one may open one study, and nothing else."""

import pytest

from tuning_operator.charts.links import is_signed, sign, study_links, study_path
from tuning_operator.database import role_password

KEY = "a signing key"
SIGNATURE = sign(key=KEY, namespace="research", study="digits")

FORGERIES = {
    "another study": (SIGNATURE, KEY, "research", "glosses"),
    "another namespace": (SIGNATURE, KEY, "other", "digits"),
    "another key": (SIGNATURE, "another key", "research", "digits"),
    "a shorter signature": (SIGNATURE[:-1], KEY, "research", "digits"),
    "a longer signature": (SIGNATURE + "A", KEY, "research", "digits"),
    "no signature": ("", KEY, "research", "digits"),
    "letters of other alphabets": ("ü" * len(SIGNATURE), KEY, "research", "digits"),
    "a signature of nothing": (sign(key=KEY, namespace="", study=""), KEY, "research", "digits"),
    "the names in another order": (sign(key=KEY, namespace="digits", study="research"), KEY, "research", "digits"),
    "a signature in other letters": (SIGNATURE.swapcase(), KEY, "research", "digits"),
    "a signature with its padding": (SIGNATURE + "=", KEY, "research", "digits"),
    "a worker's password": (role_password(KEY, "research/digits"), KEY, "research", "digits"),
    "the two names run together otherwise": (SIGNATURE, KEY, "researchd", "igits"),
}


@pytest.mark.parametrize(("signature", "key", "namespace", "study"), FORGERIES.values(), ids=FORGERIES)
def test_a_signature_is_refused_for(signature: str, key: str, namespace: str, study: str) -> None:
    """It is good for one study under one key."""
    assert not is_signed(signature, key=key, namespace=namespace, study=study)


def test_a_signature_is_accepted_for_its_study() -> None:
    """Any server with the key can tell, and nothing is stored."""
    assert is_signed(SIGNATURE, key=KEY, namespace="research", study="digits")


def test_the_status_has_a_link_for_the_page_and_one_for_each_of_four_charts() -> None:
    """Below one another, so that one signature opens all five."""
    links = study_links(external_url="https://charts.example/tuning/", key=KEY, namespace="research", study="digits")
    report = f"https://charts.example/tuning/studies/research/digits/{SIGNATURE}/"
    assert {
        "report": report,
        "optimizationHistory": report + "optimization-history",
        "paramImportances": report + "param-importances",
        "parallelCoordinate": report + "parallel-coordinate",
        "slice": report + "slice",
    } == links.to_document()


def test_names_are_quoted_in_a_path() -> None:
    """Kubernetes' names need no quoting, and this does not rely on it."""
    assert study_path(key=KEY, namespace="a b", study="x/y?").startswith("/studies/a%20b/x%2Fy%3F/")
