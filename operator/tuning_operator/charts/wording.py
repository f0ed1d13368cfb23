"""Values in words, as the page and its charts say them."""

from collections.abc import Sequence

from optuna.trial import TrialState

LABELS = {
    TrialState.COMPLETE: "Complete",
    TrialState.PRUNED: "Pruned",
    TrialState.FAIL: "Failed",
    TrialState.RUNNING: "Running",
    TrialState.WAITING: "Waiting",
}
"""What a person calls the states of a trial."""

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400


def shown(value: object) -> str:
    """A value of a parameter or a metric."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def counted(number: int, noun: str) -> str:
    """A number of things: "1 trial", "2 trials"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def told_apart(names: Sequence[str], most: int) -> dict[str, str]:
    """A label for each of different names, of so many characters at most and no two alike.

    Of long names what they have in common at the front is left out, up to the last word of it, then their middle.
    """
    long = [name for name in names if len(name) > most]
    common = _common_start(long) if len(long) > 1 else ""
    common = common[: max(map(common.rfind, "._-/ ")) + 1]
    return {name: name for name in names} | _without(common, long, most)


def _without(common: str, names: Sequence[str], most: int) -> dict[str, str]:
    start = "…" if common else ""
    labels = {name: _without_its_middle(start + name.removeprefix(common), most) for name in names}
    alike: dict[str, list[str]] = {}
    for name, label in labels.items():
        alike.setdefault(label, []).append(name)
    # NB: this ends: what differs comes first in their labels then, and so fewer of them are alike.
    for same in alike.values():
        if len(same) > 1:
            labels |= _without(_common_start(same), same, most)
    return labels


def _common_start(names: Sequence[str]) -> str:
    """What all names begin with: of the first and the last in their order."""
    first, last = min(names), max(names)
    return first[
        : next((at for at, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), len(first))
    ]


def _without_its_middle(text: str, most: int) -> str:
    """A text that fits its place, with its end, which tells more than its beginning."""
    head = most // 3
    return text if len(text) <= most else f"{text[:head]}…{text[len(text) - (most - head - 1) :]}"


def shortened(text: str, most: int = 40) -> str:
    """A text that fits its place."""
    return text if len(text) <= most else text[: most - 1] + "…"


def duration(seconds: float | None) -> str:
    """A span of time in its two largest units. Coarse on purpose: a page that says the same is not sent again."""
    if seconds is None:
        return ""
    if 0 < seconds < 9.95:  # noqa: PLR2004 - below it a tenth matters
        return f"{seconds:.1f} s"
    whole = max(10, int(seconds)) if seconds else 0
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min" + (f" {whole % _MINUTE} s" if whole < 10 * _MINUTE else "")
    if whole < _DAY:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"
    return f"{whole // _DAY} d {whole % _DAY // _HOUR} h"
