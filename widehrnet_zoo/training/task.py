"""What a run learns: the samples, the loss and the figure of one kind of maps; the loop is the same for all."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .config import TrainConfig
from .passes import PlannedBatches


class Task(ABC):
    """One kind of maps.

    Args:
        config: The recipe.
        train: People or photos to learn from.
        val: Those to validate on, or `None`.

    Attributes:
        figure: The figure by which a model is chosen, as the log's columns call it: `pck`, `ap50`.
        shown: The figure's name on the bar and in the summary.
    """

    figure: ClassVar[str]
    shown: str

    def __init__(self, config: TrainConfig, train: Any, val: Any):
        self.config, self.train, self.val = config, train, val

    @classmethod
    @abstractmethod
    def open(cls, config: TrainConfig, progress: bool = True) -> 'Task':
        """Read the labels of a recipe and decode, or find, its images; see `open_caches`.

        Raises:
            UserError: If a setting does not fit, a label file or too many images are broken, or the disk is full.
        """

    def by(self, config: TrainConfig) -> 'Task':
        """The same data, to be learnt by another recipe."""
        return type(self)(config, self.train, self.val)

    @abstractmethod
    def start(self) -> nn.Module:
        """The model to train, see `start_model`."""

    @abstractmethod
    def batches(self, model: nn.Module, device: torch.device, rank: int, world: int) -> PlannedBatches:
        """The batches of one of `world` processes; each has `pixels` (n, 3, H, W), float in 0..255, on the device."""

    @abstractmethod
    def losses(self, maps: Tensor, batch: Any) -> tuple[Tensor, Tensor | None]:
        """The loss of a batch, and the loss to a teacher's labels where the data have them."""

    @abstractmethod
    def train_figure(self, maps: Tensor, batch: Any) -> float:
        """The figure of a training batch, or one like it that costs little."""

    @abstractmethod
    def validate(self, model: nn.Module, device: torch.device, rank: int, world: int) -> float:
        """The figure of the validation data, the same in every process; each looks at its share.

        The model is in evaluation mode.
        """

    def file(self, batch: Any, index: int) -> str:
        """The image file of a sample, for messages."""
        return self.train.people.files[batch.indices[index]]

    @abstractmethod
    def preview(self, path: Path, count: int) -> None:
        """Draw augmented samples with their targets."""

    @abstractmethod
    def draw_validation(self, model: nn.Module, path: Path) -> None:
        """Draw the labels of some validation data, evenly spread, beside what the model finds."""
