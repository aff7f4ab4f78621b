"""Detectors by name."""

from pathlib import Path

import torch

from ..errors import UserError
from .protocol import Detector


def open_detector(name: str, device: str | torch.device | None = None, min_score: float = 0.5) -> Detector:
    """A detector by name.

    Args:
        name: `torchvision` (a light default), `torchvision:NAME`, `hf-hub:ORG/NAME` or `local-dir:FOLDER` (any
            object-detection model of transformers), or a JSON file of boxes (`BoxFile`).
        device: Where a network runs; `None` for the CPU.
        min_score: Lower boxes are left out; for a file of boxes, `find_people` does that.

    Returns:
        The detector.

    Raises:
        UserError: If there is no such detector, or its weights cannot be had.
        ImportError: If transformers is needed and not installed.
    """
    scheme, _, rest = name.partition(':')
    if scheme == 'torchvision':
        from .torchvision import DEFAULT, TorchvisionDetector

        return TorchvisionDetector(rest or DEFAULT, device=device, min_score=min_score)
    if scheme in ('hf-hub', 'local-dir') and rest:
        from .transformers import TransformersDetector

        if scheme == 'local-dir' and not Path(rest).is_dir():
            raise UserError(f'there is no folder {rest} with a detector in it.')
        return TransformersDetector(rest, device=device, min_score=min_score)
    if name.endswith('.json'):
        from ..formats.boxes import BoxFile

        return BoxFile(name)
    raise UserError(
        f'{name!r} is no detector: give torchvision, torchvision:NAME, hf-hub:ORG/NAME, local-dir:FOLDER, or a JSON '
        'file of boxes.'
    )
