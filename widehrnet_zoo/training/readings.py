"""Numbers of the training steps, read when the device has them, so that no step waits for another."""

from collections import deque
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

_AHEAD = 8


class Readings:
    """A queue of steps whose numbers are on their way.

    On a CPU they are there at once. On an accelerator they are copied beside the work that follows, and this process is
    held back only where it is eight steps ahead.
    """

    def __init__(self) -> None:
        self._waiting: deque[tuple[Tensor, Any, dict[str, Any]]] = deque()

    def add(self, values: Tensor, row: dict[str, Any]) -> None:
        """Queue the numbers of a step.

        Args:
            values: (n,), on the device.
            row: What comes back with them.
        """
        if values.device.type == 'cuda':
            copied = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            copied.copy_(values, non_blocking=True)
            event = torch.cuda.Event()
            event.record()
            self._waiting.append((copied, event, row))
        else:
            self._waiting.append((values, None, row))

    def read(self, wait: bool = False) -> Iterator[tuple[list[float], dict[str, Any]]]:
        """Take those that are there, in their order.

        Yields:
            The numbers and the row.
        """
        while self._waiting:
            values, event, row = self._waiting[0]
            if event is not None and not (event.query() or wait or len(self._waiting) > _AHEAD):
                return
            if event is not None:
                event.synchronize()
            self._waiting.popleft()
            yield values.tolist(), row
