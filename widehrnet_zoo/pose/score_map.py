"""From the height of a heatmap's peak to the chance that the keypoint is right."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import UserError


@dataclass(frozen=True)
class ScoreMap:
    """A monotone, piecewise linear map of keypoint scores.

    The peak of a heatmap says which of two keypoints is surer, but not how often such a keypoint is right. The map is
    fitted for a file of weights on photos that were kept out of its training (`metrics.calibration.fit_score_map`) and
    stands in its config as `score_map`.

    Attributes:
        peaks: Heights of peaks, increasing.
        chances: For each, the share of keypoints with that peak within OKS 0.5 of the truth, in 0..1, not decreasing.

    Raises:
        UserError: If the numbers are not such a map.
    """

    peaks: tuple[float, ...]
    chances: tuple[float, ...]

    def __post_init__(self) -> None:
        peaks, chances = np.asarray(self.peaks, float), np.asarray(self.chances, float)
        if peaks.ndim != 1 or peaks.shape != chances.shape or len(peaks) < 2:
            raise UserError(
                f'A score map needs two or more peaks with as many chances, not {len(self.peaks)} and '
                f'{len(self.chances)}.'
            )
        if not (np.isfinite(peaks).all() and (np.diff(peaks) > 0).all()):
            raise UserError(f'The peaks of a score map must be finite and increase, not {list(self.peaks)}.')
        if not ((chances >= 0).all() and (chances <= 1).all() and (np.diff(chances) >= 0).all()):
            raise UserError(f'The chances of a score map must lie in 0..1 and not decrease, not {list(self.chances)}.')

    def __call__(self, scores: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Chances of peaks of any shape; beyond the first and the last peak the map is constant."""
        return np.interp(np.asarray(scores, float), self.peaks, self.chances).astype(np.float32)

    def to_config(self) -> dict[str, list[float]]:
        """As it stands in a model's config: `{'peaks': [...], 'chances': [...]}`."""
        return {'peaks': list(self.peaks), 'chances': list(self.chances)}

    @classmethod
    def from_config(cls, value: Any) -> 'ScoreMap':
        """Read what `to_config` wrote.

        Raises:
            UserError: If it is something else.
        """
        try:
            peaks, chances = (_numbers(value[name]) for name in ('peaks', 'chances'))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f'score_map in the config must be {{"peaks": [...], "chances": [...]}}, not {value!r:.200}.'
            ) from error
        return cls(peaks, chances)


def score_map_of(model: Any) -> ScoreMap | None:
    """The map of a model's scores.

    Args:
        model: A model; one with a map has it as `score_map`, a `ScoreMap` or what stands in a config.

    Returns:
        The map; `None` where scores stay the peaks of heatmaps.

    Raises:
        UserError: If it is not a score map.
    """
    found = getattr(model, 'score_map', None)
    return found if found is None or isinstance(found, ScoreMap) else ScoreMap.from_config(found)


def _numbers(values: Sequence[Any]) -> tuple[float, ...]:
    if isinstance(values, str):
        raise TypeError
    return tuple(float(v) for v in values)
