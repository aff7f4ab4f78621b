"""Confidence intervals by resampling."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt


def bootstrap(
    figures: Callable[[npt.NDArray[np.intp]], dict[str, float]],
    num_images: int,
    num_draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
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

    Returns:
        (low, high) by figure.

    Raises:
        ValueError: If `num_draws` or `level` makes no interval.
    """
    if num_draws < 2 or not 0 < level < 1:
        raise ValueError(f'the bootstrap needs at least 2 draws and a level between 0 and 1, not {num_draws}, {level}.')
    generator = np.random.default_rng(seed)
    draws = [figures(generator.integers(num_images, size=num_images)) for _ in range(num_draws)]
    ends = (50 * (1 - level), 50 * (1 + level))
    return {name: tuple(float(v) for v in np.nanpercentile([d[name] for d in draws], ends)) for name in draws[0]}
