"""What a worker lets another process do, since it must stay one that can be forked: whatever starts threads.

That process is a fork, also of a worker whose trials get fresh interpreters: it computes nothing, and one that hangs, since
a thread that it does not have held a lock, is ended like one that gets no answer.
"""

import os
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import TypeVar

from tuning_api.store import StoreError
from tuning_trial import child, interrupts

Answer = TypeVar("Answer")


def run(work: Callable[[], Answer], *, seconds: float) -> Answer:
    """Do something that needs the network, in a process of its own, and wait for it.

    Args:
        work: Its answer can be pickled.
        seconds: How long it may take.

    Raises:
        StoreError: as raised by `work`, or there was no answer in time.
    """
    context = get_context("fork")
    answers, sender = context.Pipe(duplex=False)
    process = context.Process(target=_do, name="errand", args=(work, sender), kwargs={"parent": os.getpid()})
    with interrupts.held():
        process.start()
    sender.close()
    try:
        answer = answers.recv() if answers.poll(seconds) else StoreError(f"no answer in {seconds:.0f} s")
    except EOFError:
        answer = StoreError("the process that asked it ended without an answer")
    finally:
        process.kill()
        process.join()
        process.close()
        answers.close()
    if isinstance(answer, StoreError):
        raise answer
    return answer  # type: ignore[no-any-return]


def _do(work: Callable[[], object], answers: Connection, *, parent: int) -> None:
    interrupts.restore_in_child()
    child.end_with_parent(parent)
    try:
        answers.send(work())
    except StoreError as error:
        answers.send(error)
