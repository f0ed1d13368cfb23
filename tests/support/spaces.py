"""Search spaces for property tests, valid and of every kind."""

from typing import Any

from hypothesis import strategies as st

from tuning_api import space
from tuning_api.search import Parameter

_SCALARS = st.one_of(st.text("abc", min_size=1, max_size=2), st.integers(-3, 3), st.booleans(), st.none())


@st.composite
def _finite(draw: st.DrawFn, name: str) -> dict[str, Any]:
    kind = draw(st.sampled_from(["categorical", "int", "float"]))
    if kind == "categorical":
        # NB: to Optuna, as to Python, 1 and true are the same choice.
        return {
            "name": name,
            "type": kind,
            "choices": draw(st.lists(_SCALARS, min_size=1, max_size=3, unique_by=lambda choice: (choice, choice == 1))),
        }
    low, steps = draw(st.integers(-5, 5)), draw(st.integers(0, 3))
    step = draw(st.integers(1, 3))
    document = {"name": name, "type": kind, "low": low, "high": low + steps * step, "step": step}
    if kind == "float":
        document |= {"low": low / 10, "high": (low + steps * step) / 10, "step": step / 10}
    return document


@st.composite
def _endless(draw: st.DrawFn, name: str) -> dict[str, Any]:
    low = draw(st.floats(1e-6, 1e3))
    width = draw(st.floats(1e-3, 1e3))
    return {"name": name, "type": "float", "low": low, "high": low + width, "log": draw(st.booleans())}


def _parameters(documents: list[dict[str, Any]]) -> list[Parameter]:
    return [Parameter.model_validate(document) for document in documents]


@st.composite
def finite_spaces(draw: st.DrawFn, *, largest: int = 3) -> list[Parameter]:
    """Spaces with an end, without conditions."""
    names = "abcd"[: draw(st.integers(1, largest))]
    return _parameters([draw(_finite(name)) for name in names])


@st.composite
def conditional_spaces(draw: st.DrawFn, *, endless: bool = False) -> list[Parameter]:
    """Spaces in which parameters exist only with values of others."""
    documents: list[dict[str, Any]] = []
    for name in "abcd"[: draw(st.integers(2, 4))]:
        document = draw(st.one_of(_finite(name), _endless(name)) if endless else _finite(name))
        parents = [item for item in documents if item["type"] != "float"]
        if parents and draw(st.booleans()):
            parent = draw(st.sampled_from(parents))
            values = space.candidates(Parameter.model_validate(parent)) or []
            some = draw(st.lists(st.sampled_from(values), min_size=1, max_size=2, unique_by=repr))
            document |= {"when": {"parameter": parent["name"], "in": some}}
        documents.append(document)
    return _parameters(documents)


def flat_spaces() -> st.SearchStrategy[list[Parameter]]:
    """Spaces of every kind of parameter, without conditions."""
    return st.lists(st.sampled_from("abcd"), min_size=1, max_size=4, unique=True).flatmap(
        lambda names: st.tuples(*(st.one_of(_finite(name), _endless(name)) for name in names)).map(
            lambda documents: _parameters(list(documents))
        )
    )
