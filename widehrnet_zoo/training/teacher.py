"""Distillation from another model's heatmaps."""

import torch
from torch import Tensor, nn

from ..deployment import deploy
from ..errors import UserError
from ..kernels.native import accelerate
from ..models.opening import open_network
from ..pose.skeletons import Skeleton
from .batches import normalise
from .config import TeacherConfig
from .targets import teacher_losses


class Teacher:
    """A frozen model that shows its heatmaps for the same, augmented, images.

    Args:
        config: Which model, with which weights.
        skeleton: Of the student; keypoints are matched by name.
        device: Where it runs.
        fused: Run it deployed, on the compiled kernels for the CPU.
        bf16: Run it under bfloat16 autocast, unless it is fused.

    Raises:
        UserError: If teacher and student have no keypoint in common, or the kernels cannot run the teacher.
    """

    def __init__(
        self,
        config: TeacherConfig,
        skeleton: Skeleton,
        device: torch.device | str = 'cpu',
        fused: bool = False,
        bf16: bool = False,
    ):
        assert config.model is not None
        opened = open_network(config.model, config.weights)
        own = opened.skeleton
        pairs = [(own.keypoints.index(k), i) for i, k in enumerate(skeleton.keypoints) if k in own.keypoints]
        if not pairs:
            raise UserError(
                f'The teacher {config.model} knows none of the keypoints {", ".join(skeleton.keypoints)}; it knows '
                f'{", ".join(own.keypoints)}.'
            )
        self.stats = opened.mean, opened.std
        self.model: nn.Module = opened.network.to(device).eval().requires_grad_(False)
        self.bf16 = bf16 and not fused
        if fused:
            self.model = accelerate(deploy(self.model))
        self.theirs, self.ours = (list(side) for side in zip(*pairs, strict=True))
        self.temperature = config.temperature

    def loss(self, heatmaps: Tensor, pixels: Tensor, sharpness: float) -> Tensor:
        """Mean difference from the teacher over all samples and keypoints, labelled or not.

        Args:
            heatmaps: The student's, (N, K, h, w).
            pixels: (N, 3, H, W) float images in 0..255.
            sharpness: As for `teacher_losses`.

        Returns:
            A scalar.
        """
        with torch.no_grad(), torch.autocast(pixels.device.type, torch.bfloat16, enabled=self.bf16):
            images = normalise(pixels, *self.stats).contiguous(memory_format=torch.channels_last)
            shown = self.model(images).float()
        return teacher_losses(heatmaps[:, self.ours], shown[:, self.theirs], sharpness, self.temperature).mean()
