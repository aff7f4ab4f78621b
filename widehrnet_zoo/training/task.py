"""What a run learns: the samples, the loss and the figure of one kind of maps; the loop is the same for all."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from .config import TrainConfig


class TaskBatches(Protocol):
    """Batches by step; a batch has `pixels` (n, 3, H, W), float in 0..255, on the device.

    Attributes:
        steps_per_epoch: Batches in a pass over the data.
    """

    steps_per_epoch: float

    def stream(self, step: int) -> Iterator[Any]:
        """Batches from `step` on, without end."""
        ...


class Task(Protocol):
    """One kind of maps.

    Attributes:
        train_size: People or photos to learn from.
        has_val: Whether there are labels to validate on.
        figure: The figure by which a model is chosen, as the log's columns call it: `pck`, `ap50`.
        shown: The figure's name on the bar and in the summary.
    """

    train_size: int
    has_val: bool
    figure: str
    shown: str

    def by(self, config: TrainConfig) -> 'Task':
        """The same data, to be learnt by another recipe."""
        ...

    def start(self) -> nn.Module:
        """The model to train."""
        ...

    def batches(self, model: nn.Module, device: torch.device, rank: int, world: int) -> TaskBatches:
        """The batches of one of `world` processes."""
        ...

    def losses(self, maps: Tensor, batch: Any) -> tuple[Tensor, Tensor | None]:
        """The loss of a batch, and the loss to a teacher's labels where the data have them."""
        ...

    def train_figure(self, maps: Tensor, batch: Any) -> float:
        """The figure of a training batch, or one like it that costs little."""
        ...

    def validate(self, model: nn.Module, device: torch.device, rank: int, world: int) -> float:
        """The figure of the validation data, the same in every process; each looks at its share."""
        ...

    def file(self, batch: Any, index: int) -> str:
        """The image file of a sample, for messages."""
        ...

    def preview(self, path: str | Path, count: int) -> None:
        """Draw augmented samples with their targets."""
        ...

    def draw_validation(self, model: nn.Module, path: str | Path) -> None:
        """Draw what the model finds on validation data."""
        ...
