"""Run a network over the samples of an evaluation."""

import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from tqdm import tqdm

from ..crops import box_views, crop_people
from ..decoding import decode_heatmaps, flip_heatmaps
from ..errors import UserError
from ..images import read_image
from ..skeletons import Skeleton
from .samples import Samples
from .store import PredictionStore

STRIDE = 4
PART_SIZE = 512
PART_SECONDS = 30.0


@dataclass(frozen=True)
class Network:
    """A heatmap network and what its input is.

    Attributes:
        module: Maps (B, 3, H, W) to (B, K, H/4, W/4).
        skeleton: What the keypoints are.
        size: Height and width of the input.
        mean: Of the input, RGB in 0..1.
        std: Of the input.
        device: Where it runs.
        name: For the report.
    """

    module: nn.Module
    skeleton: Skeleton
    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    device: torch.device
    name: str


@dataclass(frozen=True)
class PredictConfig:
    """How predictions are made.

    Attributes:
        flip_test: Average the heatmaps with those of the mirrored crop.
        shift: Shift the mirrored heatmaps by one pixel before averaging, as in the published figures.
        decoder: Name of the decoder.
        bf16: Run the network in bfloat16 autocast.
        batch_size: People per forward pass.
        workers: Threads that read and crop photos.
        progress: Show a progress bar.
    """

    flip_test: bool = False
    shift: bool = True
    decoder: str = 'quarter'
    bf16: bool = False
    batch_size: int = 32
    workers: int = 2
    progress: bool = True


def predict(
    network: Network,
    samples: Samples,
    config: PredictConfig,
    store: PredictionStore | None = None,
) -> npt.NDArray[np.float32]:
    """Keypoints of every sample.

    Args:
        network: The network; it is left in evaluation mode.
        samples: What to look at.
        config: How.
        store: Where predictions are kept as they come, and taken from where they are there already.

    Returns:
        float32 (N, K, 3): x, y in image pixels and score.

    Raises:
        UserError: If a photo is missing or broken, or the flip test does not know left from right.
    """
    _check(network, samples, config)
    total, num = len(samples), network.skeleton.num_keypoints
    if store is None:
        keypoints, done = np.full((total, num, 3), np.nan, np.float32), np.zeros(total, bool)
    else:
        keypoints, done = store.load(num)
    todo = np.flatnonzero(~done)
    batches = [todo[i : i + config.batch_size] for i in range(0, len(todo), config.batch_size)]
    maps = box_views(samples.boxes, network.size, samples.padding)
    network.module.eval()
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
        for rows, crops in _crops(samples, maps, batches, network.size, config.workers):
            points, scores = _forward(network, crops, config)
            points = points * STRIDE
            keypoints[rows, :, :2] = np.einsum('nij,nkj->nki', maps[rows][:, :, :2], points) + maps[rows][:, None, :, 2]
            keypoints[rows, :, 2] = scores
            waiting.append(rows)
            if sum(map(len, waiting)) >= PART_SIZE or time.monotonic() - last > PART_SECONDS:
                flush()
                last = time.monotonic()
            bar.update(len(rows))
    return keypoints


def _check(network: Network, samples: Samples, config: PredictConfig) -> None:
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
    skeleton = network.skeleton
    if config.flip_test and not skeleton.flip_pairs and any(n.startswith('keypoint_') for n in skeleton.keypoints):
        raise UserError(
            'the flip test needs to know which keypoints are left and right, and this model does not say: '
            'switch the flip test off.'
        )


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


@torch.inference_mode()
def _forward(
    network: Network,
    crops: npt.NDArray[np.uint8],
    config: PredictConfig,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    device = network.device
    mean, std = (torch.tensor(v, device=device).view(1, -1, 1, 1) * 255 for v in (network.mean, network.std))
    images = (torch.from_numpy(crops).to(device).permute(0, 3, 1, 2).float() - mean) / std
    with torch.autocast(device.type, torch.bfloat16, enabled=config.bf16):
        heatmaps = network.module(images).float()
        if config.flip_test:
            mirrored = network.module(images.flip(3)).float()
            heatmaps = (heatmaps + flip_heatmaps(mirrored, network.skeleton.flip_order, shift=config.shift)) / 2
    expected = (len(crops), network.skeleton.num_keypoints, network.size[0] // STRIDE, network.size[1] // STRIDE)
    if tuple(heatmaps.shape) != expected:
        raise UserError(
            f'the model gives {tuple(heatmaps.shape)} for a batch of {len(crops)} crops of '
            f'{network.size[0]}x{network.size[1]}; expected heatmaps {expected}.'
        )
    points, scores = decode_heatmaps(heatmaps, config.decoder)
    return tuple(torch.as_tensor(v).double().cpu().numpy() for v in (points, scores))  # type: ignore[return-value]
