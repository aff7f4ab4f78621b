"""Confidence intervals by resampling."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from ..errors import UserError


def rows_by_image(image_ids: Iterable[Any]) -> dict[Any, npt.NDArray[np.intp]]:
    """Places of the people of each photo, by its id; photos in the order in which they come first."""
    rows: dict[Any, list[int]] = {}
    for row, image_id in enumerate(image_ids):
        rows.setdefault(image_id, []).append(row)
    return {image_id: np.array(of_one) for image_id, of_one in rows.items()}


def bootstrap(
    figures: Callable[[npt.NDArray[np.intp]], dict[str, float]],
    num_images: int,
    num_draws: int = 1000,
    progress: bool = False,
) -> dict[str, tuple[float, float]]:
    """95 % percentile intervals of figures under resampling of images with replacement.

    Images are drawn, not people, since the people of one photo are not independent. Source: Efron and Tibshirani,
    "An Introduction to the Bootstrap", 1993, chapter 13.

    Args:
        figures: Maps drawn image indices, with repetitions, to figures from 0 to 1; to NaN, or as pycocotools to -1,
            where nothing is labelled: such draws do not count.
        num_images: Number of images.
        num_draws: Number of resamplings.
        progress: Show a progress bar.

    Returns:
        (low, high) by figure.

    Raises:
        UserError: If `num_draws` makes no interval.
    """
    if num_draws < 2:
        raise UserError(f'The bootstrap needs at least 2 draws, not {num_draws}.')
    generator = np.random.default_rng(0)
    draws = [
        figures(generator.integers(num_images, size=num_images))
        for _ in tqdm(range(num_draws), desc='bootstrap', unit='draw', disable=not progress)
    ]
    intervals = {}
    for name in draws[0]:
        values = np.array([d[name] for d in draws], float)
        values[values < 0] = np.nan
        if np.isnan(values).all():  # nobody, whom the figure needs, is in any photo
            intervals[name] = (np.nan, np.nan)
            continue
        low, high = np.nanpercentile(values, (2.5, 97.5))
        intervals[name] = float(low), float(high)
    return intervals
