"""Signs of life, and how many of them are sent."""

import pytest

from tuning_trial import pulse
from tuning_trial.pulse import Pulse


@pytest.mark.parametrize(
    ("progress_timeout", "sent"),
    [(None, 0), ("1h", 4), ("5s", 7), ("1s", 31)],
)
def test_beats_are_sent_as_often_as_they_are_needed(
    progress_timeout: str | None, sent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once a second, or ten times within a shorter limit; and never if there is none."""
    beats: list[object] = []
    own = Pulse(beats.append, progress_timeout=progress_timeout)
    for tick in range(301):
        monkeypatch.setattr(pulse.time, "monotonic", lambda now=1000 + tick / 100: now)
        own.beat()
    assert len(beats) == pytest.approx(sent, rel=0.1)
