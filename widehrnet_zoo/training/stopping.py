"""How a run is asked to stop, and what else its loop keeps Python from doing."""

import gc
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def few_collections() -> Iterator[None]:
    """Leave what is there out of garbage collection."""
    # looking through all that Python imported takes a fifth of a second, every few steps
    gc.collect()
    frozen = gc.get_freeze_count()
    gc.freeze()
    try:
        yield
    finally:
        # a caller that had frozen what was there keeps it so
        if not frozen:
            gc.unfreeze()


class StopRequest:
    """Whether the run was asked to stop.

    Attributes:
        asked: Whether Ctrl-C or SIGTERM came.
    """

    def __init__(self) -> None:
        self.asked = False

    @contextmanager
    def listen(self) -> Iterator[None]:
        """Between steps, Ctrl-C and SIGTERM stop the run with its state saved; another one later stops at once."""
        first = 0.0

        def ask(number: int, frame: Any) -> None:
            nonlocal first
            if not self.asked:
                self.asked, first = True, time.monotonic()
            # where a group of processes is told to stop, a launcher in it tells each of them once more
            elif time.monotonic() - first > 2:
                raise KeyboardInterrupt

        before: dict[signal.Signals, Any] = {}
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                before[number] = signal.signal(number, ask)
        except ValueError:
            # signals belong to the main thread; elsewhere they stay with their owner
            pass
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
