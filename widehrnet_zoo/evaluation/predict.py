"""Run a model over the samples of an evaluation."""

import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from ..errors import UserError
from ..formats.samples import Samples
from ..inference.estimator import STRIDE, PoseEstimator
from ..pose.crops import box_views, crop_people
from ..pose.decoding import decode_heatmaps
from ..pose.images import read_image
from ..pose.skeletons import check_flip_test
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
    _check(estimator, samples, config)
    total, num = len(samples), estimator.skeleton.num_keypoints
    if store is None:
        keypoints, done = np.full((total, num, 3), np.nan, np.float32), np.zeros(total, bool)
    else:
        keypoints, done = store.load(num)
    todo = np.flatnonzero(~done)
    batches = [todo[i : i + config.batch_size] for i in range(0, len(todo), config.batch_size)]
    maps = box_views(samples.boxes, estimator.size, samples.padding)
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
        for rows, crops in _crops(samples, maps, batches, estimator.size, config.workers):
            heatmaps = estimator.heatmaps(crops, config.flip_test, config.shift)
            points, scores = (v.double().cpu().numpy() for v in decode_heatmaps(heatmaps, config.decoder))
            if not np.isfinite(scores).all():
                raise UserError('the model gives heatmaps with NaN or infinity: its weights are damaged, or overflow.')
            points = points * STRIDE
            keypoints[rows, :, :2] = np.einsum('nij,nkj->nki', maps[rows][:, :, :2], points) + maps[rows][:, None, :, 2]
            keypoints[rows, :, 2] = scores
            waiting.append(rows)
            if sum(map(len, waiting)) >= PART_SIZE or time.monotonic() - last > PART_SECONDS:
                flush()
                last = time.monotonic()
            bar.update(len(rows))
    return keypoints


def _check(estimator: PoseEstimator, samples: Samples, config: PredictConfig) -> None:
    missing = [path for path in dict.fromkeys(samples.paths) if not path.is_file()]
    if missing:
        raise UserError(
            f'{len(missing)} photos of the labels are not there, the first is {missing[0]}: check the folder of images.'
        )
    if config.batch_size < 1 or config.workers < 1:
        raise UserError(
            f'the batch size and the number of workers must be at least 1, not {config.batch_size} and '
            f'{config.workers}.'
        )
    if config.flip_test:
        check_flip_test(estimator.skeleton)


def _crops(
    samples: Samples,
    maps: npt.NDArray[np.float64],
    batches: list[npt.NDArray[np.intp]],
    size: tuple[int, int],
    workers: int,
) -> Iterator[tuple[npt.NDArray[np.intp], npt.NDArray[np.uint8]]]:
    def cut(rows: npt.NDArray[np.intp]) -> npt.NDArray[np.uint8]:
        crops = np.empty((len(rows), *size, 3), np.uint8)
        start = 0
        while start < len(rows):
            path = samples.paths[rows[start]]
            stop = start
            while stop < len(rows) and samples.paths[rows[stop]] == path:
                stop += 1
            crops[start:stop] = crop_people(read_image(path), maps[rows[start:stop]], size)
            start = stop
        return crops

    with ThreadPoolExecutor(workers) as pool:
        ahead: list[tuple[npt.NDArray[np.intp], Future]] = []
        coming = iter(batches)
        try:
            for rows in coming:
                ahead.append((rows, pool.submit(cut, rows)))
                if len(ahead) > 2 * workers:
                    first, future = ahead.pop(0)
                    yield first, future.result()
            for first, future in ahead:
                yield first, future.result()
        finally:
            for _, future in ahead:
                future.cancel()
