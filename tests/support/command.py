"""`tuningstudy` in this process, and what it said."""

import logging
import sys
from dataclasses import dataclass

import pytest

from tuning_operator.cli.__main__ import main


@dataclass(frozen=True)
class Tuningstudy:
    """The command; it runs in the test's current folder."""

    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, standard output and standard error."""
        # A test of the operator may have left a handler that writes to its own, closed, standard error.
        self.monkeypatch.setattr(logging.getLogger(), "handlers", [])
        self.monkeypatch.setattr(sys, "argv", ["tuningstudy", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        said = self.capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err
