"""What an evaluation needs to know of a model."""

from pathlib import Path

import torch
from timm.data import resolve_model_data_config
from torch import nn

from ..errors import UserError
from ..estimator import PoseEstimator
from ..skeletons import skeleton_of
from .predict import Network


def open_network(
    model: str | nn.Module | PoseEstimator,
    weights: str | Path | None = None,
    device: str | torch.device | None = None,
    size: tuple[int, int] | None = None,
) -> Network:
    """A model with its input's size and normalisation and its skeleton.

    Args:
        model: A name, a folder or Hub id, as `PoseEstimator` takes it; a module; or an estimator.
        weights: File of weights, official checkpoints included.
        device: Where it runs; `None` leaves a module where it is.
        size: Height and width of the input, multiples of 32, instead of the model's own.

    Returns:
        The network.

    Raises:
        UserError: If the size does not fit the network.
    """
    name = model if isinstance(model, str) else type(model).__name__
    if isinstance(model, PoseEstimator):
        module: nn.Module = model.model
    elif isinstance(model, nn.Module) and weights is None:
        module = model if device is None else model.to(device)
    else:
        module = PoseEstimator(model, weights=weights, device=device).model
    config = resolve_model_data_config(module)
    size = tuple(size or config['input_size'][1:])  # type: ignore[assignment]
    assert size is not None
    if min(size) < 32 or any(side % 32 for side in size):
        raise UserError(f'the input must be a multiple of 32 in height and width, not {size[0]}x{size[1]}.')
    parameter = next(module.parameters())
    architecture = getattr(module, 'pretrained_cfg', {}).get('architecture')
    tag = getattr(module, 'pretrained_cfg', {}).get('tag')
    if not isinstance(model, str) and architecture:
        name = f'{architecture}.{tag}' if tag else architecture
    return Network(
        module, skeleton_of(module), size, tuple(config['mean']), tuple(config['std']), parameter.device, name
    )
