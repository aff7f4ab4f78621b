"""From a name, a folder, a file or a Hub id to a network with its skeleton and its input."""

import logging
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from timm.data import resolve_model_data_config
from timm.models import get_arch_pretrained_cfgs, get_pretrained_cfg
from torch import nn

from ..errors import UserError
from ..pose.crops import padding_of
from ..pose.score_map import ScoreMap, score_map_of
from ..pose.skeletons import Skeleton, skeleton_of
from ..weights.checkpoints import load_weights
from ..weights.official import find_architecture, read_weights
from .registry import DEFAULT_MODEL, create_model, list_models

_logger = logging.getLogger(__name__)

WEIGHTS_SUFFIXES = ('.safetensors', '.pth', '.pt', '.bin')
"""Names of files that hold weights alone."""


@dataclass(frozen=True)
class OpenedNetwork:
    """A network, and what goes in and comes out.

    Attributes:
        network: Maps images (B, 3, H, W) to heatmaps (B, K, H/4, W/4).
        skeleton: What the keypoints are.
        size: Height and width of the input.
        mean: Of the input, RGB in 0..1.
        std: Of the input.
        padding: Growth of a person's box to the input.
        score_map: From heatmap peaks to chances, or `None`.
    """

    network: nn.Module
    skeleton: Skeleton
    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    padding: float
    score_map: ScoreMap | None = None


def open_network(
    model: str | Path | nn.Module | None = None,
    weights: str | Path | None = None,
    *,
    size: tuple[int, int] | None = None,
    skeleton: Skeleton | None = None,
    pretrained: bool = True,
    **kwargs: Any,
) -> OpenedNetwork:
    """Open a network, whatever it is given as. Everything that loads weights for a network comes through here.

    Args:
        model: A variant, `variant.tag`, `hf-hub:org/name[@revision]`, `local-dir:FOLDER`, a folder, a file of weights,
            or a module. By default the variant of `weights`, or `DEFAULT_MODEL`.
        weights: File of weights to load instead of the model's own: `.safetensors`, or an official `.pth`.
        size: Height and width of the input, instead of the model's own.
        skeleton: What the keypoints are, instead of what the model says.
        pretrained: Load the model's own weights where no file is given.
        **kwargs: For the network, as for `create_model`.

    Returns:
        The network with its skeleton and input. It has the number of keypoints that its weights have.

    Raises:
        UserError: If there is no such model, it has no weights, they do not fit, or it does not map images to heatmaps.
    """
    if isinstance(model, nn.Module):
        inner = unwrap(model)
        if weights is not None:
            load_weights(inner, read_weights(weights), Path(weights).name)
        return replace(_describe(inner, size, skeleton), network=model)
    name = None if model is None else str(model)
    path = path_of(model)
    if path is not None and path.suffix in WEIGHTS_SUFFIXES and weights is None:
        name, weights = None, path
    elif path is not None and path.is_dir():
        name = f'local-dir:{path}'
    if weights is None:
        return _describe(create_model(name or DEFAULT_MODEL, pretrained=pretrained, **kwargs), size, skeleton)
    file = Path(weights)
    state = read_weights(file)
    if name is not None and ':' in name:
        network = create_model(name, **kwargs)
    else:
        found = find_architecture(state)
        variant, _, tag = (name or found.variant).partition('.')
        # a network of other widths or depths has no name of its own
        if variant != found.variant and not found.model_args and not kwargs:
            create_model(variant, device='meta')  # says so if there is no such name
            raise UserError(f'{file.name} holds weights of {found.variant}, not of {name}.')
        if not tag:
            tag = _find_tag(variant, found.num_classes, file, quiet=size is not None)
        name = f'{variant}.{tag}' if tag else variant
        # without memory until the weights are known to fit
        network = create_model(name, device='meta', **{'num_classes': found.num_classes, **found.model_args, **kwargs})
        config = get_pretrained_cfg(name) if tag else None
        if config is not None and config.num_classes != found.num_classes and skeleton is None:
            raise UserError(
                f'{file.name} has {found.num_classes} keypoints and {name} has {config.num_classes}: name the variant '
                'alone, choose a tag of the same data set, or give the skeleton.'
            )
    load_weights(network, state, file.name)
    return _describe(network, size, skeleton)


def unwrap(model: nn.Module) -> nn.Module:
    """The network inside the wrappers of `torch.compile`, `DataParallel` and DDP, which know nothing of keypoints.

    Returns:
        The module inside, or the module itself.
    """
    while True:
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        elif '_orig_mod' in model._modules:
            model = model._modules['_orig_mod']  # type: ignore[assignment]
        else:
            return model


def path_of(model: str | Path | nn.Module | None) -> Path | None:
    """The path that a model is given by, or None where it is given by a name of the zoo, a Hub id or a module.

    Args:
        model: As for `open_network`; files of other runtimes are paths as well.
    """
    if isinstance(model, Path):
        return model
    if not isinstance(model, str) or ':' in model[2:]:  # a drive of Windows has a colon too
        return None
    path = Path(model)
    is_name = model.partition('.')[0] in list_models() and path.suffix not in WEIGHTS_SUFFIXES and not path.is_file()
    return None if is_name else path


def _find_tag(variant: str, count: int, file: Path, quiet: bool) -> str:
    """The tag of a variant that a file's keypoints and name speak for; empty for other keypoints."""
    tags = [
        cfg.tag or ''
        for cfg in get_arch_pretrained_cfgs(variant).values()
        # a checkpoint of the authors is not one of ours
        if cfg.num_classes == count and not (file.suffix != '.safetensors' and (cfg.tag or '').startswith('people'))
    ]
    said = set(re.findall(r'\d{2,4}x\d{2,4}|coco|mpii|people', file.name))
    tags.sort(key=lambda tag: -len(said & set(tag.split('_'))))
    name = f'{variant}.{tags[0]}' if tags else variant
    if not quiet and (not tags or not said & set(tags[0].split('_'))):
        _logger.warning(f'{file.name} does not say its input size: taking that of {name}; name the model to choose.')
    return tags[0] if tags else ''


def _describe(network: nn.Module, size: tuple[int, int] | None, skeleton: Skeleton | None) -> OpenedNetwork:
    if not getattr(network, 'pretrained_cfg', None) and size is None:
        raise UserError('This module has no pretrained_cfg that tells its input: give size=(height, width).')
    pool = getattr(getattr(network, 'global_pool', None), 'pool_type', '')
    if pool:
        raise UserError(f"This model pools its features (global_pool={pool!r}): keypoints need global_pool=''.")
    channels = getattr(network, 'in_chans', 3)
    if channels != 3:
        raise UserError(f'This model takes images of {channels} channels; expected 3.')
    config = resolve_model_data_config(network)
    try:
        input_size = size or tuple(config['input_size'][1:])
        mean, std = tuple(config['mean']), tuple(config['std'])
    except TypeError as error:
        raise UserError(f'The config of this model has no lists as input_size, mean and std: {error}.') from error
    skeleton = skeleton or skeleton_of(network)
    return OpenedNetwork(network, skeleton, input_size, mean, std, padding_of(network), score_map_of(network))
