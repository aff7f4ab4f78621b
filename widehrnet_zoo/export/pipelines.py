"""Whole pipelines for exported files: pixels in, keypoints or boxes out."""

import torch
from torch import Tensor, nn

from ..pose.box_maps import OVERLAP, find_boxes
from ..pose.crops import STRIDE
from ..pose.decoding import decode_heatmaps
from .boxes import LEAST, MOST


class _Pipeline(nn.Module):
    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]):
        super().__init__()
        self.network = network
        self.register_buffer('mean', torch.tensor(mean).view(1, 3, 1, 1) * 255)
        self.register_buffer('std', torch.tensor(std).view(1, 3, 1, 1) * 255)

    def _maps(self, images: Tensor) -> Tensor:
        return self.network((images.permute(0, 3, 1, 2).float() - self.mean) / self.std)


class PosePipeline(_Pipeline):
    """uint8 crops (B, H, W, 3) to keypoints (B, K, 3): x, y in crop pixels and score."""

    def forward(self, crops: Tensor) -> Tensor:
        """Run."""
        points, scores = decode_heatmaps(self._maps(crops), 'quarter')
        return torch.cat((points * STRIDE, scores[..., None]), 2)


class BoxPipeline(_Pipeline):
    """uint8 photos (B, H, W, 3) to (N, 6): the photo's index in the batch, x1, y1, x2, y2 in its pixels, the score."""

    def forward(self, images: Tensor) -> Tensor:
        """Run."""
        boxes, scores, index = find_boxes(self._maps(images), LEAST, OVERLAP, MOST)
        return torch.cat((index.to(boxes.dtype)[:, None], boxes, scores[:, None]), 1)
