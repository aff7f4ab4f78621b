"""From a photo with several people to their keypoints: where the time goes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..inference.estimator import PoseEstimator
from ..pose.crops import box_views, crop_people
from ..pose.decoding import decode_heatmaps
from ..pose.skeletons import SKELETONS
from .contenders import PATHS, TRAINING, Contender, Runner
from .report import markdown
from .timing import interleave

PHOTO = (1080, 1920)
"""Height and width of the photo."""

# a package of AOTInductor takes one image
_PATHS = set(PATHS) - TRAINING - {'aot'}


@dataclass(frozen=True)
class Stages:
    """Milliseconds (medians) of one photo.

    Attributes:
        label: Of the contender.
        crops: Cutting the people out.
        network: The network alone, on all people in one batch.
        decoding: Heatmaps to keypoints.
        whole: The call of a `PoseEstimator`, which also normalises the crops.
    """

    label: str
    crops: float
    network: float
    decoding: float
    whole: float

    @property
    def share(self) -> float:
        """The network's share of the whole."""
        return self.network / self.whole


def _heatmaps(runner: Runner, images: npt.NDArray[np.float32]) -> torch.Tensor:
    return torch.as_tensor(runner(images)).float()


def time_stages(
    calls: Mapping[str, Mapping[str, Callable[[], Any]]], runs: int = 10, progress: bool = True
) -> list[Stages]:
    """Time the stages of contenders, all in turn.

    Args:
        calls: By the label of a contender what does each stage: `crops`, `network`, `decoding` and `whole`.
        runs: Rounds.
        progress: Show a progress bar.
    """
    flat = {(label, stage): call for label, stages in calls.items() for stage, call in stages.items()}
    timings = interleave(flat, runs, progress=progress)
    return [
        Stages(label, **{stage: timings[label, stage].median for stage in stages}) for label, stages in calls.items()
    ]


def side_by_side(people: int) -> npt.NDArray[np.float64]:
    """Boxes (N, 4) of people who stand side by side in the photo."""
    edges = np.linspace(0, PHOTO[1], people + 1)
    return np.stack((edges[:-1], np.full(people, 200.0), edges[1:], np.full(people, 900.0)), 1)


def time_photo(
    contenders: Sequence[Contender], people: int, threads: int, runs: int = 10, progress: bool = True
) -> list[Stages]:
    """Time the stages of one photo of 1080p, side by side.

    Args:
        contenders: Prepared contenders; those that give no heatmaps of COCO's keypoints are left out.
        people: Boxes on the photo, side by side.
        threads: Threads of every runtime.
        runs: Rounds.
        progress: Show a progress bar.
    """
    image = np.random.default_rng(0).integers(0, 256, (*PHOTO, 3), dtype=np.uint8)
    boxes = side_by_side(people)
    calls: dict[str, dict[str, Callable[[], Any]]] = {}
    for c in contenders:
        if c.path not in _PATHS or not c.model.startswith('widehrnet'):
            continue
        network = partial(_heatmaps, c.open(threads))
        estimator = PoseEstimator(backend=network, size=c.size, skeleton=SKELETONS['coco'], batch_size=people)
        images = np.zeros((people, 3, *c.size), np.float32)
        calls[c.label] = {
            'crops': partial(crop_people, image, box_views(boxes, c.size), c.size),
            'network': partial(network, images),
            'decoding': partial(decode_heatmaps, network(images), estimator.decoder),
            'whole': partial(estimator, image, boxes),
        }
    return time_stages(calls, runs, progress)


def photo_table(rows: Sequence[Stages]) -> str:
    """A Markdown table."""
    lines = []
    for row in rows:
        times = [f'{ms:.1f}' for ms in (row.crops, row.network, row.decoding, row.whole)]
        lines.append([row.label, *times, f'{row.share:.0%}'])
    return markdown(['path', 'crops', 'network', 'decoding', 'whole call', "network's share"], lines)
