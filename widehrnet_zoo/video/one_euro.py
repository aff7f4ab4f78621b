"""The 1 euro filter."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import UserError


@dataclass(frozen=True)
class SmoothConfig:
    """How keypoints are smoothed.

    Attributes:
        min_cutoff: Cutoff at rest, in Hz: lower means less jitter.
        beta: Growth of the cutoff with speed, in Hz per (diagonal of the person's box per second): higher means less
            lag.
        derivative_cutoff: Cutoff of the speed, in Hz.

    Raises:
        UserError: If a cutoff is not above 0 or `beta` is below 0.
    """

    min_cutoff: float = 1.0
    beta: float = 10.0
    derivative_cutoff: float = 1.0

    def __post_init__(self) -> None:
        if not (self.min_cutoff > 0 and self.derivative_cutoff > 0 and self.beta >= 0):
            raise UserError(
                f'Smoothing needs cutoffs above 0 and beta of at least 0, not {self.min_cutoff}, '
                f'{self.derivative_cutoff} and {self.beta}.'
            )


class OneEuro:
    """A low-pass filter whose cutoff grows with speed: steady at rest, without lag in motion.

    `x_t' = a(f) x_t + (1 - a(f)) x_(t-1)'` with `a(f) = 1 / (1 + 1 / (2 pi f dt))`; the cutoff `f = min_cutoff + beta
    |v'|`, and `v'` the speed, smoothed in the same way at `derivative_cutoff`. Source: Casiez, Roussel and Vogel,
    "1 euro filter: a simple speed-based low-pass filter for noisy input in interactive systems", CHI 2012. Here the
    speed of a point is the length of its velocity over `scale`, so that one setting fits people of any size.

    Args:
        config: The settings.
    """

    def __init__(self, config: SmoothConfig | None = None):
        self.config = config or SmoothConfig()
        self._time: float | None = None
        self._values = np.empty(0)
        self._speeds = np.empty(0)

    def __call__(self, points: npt.ArrayLike, time: float, scale: float = 1.0) -> npt.NDArray[np.float64]:
        """Smooth the next points.

        Args:
            points: (K, D).
            time: In seconds. At a time that is not after the last one, the last answer is given again.
            scale: The unit of length, in that of the points.

        Returns:
            (K, D) smoothed points.

        Raises:
            ValueError: If the shape changes or the scale is not above 0.
        """
        points = np.asarray(points, float)
        if scale <= 0:
            raise ValueError(f'scale must be above 0, not {scale}.')
        if self._time is None:
            self._time, self._values, self._speeds = time, points.copy(), np.zeros_like(points)
            return points.copy()
        if points.shape != self._values.shape:
            raise ValueError(f'The points changed from {self._values.shape} to {points.shape}.')
        step = time - self._time
        if step <= 0:
            return self._values.copy()
        config = self.config
        weight = _weight(np.array(config.derivative_cutoff), step)
        self._speeds = self._speeds + weight * ((points - self._values) / step - self._speeds)
        speed = np.linalg.norm(self._speeds, axis=-1, keepdims=True) / scale
        self._values = self._values + _weight(config.min_cutoff + config.beta * speed, step) * (points - self._values)
        self._time = time
        return self._values.copy()


def _weight(cutoff: npt.NDArray[np.float64], step: float) -> npt.NDArray[np.float64]:
    return 1 / (1 + 1 / (2 * math.pi * cutoff * step))
