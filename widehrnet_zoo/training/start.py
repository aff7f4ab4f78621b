"""The network a run starts from: its weights, its head, what is frozen."""

import logging
from fnmatch import fnmatchcase
from typing import Any

import torch
from timm.data import resolve_model_data_config
from torch import nn

from ..errors import UserError
from ..models.opening import open_network
from ..models.registry import create_model
from ..pose.crops import padding_of
from ..pose.skeletons import Skeleton, skeleton_of
from .config import ModelConfig

_logger = logging.getLogger(__name__)


def start_model(
    config: ModelConfig, skeleton: Skeleton, size: tuple[int, int], seed: int = 0, padding: float | None = None
) -> nn.Module:
    """The model to train.

    Where the weights' keypoints are others than the data's, the head is new; keypoints that both have by name keep
    their row of it.

    Args:
        config: What to start from.
        skeleton: Of the data.
        size: Height and width of the input.
        seed: Of new weights.
        padding: Growth of a box to the view; `None` for that of the weights.

    Returns:
        The model, with `skeleton` and `padding`, and with a pretrained config that says what it will be.

    Raises:
        UserError: If the weights do not exist or do not fit.
    """
    torch.manual_seed(seed)
    count = skeleton.num_keypoints
    try:
        if config.pretrained or config.weights or ':' in config.name:
            model = open_network(config.name, config.weights, size=size, **config.args).network
        else:
            model = create_model(config.name, num_classes=count, **config.args)
    except TypeError as error:
        if not config.args:
            raise
        raise UserError(f'model.args does not fit {config.name}: {error}.') from error
    if config.pretrained or config.weights or ':' in config.name:
        _fit_head(model, skeleton)
    elif config.init == 'kaiming':
        for name, module in model.named_modules():
            if isinstance(module, nn.Conv2d) and name != 'classifier':
                nn.init.kaiming_normal_(module.weight, nonlinearity='relu')
    cfg = dict(getattr(model, 'pretrained_cfg', None) or {})
    cfg.update(
        num_classes=count,
        label_names=skeleton.keypoints,
        input_size=(3, *size),
        pool_size=(size[0] // 4, size[1] // 4),
        tag='',
    )
    # where the weights came from is not where the trained ones are
    for place in ('url', 'file', 'hf_hub_id', 'source', 'state_dict', 'origin_url'):
        cfg.pop(place, None)
    # what timm keeps there too; nn.Module types its attributes as tensors or modules
    settings = {'skeleton': skeleton, 'pretrained_cfg': cfg, 'padding': padding or padding_of(model)}
    for name, value in settings.items():
        setattr(model, name, value)
    return model


def _fit_head(model: Any, skeleton: Skeleton) -> None:
    before = skeleton_of(model)
    if before.keypoints == skeleton.keypoints:
        return
    unnamed = all(name == f'keypoint_{i}' for i, name in enumerate(before.keypoints))
    if unnamed and before.num_keypoints == skeleton.num_keypoints:
        _logger.info('The weights do not name their %d keypoints; the head is kept as it is.', before.num_keypoints)
        return
    old = {k: v.clone() for k, v in model.classifier.state_dict().items()}
    model.reset_classifier(skeleton.num_keypoints)
    nn.init.normal_(model.classifier.weight, std=0.001)
    nn.init.zeros_(model.classifier.bias)
    shared = [name for name in skeleton.keypoints if name in before.keypoints]
    with torch.no_grad():
        for name in shared:
            row, old_row = skeleton.keypoints.index(name), before.keypoints.index(name)
            model.classifier.weight[row] = old['weight'][old_row]
            model.classifier.bias[row] = old['bias'][old_row]
    _logger.info('New head of %d outputs; taken over by name: %s.', skeleton.num_keypoints, ', '.join(shared) or 'none')


def freeze(model: nn.Module, patterns: tuple[str, ...]) -> None:
    """Exclude parts of a model from training.

    Args:
        model: The model.
        patterns: Names of modules, with wildcards; `backbone` for all but the head.

    Raises:
        UserError: If a pattern fits no module, or nothing is left to train.
    """
    modules = dict(model.named_modules())
    modules.pop('')
    for pattern in patterns:
        if pattern == 'backbone':
            chosen = [m for name, m in model.named_children() if name != 'classifier']
        else:
            chosen = [m for name, m in modules.items() if fnmatchcase(name, pattern)]
        if not chosen:
            raise UserError(
                f'model.freeze: no module is called {pattern!r}; there are backbone, '
                f'{", ".join(name for name, _ in model.named_children())} and their parts, such as stages.0.'
            )
        for module in chosen:
            module.requires_grad_(False)
    if not any(p.requires_grad for p in model.parameters()):
        raise UserError('model.freeze leaves nothing to train.')


def train_mode(model: nn.Module) -> None:
    """Training mode, but for modules whose parameters are all frozen: their norms keep their statistics."""
    model.train()
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(p.requires_grad for p in parameters):
            module.eval()


def input_stats(model: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation, in 0..1, by which a model's input is normalised."""
    config = resolve_model_data_config(model)
    return tuple(config['mean']), tuple(config['std'])
