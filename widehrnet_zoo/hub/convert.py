"""Official checkpoints (mmpose `.pth`) to folders that `local-dir:` opens."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..models.configs import REPOSITORY
from ..models.registry import create_model
from ..pose.crops import check_input_size
from ..pose.skeletons import SKELETONS, Skeleton
from ..weights.checkpoints import load_weights, official_state, read_checkpoint
from ..weights.licenses import NOT_STATED
from ..weights.official import Architecture, convert_state_dict, find_architecture
from .saving import save_pretrained


@dataclass(frozen=True)
class Conversion:
    """What `convert_checkpoint` found and wrote.

    Attributes:
        folder: Where `config.json` and `model.safetensors` are.
        architecture: The network.
        size: Input height and width.
        size_source: Where the size is from.
        skeleton: Names and structure of the keypoints.
        num_parameters: Number of parameters.
        notes: What in the file was left out.
    """

    folder: Path
    architecture: Architecture
    size: tuple[int, int]
    size_source: str
    skeleton: Skeleton
    num_parameters: int
    notes: tuple[str, ...] = ()


def _find_size(checkpoint: Mapping[str, Any], file: Path, num_classes: int) -> tuple[tuple[int, int], str]:
    meta = checkpoint.get('meta')
    config = meta.get('config') if isinstance(meta, Mapping) else None
    # mmpose writes its configuration into the file as text; its image_size is (width, height)
    match = re.search(r'image_size\D{0,12}(\d+)\D{1,4}(\d+)', config) if isinstance(config, str) else None
    if match is not None and int(match[1]) % 32 == int(match[2]) % 32 == 0:
        return (int(match[2]), int(match[1])), 'the configuration in the file'
    match = re.search(r'(?<!\d)(\d{2,4})x(\d{2,4})(?!\d)', file.stem)
    if match is not None and int(match[1]) % 32 == int(match[2]) % 32 == 0:
        return (int(match[1]), int(match[2])), "the file's name"
    return ((256, 256) if num_classes == 16 else (256, 192)), 'a guess, --size sets it'


def convert_checkpoint(
    file: str | Path,
    out_dir: str | Path,
    size: tuple[int, int] | None = None,
    skeleton: Skeleton | None = None,
    ema: bool = False,
    overwrite: bool = False,
) -> Conversion:
    """Write an official checkpoint as a folder for `local-dir:`.

    Args:
        file: mmpose `.pth`.
        out_dir: Folder for `config.json`, `model.safetensors` (float32) and a model card.
        size: Input height and width; by default from the file's configuration or name.
        skeleton: Names and structure of the keypoints; by default COCO's for 17, MPII's for 16.
        ema: Take the second copy of the weights, see `official_state`.
        overwrite: Replace the files of an earlier conversion.

    Returns:
        What was found and written.

    Raises:
        UserError: If the file is refused, a weight is missing, unexpected, misshapen or not finite, the skeleton or
            size does not fit, or the folder is taken.
    """
    file, out_dir = Path(file), Path(out_dir)
    checkpoint = read_checkpoint(file)
    state, notes = official_state(checkpoint, ema)
    state = convert_state_dict(state)
    found = find_architecture(state)
    size, size_source = (size, 'the caller') if size else _find_size(checkpoint, file, found.num_classes)
    check_input_size(size)
    count = found.num_classes
    if skeleton is None:
        skeleton = next((s for s in SKELETONS.values() if s.num_keypoints == count), None)
    skeleton = skeleton or Skeleton('custom', tuple(f'keypoint_{i}' for i in range(count)))
    if skeleton.num_keypoints != count:
        raise UserError(
            f'The checkpoint has {count} keypoints, the skeleton {skeleton.name!r} has {skeleton.num_keypoints}: '
            'give the one it was trained with.'
        )
    in_chans = found.model_args.get('in_chans', 3)
    described = {
        'tag': f'{skeleton.name}_{size[0]}x{size[1]}',
        'num_classes': count,
        'label_names': skeleton.keypoints,
        'input_size': (in_chans, *size),
        'pool_size': (size[0] // 4, size[1] // 4),
        'license': NOT_STATED,
        'origin_url': REPOSITORY,
        'file': None,
    }
    # without memory at first: what damaged names and shapes claim may not fit into any
    model = create_model(found.variant, pretrained_cfg_overlay=described, device='meta', **found.model_args)
    load_weights(model, state, file.name)
    folder = save_pretrained(model, out_dir, skeleton=skeleton, overwrite=overwrite)
    parameters = sum(p.numel() for p in model.parameters())
    return Conversion(folder, found, size, size_source, skeleton, parameters, tuple(notes))
