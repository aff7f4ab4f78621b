"""torchvision's detection models as detectors of people."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ..errors import UserError
from ..extras import require

DEFAULT = 'fasterrcnn_mobilenet_v3_large_fpn'


class TorchvisionDetector:
    """A detection model of torchvision.

    Args:
        model: A name of `torchvision.models.detection`, or a module that works like one.
        weights: For a name: torchvision's weights, which it fetches at first use with a progress bar; `None` for
            random ones.
        device: Where it runs; `None` leaves a module where it is and puts a named model on the CPU.
        min_score: Lower boxes are left out.

    Raises:
        UserError: If the name is not known, has no people among its classes, or its weights cannot be had.
    """

    def __init__(
        self,
        model: str | nn.Module = DEFAULT,
        weights: str | None = 'DEFAULT',
        device: str | torch.device | None = None,
        min_score: float = 0.5,
    ):
        self.person_label = 1
        if isinstance(model, str):
            module, categories = _create(model, weights)
            if categories:
                if 'person' not in categories:
                    raise UserError(f'The weights of {model} know {len(categories)} classes, and none is "person".')
                self.person_label = categories.index('person')
        else:
            module = model
        self.model = (module if device is None else module.to(device)).eval()
        self.min_score = min_score

    @torch.inference_mode()
    def __call__(self, image: npt.NDArray[np.uint8], /) -> tuple[torch.Tensor, torch.Tensor]:
        """Find people; see `Detector`."""
        device = next(self.model.parameters()).device
        pixels = torch.from_numpy(np.array(image)).to(device).permute(2, 0, 1).float() / 255
        found = self.model([pixels])[0]
        kept = (found['labels'] == self.person_label) & (found['scores'] >= self.min_score)
        return found['boxes'][kept].cpu(), found['scores'][kept].cpu()


def _create(name: str, weights: str | None) -> tuple[nn.Module, list[str]]:
    models: Any = require('torchvision.models', 'detect')
    known = models.list_models(module=models.detection)
    if name not in known:
        raise UserError(f'torchvision has no detector {name!r}; it has {", ".join(known)}.')
    if weights is None:
        return models.get_model(name, weights=None, weights_backbone=None), []
    try:
        chosen = models.get_model_weights(name)[weights]
    except KeyError as error:
        there = ', '.join(models.get_model_weights(name).__members__)
        raise UserError(f'torchvision has no weights {weights!r} for {name}; it has {there}.') from error
    try:
        return models.get_model(name, weights=chosen), list(chosen.meta.get('categories', ()))
    except (OSError, RuntimeError) as error:  # URLError is an OSError; a wrong hash is a RuntimeError
        raise UserError(f'torchvision could not get the weights of {name}: {error}.') from error
