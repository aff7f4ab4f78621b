"""From a photo with several people to their keypoints: where the time goes."""

from collections.abc import Sequence
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
    found: Any = runner(images)
    # ONNX Runtime gives a list, OpenVINO a mapping by output
    return torch.as_tensor(found if isinstance(found, torch.Tensor) else found[0]).float()


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
    chosen = [c for c in contenders if c.path in _PATHS and c.model.startswith('widehrnet')]
    image = np.random.default_rng(0).integers(0, 256, (*PHOTO, 3), dtype=np.uint8)
    edges = np.linspace(0, PHOTO[1], people + 1)
    boxes = np.stack((edges[:-1], np.full(people, 200.0), edges[1:], np.full(people, 900.0)), 1)
    calls: dict[str, Any] = {}
    for c in chosen:
        runner = c.open(threads)
        estimator = PoseEstimator(
            backend=lambda images, runner=runner: _heatmaps(runner, images),
            size=c.size,
            skeleton=SKELETONS['coco'],
            batch_size=people,
        )
        views = box_views(boxes, c.size)
        images = np.zeros((people, 3, *c.size), np.float32)
        heatmaps = _heatmaps(runner, images)
        calls |= {
            f'{c.label} crops': lambda v=views, size=c.size: crop_people(image, v, size),
            f'{c.label} network': lambda runner=runner, images=images: _heatmaps(runner, images),
            f'{c.label} decoding': partial(decode_heatmaps, heatmaps, estimator.decoder),
            f'{c.label} whole': lambda estimator=estimator: estimator(image, boxes),
        }
    timings = interleave(calls, runs, progress=progress)
    stages = ('crops', 'network', 'decoding', 'whole')
    return [Stages(c.label, *(timings[f'{c.label} {stage}'].median for stage in stages)) for c in chosen]


def photo_table(rows: Sequence[Stages]) -> str:
    """A Markdown table."""
    lines = [['path', 'crops', 'network', 'decoding', 'whole call', "network's share"], ['---', *['---:'] * 5]]
    for row in rows:
        times = [f'{ms:.1f}' for ms in (row.crops, row.network, row.decoding, row.whole)]
        lines.append([row.label, *times, f'{row.share:.0%}'])
    return '\n'.join('| ' + ' | '.join(cells) + ' |' for cells in lines) + '\n'
