"""A faster training step on the CPU: the same function and gradients, fewer passes over memory.

On a CPU a step of the plain network spends most of its time not in convolutions but in the element-wise work around
them (batch norm, ReLU, squeeze-excitation, shuffle), each of which reads and writes whole activations. The kernels in
`fused.cpp` join this work into the two passes that batch norm needs anyway, and the depthwise convolutions of
`depthwise.h` make what they read, and its gradient, from what is stored already. They are compiled at first use, which
needs a C++ compiler and ninja. In bfloat16 autocast the activations are stored in half the memory, and the 1x1
convolutions take half the time on a processor with bfloat16 products. Autocast alone gains nothing: the passes around
the convolutions keep converting.
"""

import functools
import hashlib
import logging
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MethodType, ModuleType
from typing import Any

import torch
from filelock import FileLock, Timeout
from timm.layers import BatchNormAct2d, SEModule
from torch import Tensor, nn

from ..errors import UserError
from ..extras import require
from ..models.blocks import WideInvertedResidual

_logger = logging.getLogger(__name__)

_SOURCES = tuple(Path(__file__).with_name(name) for name in ('fused.cpp', 'depthwise.h', 'rows.h'))

_NONE = torch.empty(0)


@functools.cache
def kernels() -> ModuleType:
    """Load the kernels, compiled once for each content of their sources, processor, PyTorch, ninja and package place.

    Raises:
        ImportError: If ninja is not installed.
        UserError: If the folder for compiled kernels cannot be written.
        RuntimeError: If there is no working C++ compiler.
    """
    require('ninja', extra='train')
    from torch.utils.cpp_extension import get_default_build_root, load

    name = _build_name()
    folder = Path(os.environ.get('TORCH_EXTENSIONS_DIR') or get_default_build_root(), name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(
            f'The kernels for training cannot be compiled to {folder} ({error.strerror}): set TORCH_EXTENSIONS_DIR to '
            'a folder that can be written, or train with fused: false.'
        ) from error
    with _alone(folder):
        new = not any(folder.glob(f'{name}.*'))
        if new:
            _logger.warning('Compiling the kernels for training to %s, once; this takes a minute or more ...', folder)
        began = time.monotonic()
        module = load(
            name=name,
            sources=[str(_SOURCES[0])],
            extra_cflags=['-O3', '-march=native', '-ffast-math', '-fopenmp'],
            extra_ldflags=['-fopenmp'],
            build_directory=str(folder),
        )
        if new:
            _logger.warning('Compiled in %.0f s.', time.monotonic() - began)
    return module


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time; the system takes the lock from one that was killed."""
    lock = FileLock(folder / 'building')
    try:
        lock.acquire(timeout=0)
    except Timeout:
        _logger.warning('Another process compiles the kernels for training: waiting for it ...')
        lock.acquire()
    except NotImplementedError:  # a network disk without locks
        yield
        return
    try:
        # PyTorch before 2.14 waits without end for this file of a killed process to go
        (folder / 'lock').unlink(missing_ok=True)
        yield
    finally:
        lock.release()


def _build_name() -> str:
    # two installations, or machines that share a home, would compile over each other under one name
    content = b''.join(file.read_bytes() for file in _SOURCES)
    with suppress(OSError):
        content += next((line for line in Path('/proc/cpuinfo').read_bytes().splitlines() if b'flags' in line), b'')
    # ninja of another version compiles all of it anew, and nobody would hear why a start takes minutes
    with suppress(OSError):
        content += subprocess.run(['ninja', '--version'], stdout=subprocess.PIPE).stdout
    said = f'{_SOURCES[0].resolve()} {torch.__version__} {platform.machine()} {sys.version_info[:2]}'
    return f'widehrnet_zoo_fused_{hashlib.sha256(content + said.encode()).hexdigest()[:12]}'


Stats = tuple[Tensor, Tensor, Tensor, Tensor]
"""Of a batch, per channel: mean, 1 / std, and the scale and shift of the norm."""


def _norm(bn: nn.BatchNorm2d, rows: int, mean: Tensor, var: Tensor) -> Stats:
    """The norm of `rows` pixels with this mean and variance; moves the running statistics as PyTorch does."""
    if bn.track_running_stats:
        assert bn.num_batches_tracked is not None and bn.running_mean is not None and bn.running_var is not None
        assert bn.momentum is not None
        bn.num_batches_tracked.add_(1)
        bn.running_mean.lerp_(mean, bn.momentum)
        bn.running_var.lerp_(var * (rows / max(1, rows - 1)), bn.momentum)
    invstd = torch.rsqrt(var + bn.eps)
    scale = bn.weight.detach() * invstd
    return mean, invstd, scale, bn.bias.detach() - mean * scale


def _rows(x: Tensor) -> int:
    return x.numel() // x.shape[1]


def _norm_backward(dy: Tensor, x: Tensor, stats: Stats, relu: bool) -> tuple[Tensor, Tensor, Tensor]:
    k = kernels()
    mean, invstd, scale, shift = stats
    a, b, dgamma, dbeta = k.bn_terms(k.bn_sums(dy, x, mean, scale, shift, relu), mean, invstd, scale, _rows(x))
    return k.bn_apply(dy, x, scale, shift, a, b, relu, False), dgamma, dbeta


def _conv(x: Tensor, conv: nn.Conv2d) -> Tensor:
    return torch.conv2d(x, conv.weight.to(x.dtype), None, conv.stride, conv.padding, conv.dilation, conv.groups)


def _conv_backward(grad: Tensor, x: Tensor, conv: nn.Conv2d) -> tuple[Tensor, Tensor]:
    dx, dweight = torch.ops.aten.convolution_backward(
        grad,
        x,
        conv.weight.to(x.dtype),
        None,
        conv.stride,
        conv.padding,
        conv.dilation,
        False,
        [0, 0],
        conv.groups,
        [True, True, False],
    )[:2]
    return dx, dweight.to(conv.weight.dtype)


class _NormAct(torch.autograd.Function):
    """Batch norm in training mode, with or without ReLU."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, bn: nn.BatchNorm2d, relu: bool) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        stats = _norm(bn, _rows(x), *kernels().bn_stats(x))
        ctx.save_for_backward(x, *stats)
        ctx.relu = relu
        return kernels().affine(x, stats[2], stats[3], relu)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, *stats = ctx.saved_tensors
        grad = grads[0].contiguous(memory_format=torch.channels_last)
        dx, dweight, dbias = _norm_backward(grad, x, stats, ctx.relu)
        return dx, dweight, dbias, None, None


class _WideBlock(torch.autograd.Function):
    """A whole wide inverted residual, with squeeze-excitation if it has one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, block: WideInvertedResidual, *params: Tensor) -> Tensor:
        k = kernels()
        x = x.contiguous(memory_format=torch.channels_last)
        b = k.second_half(x)
        h1 = _conv(b, block.conv_pw.conv)
        rows = _rows(h1)
        stats1 = _norm(block.conv_pw.bn, rows, *k.bn_stats(h1))
        h2, *moments = k.depthwise(h1, stats1[2], stats1[3], block.conv_dw.conv.weight.detach())
        stats2 = _norm(block.conv_dw.bn, rows, *moments)
        if isinstance(block.attn, SEModule):
            pooled = k.affine_pool(h2, stats2[2], stats2[3])
            w1, w2 = block.attn.fc1.weight.flatten(1), block.attn.fc2.weight.flatten(1)
            assert block.attn.fc1.bias is not None and block.attn.fc2.bias is not None
            hidden = torch.relu(torch.addmm(block.attn.fc1.bias, pooled, w1.t()))
            gate = torch.sigmoid(torch.addmm(block.attn.fc2.bias, hidden, w2.t()))
            y2 = k.affine_gate(h2, stats2[2], stats2[3], gate)
        else:
            pooled = hidden = gate = _NONE
            y2 = k.affine(h2, stats2[2], stats2[3], True)
        h3 = _conv(y2, block.conv_pwl.conv)
        stats3 = _norm(block.conv_pwl.bn, rows, *k.bn_stats(h3))
        ctx.save_for_backward(b, h1, h2, y2, h3, pooled, hidden, gate, *stats1, *stats2, *stats3)
        ctx.block = block
        return k.add_shuffle(h3, stats3[2], stats3[3], x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        k = kernels()
        block = ctx.block
        b, h1, h2, y2, h3, pooled, hidden, gate, *stats = ctx.saved_tensors
        stats1, stats2, stats3 = stats[:4], stats[4:8], stats[8:]
        mean1, invstd1, scale1, shift1 = stats1
        mean2, invstd2, scale2, shift2 = stats2
        dx, dres = k.unshuffle(grads[0].contiguous(memory_format=torch.channels_last))

        dh3, dg3, db3 = _norm_backward(dres, h3, stats3, False)
        dy2, dw3 = _conv_backward(dh3, y2, block.conv_pwl.conv)
        attn_grads: tuple[Tensor, ...] = ()
        dpool = _NONE
        if gate.numel():
            w1, w2 = block.attn.fc1.weight.flatten(1), block.attn.fc2.weight.flatten(1)
            v, vx, count, x = k.gate_sums(dy2, h2, mean2, scale2, shift2)
            dlogit = (scale2 * vx + (scale2 * mean2 + shift2) * v) * gate * (1 - gate)
            dhidden = (dlogit @ w2) * (hidden > 0)
            dpool = (dhidden @ w1) / (h2.shape[2] * h2.shape[3])
            attn_grads = (
                (dhidden.t() @ pooled).view_as(block.attn.fc1.weight),
                dhidden.sum(0),
                (dlogit.t() @ hidden).view_as(block.attn.fc2.weight),
                dlogit.sum(0),
            )
            sums2 = torch.stack(((v * gate + count * dpool).sum(0), (vx * gate + x * dpool).sum(0)))
        else:
            sums2 = k.bn_sums(dy2, h2, mean2, scale2, shift2, True)
        rows = _rows(h2)
        a2, b2, dg2, db2 = k.bn_terms(sums2, mean2, invstd2, scale2, rows)
        weight = block.conv_dw.conv.weight.detach()
        dy1, sums1, dw2 = k.depthwise_backward(
            dy2, h2, scale2, shift2, a2, b2, gate, dpool, h1, mean1, scale1, shift1, weight
        )
        a1, b1, dg1, db1 = k.bn_terms(sums1, mean1, invstd1, scale1, rows)
        dh1 = k.bn_apply(dy1, h1, scale1, shift1, a1, b1, False, True)
        db, dw1 = _conv_backward(dh1, b, block.conv_pw.conv)
        k.add_second_half(dx, db.contiguous(memory_format=torch.channels_last))
        return (dx, None, dw1, dg1, db1, dw2, dg2, db2, *attn_grads, dw3, dg3, db3)


def _norm_act_forward(self: BatchNormAct2d, x: Tensor) -> Tensor:
    if not self.training:
        return type(self).forward(self, x)
    return _NormAct.apply(x, self.weight, self.bias, self, isinstance(self.act, nn.ReLU))


def _block_forward(self: WideInvertedResidual, x: Tensor) -> Tensor:
    if not self.training:
        return type(self).forward(self, x)
    # its small products are float32 in either precision; the convolutions follow the type of x
    with torch.autocast('cpu', enabled=False):
        return _WideBlock.apply(x, self, *self.parameters())


class _StridedDepthwise(torch.autograd.Function):
    """A depthwise 3x3 of stride 2; oneDNN's backward takes 20 to 50 times as long in bfloat16 as in float32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        ctx.save_for_backward(x, weight)
        return kernels().depthwise_strided(x, weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        grad = grads[0].contiguous(memory_format=torch.channels_last)
        dx, dweight = kernels().depthwise_strided_backward(grad, x, weight)
        return dx, dweight


def _strided_depthwise_forward(self: nn.Conv2d, x: Tensor) -> Tensor:
    return _StridedDepthwise.apply(x, self.weight)


def _is_strided_depthwise(module: nn.Module) -> bool:
    return (
        type(module) is nn.Conv2d
        and module.groups == module.in_channels == module.out_channels > 1
        and (module.kernel_size, module.stride, module.padding, module.dilation) == ((3, 3), (2, 2), (1, 1), (1, 1))
        and module.padding_mode == 'zeros'
        and module.bias is None
    )


def _can_fuse(block: WideInvertedResidual) -> bool:
    attn = block.attn
    plain_se = (
        type(attn) is SEModule
        and not attn.add_maxpool
        and isinstance(attn.bn, nn.Identity)
        and isinstance(attn.act, nn.ReLU)
        and 'sigmoid' in type(attn.gate).__name__.lower()
    )
    layers: tuple[Any, ...] = (block.conv_pw, block.conv_dw, block.conv_pwl)
    norms = all(type(m.bn) is BatchNormAct2d for m in layers)
    acts = all(isinstance(m.bn.act, nn.ReLU) for m in layers[:2]) if norms else False
    # the fused block moves all statistics of its norms, and a norm that is frozen keeps them; autograd passes over the
    # gradients of other frozen parts
    frozen = not all(p.requires_grad for m in layers for p in m.bn.parameters())
    plain = isinstance(block.drop_path, nn.Identity) and (plain_se or isinstance(attn, nn.Identity))
    return norms and acts and plain and not frozen


def fuse_training(model: nn.Module) -> nn.Module:
    """Make training on the CPU faster, in place; parameters, state dict and evaluation stay as they are.

    Blocks with published parts (batch norm that is not frozen, ReLU, squeeze-excitation or no attention, no stochastic
    depth) are fused; anything else keeps its own forward.

    Args:
        model: A `WideHRNet` on the CPU with float32 parameters. Under `torch.autocast('cpu', torch.bfloat16)` its
            activations and their gradients are bfloat16, statistics and parameters stay float32.

    Raises:
        ImportError: If ninja is not installed.
    """
    kernels()
    for module in model.modules():
        if isinstance(module, WideInvertedResidual) and _can_fuse(module):
            module.forward = MethodType(_block_forward, module)  # type: ignore[method-assign]
        elif type(module) is BatchNormAct2d and isinstance(module.act, (nn.ReLU, nn.Identity)):
            module.forward = MethodType(_norm_act_forward, module)  # type: ignore[method-assign]
        elif _is_strided_depthwise(module):
            module.forward = MethodType(_strided_depthwise_forward, module)
    return model
