"""Confidence intervals by resampling."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from tqdm import tqdm


def bootstrap(
    figures: Callable[[npt.NDArray[np.intp]], dict[str, float]],
    num_images: int,
    num_draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    progress: bool = False,
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of figures under resampling of images with replacement.

    Images are drawn, not people, since the people of one photo are not independent. Source: Efron and Tibshirani,
    "An Introduction to the Bootstrap", 1993, chapter 13.

    Args:
        figures: Maps drawn image indices, with repetitions, to figures.
        num_images: Number of images.
        num_draws: Number of resamplings.
        level: Coverage of the interval.
        seed: Seed of the draws.
        progress: Show a progress bar.

    Returns:
        (low, high) by figure.

    Raises:
        ValueError: If `num_draws` or `level` makes no interval.
    """
    if num_draws < 2 or not 0 < level < 1:
        raise ValueError(f'The bootstrap needs at least 2 draws and a level between 0 and 1, not {num_draws}, {level}.')
    generator = np.random.default_rng(seed)
    draws = [
        figures(generator.integers(num_images, size=num_images))
        for _ in tqdm(range(num_draws), desc='bootstrap', unit='draw', disable=not progress)
    ]
    intervals = {}
    for name in draws[0]:
        values = [d[name] for d in draws]
        if np.isnan(values).all():  # nobody, whom the figure needs, is in any photo
            intervals[name] = (np.nan, np.nan)
            continue
        low, high = np.nanpercentile(values, (50 * (1 - level), 50 * (1 + level)))
        intervals[name] = float(low), float(high)
    return intervals
