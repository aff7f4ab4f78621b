"""Batch-norm statistics over all processes, on the CPU too.

PyTorch's SyncBatchNorm runs on accelerators only, and there it is used. On the CPU each norm exchanges its channels'
mean and second moment, which autograd follows through the exchange, so that several processes compute what one would
with the whole batch.
"""

from types import MethodType

import torch
import torch.distributed as dist
from timm.layers import BatchNormAct2d, convert_sync_batchnorm
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce


def _forward(self: nn.BatchNorm2d, x: Tensor) -> Tensor:
    if not self.training:
        return type(self).forward(self, x)
    world = dist.get_world_size()
    var, mean = torch.var_mean(x, (0, 2, 3), correction=0)
    # in double, for the variance is a difference of these two; every process has as many samples
    mean, var = mean.double(), var.double()
    mean, square = (all_reduce(torch.stack((mean, var + mean.square()))) / world).unbind()
    var = (square - mean.square()).clamp(min=0)
    if self.track_running_stats and self.running_mean is not None and self.running_var is not None:
        assert self.num_batches_tracked is not None
        count = world * x.numel() // x.shape[1]
        self.num_batches_tracked.add_(1)
        momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.detach().to(self.running_mean), momentum)
        self.running_var.lerp_((var.detach() * (count / max(1, count - 1))).to(self.running_var), momentum)
    scale = torch.rsqrt(var + self.eps)
    shift = -mean * scale
    if self.affine:
        scale, shift = scale * self.weight, shift * self.weight + self.bias
    y = x * scale.to(x).view(1, -1, 1, 1) + shift.to(x).view(1, -1, 1, 1)
    return self.act(self.drop(y)) if isinstance(self, BatchNormAct2d) else y


def sync_norms(model: nn.Module, device: torch.device) -> nn.Module:
    """Let the batch norms of a model see the whole batch.

    Args:
        model: The model; names and shapes of its state dict stay.
        device: Where it trains.
    """
    if device.type != 'cpu':
        return convert_sync_batchnorm(model)
    for module in model.modules():
        if type(module) in (nn.BatchNorm2d, BatchNormAct2d):
            module.forward = MethodType(_forward, module)
    return model
