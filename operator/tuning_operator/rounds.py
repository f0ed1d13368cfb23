"""The rounds: at each tick, which of the studies get a pass (see `decide.attention`)."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count

from tuning_operator.decide.attention import (
    AT_REST,
    LONGEST_PUT_OFF,
    Attention,
    after_pass,
    hurries,
    is_due,
    since,
)
from tuning_operator.errors import TuningError
from tuning_operator.model import Look, Pulse, StudyKey
from tuning_operator.turns import Turns

logger = logging.getLogger(__name__)

BEAT = timedelta(seconds=0.5)
"""After so long those are looked at that cannot wait for a tick."""
Pulses = Callable[[Iterable[StudyKey]], Mapping[StudyKey, Pulse]]


class Rounds:
    """The studies, and what is remembered of them; used in the event loop's thread alone."""

    def __init__(
        self, *, pulses: Pulses, turns: Turns, seconds: float, went: Callable[[], None] = lambda: None
    ) -> None:
        """See the class.

        Args:
            pulses: Reads the pulses of studies, as far as they can be read.
            turns: In whose threads it does.
            seconds: The time from tick to tick.
            went: Called after each round that went well, whether or not any study wanted a pass.
        """
        self._pulses = pulses
        self._went = went
        self._turns = turns
        self._tick = timedelta(seconds=seconds)
        self._known: dict[StudyKey, Attention] = {}
        self._hurried: set[StudyKey] = set()
        self._under_way: dict[StudyKey, asyncio.Future[None]] = {}

    def add(self, key: StudyKey, *, has_ended: bool = False) -> None:
        """Look after a study from now on; all that have ended, after a restart, at one time or another of an hour."""
        ago = random.uniform(0, 1) * AT_REST  # noqa: S311 - no secret
        self._known.setdefault(key, since(datetime.now(UTC) - ago) if has_ended else Attention())

    def drop(self, key: StudyKey) -> None:
        """A study is gone."""
        self._known.pop(key, None)
        self._hurried.discard(key)

    def passed(self, key: StudyKey, look: Look | None) -> None:
        """A study had a pass, whoever asked for it."""
        known = self._known.get(key)
        if known is None:
            return
        self._known[key] = after_pass(known, look, now=datetime.now(UTC), tick=self._tick)
        if look and look.hurries_until:
            self._hurried.add(key)
        else:
            self._hurried.discard(key)

    async def run(self, ask: Callable[[StudyKey], Awaitable[None]]) -> None:
        """Go on for ever; `ask` makes a pass, and calls `passed`."""
        beats = max(1, round(self._tick / BEAT))
        for beat in count(1):
            await asyncio.sleep(self._tick.total_seconds() / beats)
            try:
                await self._go_round(ask, is_tick=beat % beats == 0)
                self._went()
            except Exception:
                # A mistake of ours; without the rounds the operator would seem to live, and look after nothing.
                logger.exception("a round failed")

    async def _go_round(self, ask: Callable[[StudyKey], Awaitable[None]], *, is_tick: bool) -> None:
        for key in await self.due(is_tick=is_tick):
            # Not waited for: one study whose pass takes long holds up no other.
            task = self._under_way[key] = asyncio.ensure_future(ask(key))
            task.add_done_callback(partial(self._is_back, key))

    def _is_back(self, key: StudyKey, _task: asyncio.Future[None]) -> None:
        del self._under_way[key]

    async def due(self, *, is_tick: bool = True) -> list[StudyKey]:
        """The studies that want a pass now; their pulses are remembered as what it has seen.

        Args:
            is_tick: Look at all; else only at those that cannot wait for a tick.
        """
        now = datetime.now(UTC)
        asked = list(self._known) if is_tick else [key for key in self._hurried if hurries(self._known[key], now=now)]
        pulses = await self._read(asked)
        now = datetime.now(UTC)
        due = [
            key
            for key in asked
            if key in self._known and key not in self._under_way and is_due(self._known[key], pulses.get(key), now=now)
        ]
        for key in due:
            self._known[key] = replace(self._known[key], pulse=pulses.get(key))
        return due

    async def _read(self, asked: Iterable[StudyKey]) -> Mapping[StudyKey, Pulse]:
        moving = {key for key in asked if (look := self._known[key].look) and look.moves}
        if not moving:
            return {}
        try:
            pulses = await asyncio.wrap_future(self._turns.submit("", partial(self._pulses, moving)))
        except TuningError as error:
            logger.warning("the pulses could not be read: %s", error)
            self._look_without_pulses(moving, within=timedelta(0))  # passes say so in words
            return {}
        self._look_without_pulses(moving - pulses.keys(), within=LONGEST_PUT_OFF)
        return pulses

    def _look_without_pulses(self, keys: set[StudyKey], *, within: timedelta) -> None:
        for key in self._known.keys() & keys:
            known = self._known[key]
            self._known[key] = replace(known, look=None, patience=min(known.patience, within))
