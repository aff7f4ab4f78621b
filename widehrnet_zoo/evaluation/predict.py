"""Run a model over the samples of an evaluation."""

import contextlib
import time
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from ..errors import UserError
from ..formats.samples import Samples
from ..inference.estimator import PoseEstimator
from ..inference.photo import Photo
from .store import PredictionStore

PART_SIZE = 512
PART_SECONDS = 30.0


@dataclass(frozen=True)
class PredictConfig:
    """How predictions are made.

    Attributes:
        flip_test: Average the heatmaps with those of the mirrored crop.
        shift: Shift the mirrored heatmaps by one pixel before averaging, as in the published figures.
        decoder: Name of the decoder.
        batch_size: People per forward pass.
        workers: Threads that read and crop photos.
        progress: Show a progress bar.
    """

    flip_test: bool = False
    shift: bool = True
    decoder: str = 'quarter'
    batch_size: int = 32
    workers: int = 2
    progress: bool = True


def predict(
    estimator: PoseEstimator,
    samples: Samples,
    config: PredictConfig,
    store: PredictionStore | None = None,
) -> npt.NDArray[np.float32]:
    """Keypoints of every sample.

    Args:
        estimator: The model; how it decodes and flips is the configuration's matter, not its own.
        samples: What to look at.
        config: How.
        store: Where predictions are kept as they come, and taken from where they are there already.

    Returns:
        float32 (N, K, 3): x, y in image pixels and score.

    Raises:
        UserError: If a photo is missing or broken, or the flip test does not know left from right.
    """
    _check(samples)
    total, num = len(samples), estimator.skeleton.num_keypoints
    if store is None:
        keypoints, done = np.full((total, num, 3), np.nan, np.float32), np.zeros(total, bool)
    else:
        keypoints, done = store.load(num)
    todo = np.flatnonzero(~done)
    photos = [np.array(list(rows)) for _, rows in groupby(todo, lambda row: samples.paths[row])]
    waiting: list[npt.NDArray[np.intp]] = []
    last = time.monotonic()

    def flush() -> None:
        if store is not None and waiting:
            rows = np.concatenate(waiting)
            store.add(rows, keypoints[rows])
            waiting.clear()

    with contextlib.ExitStack() as stack:
        bar = stack.enter_context(
            tqdm(total=total, initial=total - len(todo), unit='person', desc='predict', disable=not config.progress)
        )
        stack.callback(flush)
        found = estimator.look(
            (Photo(samples.paths[rows[0]], samples.boxes[rows]) for rows in photos),
            decoder=config.decoder,
            flip_test=config.flip_test,
            shift=config.shift,
            batch_size=config.batch_size,
            padding=samples.padding,
            peaks=True,
            workers=config.workers,
            inside=False,
        )
        for place, _, result in found:
            rows = photos[place]
            keypoints[rows, :, :2], keypoints[rows, :, 2] = result.keypoints, result.scores
            waiting.append(rows)
            if sum(map(len, waiting)) >= PART_SIZE or time.monotonic() - last > PART_SECONDS:
                flush()
                last = time.monotonic()
            bar.update(len(rows))
    return keypoints


def _check(samples: Samples) -> None:
    missing = [path for path in dict.fromkeys(samples.paths) if not path.is_file()]
    if missing:
        raise UserError(
            f'{len(missing)} photos of the labels are missing, the first is {missing[0]}: check the folder of images.'
        )
