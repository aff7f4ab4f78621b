"""PCK on cached crops, while training."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..metrics.pck import TORSO, normalised_errors, torso_size
from ..pose.crops import padding_of
from ..pose.decoding import decode_heatmaps
from ..pose.skeletons import Skeleton
from .augment import move_keypoints, sample_views
from .batches import normalise
from .crops import CropCache
from .pixels import cut_views
from .start import input_stats
from .targets import STRIDE


class Validation(NamedTuple):
    """What `validate` counts; sums, so that processes can add theirs up.

    Attributes:
        hits: (K,) keypoints within the threshold.
        counts: (K,) keypoints that count.
    """

    hits: Tensor
    counts: Tensor

    @property
    def pck(self) -> float:
        """Share of correct keypoints over all of them together; NaN without any."""
        return float(self.hits.sum() / self.counts.sum()) if self.counts.sum() else float('nan')


def find_keypoints(heatmaps: Tensor) -> Tensor:
    """Keypoints of heatmaps by the quarter decoder, (N, K, 3): x, y in input pixels, and the score."""
    points, scores = decode_heatmaps(heatmaps)
    return torch.cat((points * STRIDE, scores[..., None]), -1).cpu()


def person_sizes(labels: np.ndarray, skeleton: Skeleton, fallback: np.ndarray) -> np.ndarray:
    """Unit of PCK: the torso (right shoulder to left hip) where the skeleton has one, else `fallback`.

    Args:
        labels: (N, K, 3) in any pixels.
        skeleton: Their skeleton.
        fallback: (N,) lengths in the same pixels: the boxes' longer sides.

    Returns:
        (N,); 0 where a person does not count.
    """
    if all(name in skeleton.keypoints for name in TORSO):
        return torso_size(labels, skeleton.keypoints)
    return fallback


@torch.inference_mode()
def validate(
    model: nn.Module,
    cache: CropCache,
    size: tuple[int, int],
    threshold: float = 0.2,
    batch_size: int = 64,
    device: torch.device | str = 'cpu',
    bf16: bool = False,
    part: tuple[int, int] = (0, 1),
) -> Validation:
    """PCK on the test-time views, with the quarter decoder, without flip test.

    Args:
        model: A heatmap model; it is left in the mode it was in.
        cache: The crops.
        size: Input height and width.
        threshold: In units of `person_sizes`; a keypoint closer than that is correct.
        batch_size: Crops per forward.
        device: Where the model is.
        bf16: Run it under bfloat16 autocast.
        part: (i, n) validates the i-th of n parts.
    """
    training, device = model.training, torch.device(device)
    stats = input_stats(model)
    model.eval()
    count = cache.people.skeleton.num_keypoints
    hits, counts = torch.zeros(count), torch.zeros(count)
    padding = padding_of(model)
    chosen = np.arange(len(cache))[part[0] :: part[1]]
    for start in range(0, len(chosen), batch_size):
        rows = chosen[start : start + batch_size]
        labels = torch.from_numpy(cache.keypoints[rows])
        boxes = torch.from_numpy(cache.boxes[rows])
        views = sample_views(boxes, labels, size, padding)
        crops = torch.from_numpy(cache.crops[rows]).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            heatmaps = model(normalise(cut_views(crops, views.maps, size), *stats))
        truth = move_keypoints(labels, views, range(count)).numpy()
        sides = (boxes[:, 2:] - boxes[:, :2]).amax(1) / views.maps[:, 1, 1]
        found = find_keypoints(heatmaps).numpy()
        errors, valid = normalised_errors(found, truth, person_sizes(truth, cache.people.skeleton, sides.numpy()))
        hits += torch.from_numpy(((errors < threshold) & valid).sum(0)).float()
        counts += torch.from_numpy(valid.sum(0)).float()
    model.train(training)
    return Validation(hits, counts)
