"""Distributions of other systems in Optuna's words: bounds, a step or a logarithm, or choices. Pure."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from tuning_api.schema import Document, Scalar
from tuning_api.search import MAX_CHOICES
from tuning_operator.convert.reading import ConversionError

_SIGMAS = 3
"""How far from its mean a normal distribution is looked at: 99.7 % of it, as Katib does with its bounds."""
_DIGITS = 6
_NEARLY = 1e-9
"""How far from a multiple a bound may lie, in steps."""


@dataclass(frozen=True)
class Dimension:
    """A parameter but for its name, and what it means now that it did not mean before."""

    fields: Document
    changes: tuple[str, ...] = ()


def number(
    low: float,
    high: float,
    *,
    path: str,
    whole: bool = False,
    step: float | None = None,
    log: bool = False,
    changes: tuple[str, ...] = (),
) -> Dimension:
    """A range of numbers, both bounds included.

    Raises:
        ConversionError: there is no number in it.
    """
    if low > high:
        raise ConversionError(f"{path}: the lower bound {low:g} is above the upper one {high:g}")
    if log and low <= 0:
        log = False
        changes += (f"a logarithmic scale needs a lower bound above 0, and it is {low:g}: sampled evenly",)
    if step and step != 1 and log:
        changes += (f"a logarithmic parameter has no step: {step:g} is left out",)
    if whole and not all(float(value).is_integer() for value in (low, high, step or 1)):
        whole = False
        changes += ("its bounds or its step are no whole numbers: a float",)
    if log or (whole and step == 1):
        step = None
    fields: Document = {"type": "int" if whole else "float", "low": plain(low), "high": plain(high)}
    fields |= {"step": plain(step)} if step else {}
    return Dimension(fields | ({"log": True} if log else {}), changes)


def quantised(
    low: float, high: float, step: float, *, path: str, log: bool = False, changes: tuple[str, ...] = ()
) -> Dimension:
    """The multiples of a step between two bounds: whole numbers where the step is one.

    NB: the others round what they draw, so that the first and the last multiple are drawn half as often, and bounds that
    are none may be left. Optuna counts steps from the lower bound.
    """
    if step <= 0:
        raise ConversionError(f"{path}: a step above 0 is needed, and it is {step:g}")
    first, last = math.ceil(low / step - _NEARLY), math.floor(high / step + _NEARLY)
    if log and first < 1:
        first = 1
    if first > last:
        first = last = max(round(low / step), 1) if log else round(low / step)
    bounds = [float(Decimal(str(step)) * int(times)) for times in (first, last)]
    if not all(map(math.isclose, bounds, (low, high))):
        changes += (f"the multiples of {step:g} from {bounds[0]:g} to {bounds[1]:g}",)
    return number(*bounds, path=path, whole=float(step).is_integer(), step=step, log=log, changes=changes)


def exponents(low: float, high: float, base: float, *, path: str, step: float | None = None) -> Dimension:
    """A logarithmic range that was given by the exponents of its bounds."""
    try:
        bounds = rounded(base**low), rounded(base**high)
    except OverflowError:
        raise ConversionError(f"{path}: {base:g} to the power of {high:g} is no number") from None
    name = "e" if base == math.e else f"{base:g}"
    change = (
        f"bounds were exponents of {name} ({low:g} to {high:g}), now they are values ({bounds[0]:g} to {bounds[1]:g})"
    )
    if step is not None:
        return quantised(*bounds, step, path=path, log=True, changes=(change,))
    return number(*bounds, path=path, log=True, changes=(change,))


def normal(mu: float, sigma: float, *, path: str, step: float | None = None, log: bool = False) -> Dimension:
    """Optuna has no normal distribution: the range in which nearly all of it lies."""
    low, high = mu - _SIGMAS * sigma, mu + _SIGMAS * sigma
    if log:
        try:
            low, high = math.exp(low), math.exp(high)
        except OverflowError:
            raise ConversionError(f"{path}: e to the power of {high:g} is no number") from None
    change = (
        f"Optuna has no {'log-' if log else ''}normal distribution: sampled evenly within three standard deviations"
    )
    if step is not None:
        return quantised(rounded(low), rounded(high), step, path=path, log=log, changes=(change,))
    return number(rounded(low), rounded(high), path=path, log=log, changes=(change,))


def choices(values: Sequence[object], *, path: str, changes: tuple[str, ...] = ()) -> Dimension:
    """One of some values; lists and mappings become JSON texts, for a database keeps no others.

    Raises:
        ConversionError: there is none.
    """
    if not values:
        raise ConversionError(f"{path}: there is no value to choose from")
    if any(not isinstance(value, Scalar) for value in values):
        changes += ("lists and mappings are JSON texts now: json.loads in the objective",)
    scalars = [value if isinstance(value, Scalar) else json.dumps(value) for value in values]
    distinct: dict[Scalar, Scalar] = {}
    for value in scalars:
        distinct.setdefault(value, value)
    if len(distinct) < len(scalars):
        changes += ("a value that was there twice is there once (to Optuna 1 is 1.0, and true)",)
    if len(distinct) > MAX_CHOICES:
        return _in_steps(list(distinct.values()), path=path, changes=changes)
    return Dimension({"type": "categorical", "choices": list(distinct.values())}, changes)


def _in_steps(values: Sequence[Scalar], *, path: str, changes: tuple[str, ...]) -> Dimension:
    """More values than a parameter has choices, such as seeds: a range if they are whole numbers in equal steps.

    Raises:
        ConversionError: they are not.
    """
    whole = sorted(value for value in values if isinstance(value, int) and not isinstance(value, bool))
    if len(whole) == len(values):
        every = range(whole[0], whole[-1] + 1, whole[1] - whole[0])
        if len(every) == len(whole) and all(map(int.__eq__, every, whole)):
            changes += ("values in equal steps are a range now",)
            return number(every[0], every[-1], path=path, whole=True, step=every.step, changes=changes)
    raise ConversionError(f"{path}: a parameter has at most {MAX_CHOICES} choices, and these are {len(values)}")


def plain(value: float) -> float:
    """A number as one writes it: 3, not 3.0."""
    return int(value) if float(value).is_integer() and abs(value) < 10**15 else value


def rounded(value: float) -> float:
    """To as many digits as a person would write."""
    return float(f"{value:.{_DIGITS}g}")
