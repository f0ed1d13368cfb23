"""Which lines of a worker's log are a trial's: those from its claim to its end. Pure.

A worker runs one trial at a time. Its own lines begin with a time, and those about a trial then say `trial 12`
(`tuning_trial.worker`, `tuning_trial.log`); what the person's code prints meanwhile comes from the trial, too.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_TIME = r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z"
_TIMED = re.compile(_TIME)
_OF_A_TRIAL = re.compile(
    rf"{_TIME} (?:[A-Z]+ )?trial (?P<number>\d+)(?P<end> complete| pruned| failed| stopped| was)?\b"
)


@dataclass
class TrialFilter:
    """Reads a worker's log line by line.

    Attributes:
        number: the trial that is looked for.
        has_begun: whether a line of it was seen.
        is_over: whether a line was seen after its last one.
    """

    number: int
    has_begun: bool = False
    is_over: bool = False
    _is_its: bool = False
    _has_ended: bool = False

    def takes(self, line: str) -> bool:
        """Whether the next line is the trial's."""
        if found := _OF_A_TRIAL.match(line):
            self._is_its = int(found["number"]) == self.number
            self._has_ended = self._is_its and (self._has_ended or bool(found["end"]))
        elif self._has_ended and _TIMED.match(line):
            self._is_its = False
        self.has_begun = self.has_begun or self._is_its
        self.is_over = self.has_begun and not self._is_its
        return self._is_its


def lines_of(number: int, lines: Iterable[str]) -> Iterator[str]:
    """The lines of a trial in the log of the worker that ran it; none if another one did."""
    trial = TrialFilter(number)
    for line in lines:
        if trial.takes(line):
            yield line
        elif trial.is_over:
            return
