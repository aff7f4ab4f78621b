"""The live tab, without the page: frames of a visitor's camera, one after the other."""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import UserError
from ..video.people import VideoEstimator
from .models import DemoModels

EMPTY = 'Start the camera.'

_RATE_OVER = 20
"""Frames over which their rate is measured."""

_PAUSE = 2.0
"""Seconds without a frame after which the camera was stopped."""


class Live:
    """What is known of a visitor's camera from one frame to the next."""

    def __init__(self, model: str, people: VideoEstimator, size: tuple[int, ...]):
        self.model, self.people, self.size = model, people, size
        self._times: deque[float] = deque(maxlen=_RATE_OVER)

    def rate(self, now: float) -> float:
        """Frames per second with this frame; 0 for the first.

        Args:
            now: The time at which it is done, in seconds.
        """
        self._times.append(now)
        return (len(self._times) - 1) / (now - self._times[0]) if now > self._times[0] else 0.0

    def was_stopped(self, now: float) -> bool:
        """Whether there was no frame for a while."""
        return bool(self._times) and now - self._times[-1] > _PAUSE


class LivePage:
    """What the tab's events do."""

    def __init__(self, models: DemoModels, clock: Callable[[], float] = time.monotonic):
        self._models, self._clock = models, clock
        self._lock = threading.Lock()

    def look(
        self, frame: npt.NDArray[np.uint8] | None, model: str, threshold: float, live: Live | None
    ) -> tuple[Any, str, Live | None]:
        """Find the people in a frame.

        Args:
            frame: uint8 (height, width, 3), RGB; `None` where there is none.
            model: The model's name.
            threshold: Keypoints with a lower score are not drawn.
            live: What the frame before gave; `None` for the first.

        Returns:
            The frame with the people on it, a sentence, and what the next frame needs.
        """
        if frame is None:
            return None, EMPTY, None
        try:
            with self._lock:  # a network uses all cores by itself
                size = frame.shape[:2]  # which a telephone that is turned changes
                if live is None or (live.model, live.size) != (model, size) or live.was_stopped(self._clock()):
                    live = Live(model, VideoEstimator(self._models.get(model)), size)
                result, numbers = live.people(frame, self._clock())
        except (UserError, ImportError) as error:
            return frame, str(error), None
        rate = live.rate(self._clock())
        who = f' ({", ".join(f"number {n}" for n in numbers)})' if numbers else ''
        people = f'{len(result)} {"person" if len(result) == 1 else "people"}{who}'
        shown = np.asarray(result.draw(frame, threshold=threshold))
        return shown, f'{people}, {rate:.1f} frames per second.' if rate else f'{people}.', live
