"""Detectors by name."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..weights.shipped import WEIGHTS
from .finder import DEFAULT_FINDER, PersonFinder
from .protocol import Detector

if TYPE_CHECKING:
    import torch


def finder_ships(name: str = DEFAULT_FINDER) -> bool:
    """Whether the weights of a person finder are in this installation."""
    return (WEIGHTS / f'{name}.safetensors').is_file()


def open_detector(
    name: str, device: 'str | torch.device | None' = None, min_score: float | None = None, engine: str = 'auto'
) -> Detector:
    """A detector by name.

    Args:
        name: `default` (the person finder that ships), `finder:MODEL` (a person finder of your own, as `PersonFinder`
            opens it), `torchvision` (a light model), `torchvision:NAME`, `hf-hub:ORG/NAME` or `local-dir:FOLDER` (any
            object-detection model of transformers), or a JSON file of boxes (`BoxFile`).
        device: Where a network runs; `None` for the CPU.
        min_score: Lower boxes are left out; by default the finder's own threshold, and 0.5 for the others. For a file
            of boxes, `find_people` does that.
        engine: What runs a person finder; see `PoseEstimator`.

    Returns:
        The detector.

    Raises:
        UserError: If there is no such detector, or its weights cannot be had.
        ImportError: If transformers is needed and not installed.
    """
    scheme, _, rest = name.partition(':')
    if name == 'default' and not finder_ships():
        raise UserError(
            'The person finder is not in this installation: give another detector, such as torchvision, or boxes.'
        )
    if name == 'default' and find_spec('torch') is None:
        raise UserError(
            'The person finder that ships needs PyTorch, which is not installed: export the model with --pipeline, '
            'which writes the finder beside it; or give boxes; or None as the detector, which makes the whole photo '
            "one person's box."
        )
    if name == 'default' or (scheme == 'finder' and rest):
        threshold: dict[str, Any] = {} if min_score is None else {'min_score': min_score}
        return PersonFinder(rest or None, device=device, engine=engine, **threshold)
    min_score = 0.5 if min_score is None else min_score
    if scheme == 'torchvision':
        from .torchvision import DEFAULT, TorchvisionDetector

        return TorchvisionDetector(rest or DEFAULT, device=device, min_score=min_score)
    if scheme in ('hf-hub', 'local-dir') and rest:
        from .transformers import TransformersDetector

        if scheme == 'local-dir' and not Path(rest).is_dir():
            raise UserError(f'There is no folder {rest} with a detector in it.')
        return TransformersDetector(rest, device=device, min_score=min_score)
    if name.endswith('.json'):
        from ..formats.boxes import BoxFile

        return BoxFile(name)
    raise UserError(
        f'{name!r} is not a detector: give default, finder:MODEL, torchvision, torchvision:NAME, hf-hub:ORG/NAME, '
        'local-dir:FOLDER, or a JSON file of boxes.'
    )
