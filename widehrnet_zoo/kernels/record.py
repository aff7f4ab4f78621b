"""From a deployed network to the program that the kernels run."""

from typing import Any, cast

import torch
from torch import Tensor

from ..deployment.fusion import DownPath, Fusion
from ..deployment.layers import Block, Depthwise, Gate, Gather, Pointwise, Separable
from ..deployment.network import DeployedWideHRNet, Stage, Transition
from ..errors import UserError
from .program import Array, Program


def _product(layer: Pointwise, weight: str = 'product', bias: str = 'bias') -> dict[str, Array]:
    return {weight: layer.weight.numpy(), bias: layer.bias.numpy()}


def _depthwise(layer: Depthwise) -> dict[str, Array]:
    return {'depthwise': layer.weight.flatten(1).t().numpy(), 'depthwise_bias': layer.bias.numpy()}


class _Recorder:
    """Puts the layers down as steps; takes and returns numbers of slots."""

    def __init__(self, deployed: DeployedWideHRNet):
        self.program = Program(deployed.in_chans, cast(Pointwise, deployed.head).weight.shape[1])

    def stem(self, stem: Any) -> int:
        first, wide = len(stem.bias), stem.mix.weight.shape[1]
        # the first half of the channels passes the second convolution as it is
        keep = first // 2
        mix: Tensor = stem.mix.weight
        passing = torch.zeros_like(mix)
        passing[:keep, :keep] = torch.eye(keep)
        passing[keep:, keep:] = mix[keep:, keep:]
        if not torch.equal(passing, mix) or stem.mix.bias[:keep].any():
            keep = 0
        arrays = {
            'conv': stem.weight.flatten(1).t().numpy(),
            'conv_bias': stem.bias.numpy(),
            'mix': mix[keep:, keep:].numpy(),
            'mix_bias': stem.mix.bias[keep:].numpy(),
            **_depthwise(stem.separable.dw),
            **_product(stem.separable.pw),
        }
        numbers = {
            'channels': self.program.channels,
            'first': first,
            'second': wide - keep,
            'outputs': stem.separable.pw.weight.shape[1],
            'keep': keep,
            'relu': stem.separable.relu,
        }
        return self.program.add('stem', numbers, arrays)

    def pointwise(self, layer: Pointwise, x: int) -> int:
        return self.program.add('pointwise', {'from': x, 'outputs': layer.weight.shape[1], 'relu': 0}, _product(layer))

    def separable(
        self, dw: Depthwise, pw: Pointwise, relu: bool, x: int, into: int | None = None, bias: Tensor | None = None
    ) -> int:
        numbers = {'from': x, 'outputs': pw.weight.shape[1], 'stride': dw.stride, 'relu': relu, 'add': into is not None}
        arrays = {**_depthwise(dw), **_product(pw)}
        if bias is not None:
            arrays['bias'] = bias.numpy()
        return self.program.add('separable', numbers, arrays, into)

    def whole(self, layer: Separable, x: int) -> int:
        return self.separable(layer.dw, layer.pw, layer.relu, x)

    def block(self, block: Block, x: int) -> None:
        # the expanded channels are between 0 and 255 after their ReLU, which 8-bit kernels store; to the others it is
        # all the same
        unit = block.reach.numpy() / 255
        depthwise = {name: array / unit for name, array in _depthwise(block.dw).items()}
        project = _product(block.project, 'project', 'project_bias')
        project['project'] = project['project'] * unit[:, None]
        arrays = {**_product(block.expand, 'expand', 'expand_bias'), **depthwise, **project}
        numbers = {
            'at': x,
            'start': block.start,
            'channels': block.expand.weight.shape[0],
            'middle': block.expand.weight.shape[1],
            'squeezed': 0,
        }
        if block.attn is not None:
            gate = cast(Gate, block.attn)
            numbers['squeezed'] = gate.fc1.weight.shape[1]
            arrays |= {**_product(gate.fc1, 'squeeze', 'squeeze_bias'), **_product(gate.fc2, 'excite', 'excite_bias')}
            arrays['squeeze'] = arrays['squeeze'] * unit[:, None]
        self.program.add('block', numbers, arrays, x)

    def reorder(self, x: int, order: Tensor, relu: bool) -> int:
        return self.program.add('reorder', {'from': x, 'relu': relu}, {'order': order.numpy()})

    def branch(self, blocks: Any, x: int) -> int:
        for block in blocks:
            if isinstance(block, Gather):
                x = self.reorder(x, block.order, False)
            else:
                self.block(block, x)
        return x

    def fusion(self, fusion: Fusion, x: list[int]) -> list[int]:
        channels = fusion.channels
        below = [self.pointwise(cast(Pointwise, up), branch) for up, branch in zip(fusion.up, x[1:], strict=True)]
        for j in range(len(below) - 1, 0, -1):
            self.program.add('add_nearest', {'from': below[j], 'start': 0}, {}, below[j - 1])
        # every sum is in place: paths from a lower branch read it before its own sum, so the lowest targets come first;
        # paths from the highest resolution read its sum
        paths = sorted(cast(list[DownPath], list(fusion.down)), key=lambda p: (p.source == 0, -p.target))
        for path in [p for p in paths if p.source > 0]:
            self.down(path, x, None)
        for i, low in enumerate(below):
            self.program.add('add_nearest', {'from': low, 'start': sum(channels[:i])}, {}, x[i])
        for path in [p for p in paths if p.source == 0]:
            self.down(path, x, fusion.bias if path.target == len(x) - 1 else None)
        out = []
        for i, z in enumerate(x):
            gather = getattr(fusion, f'gather{i}')
            out.append(self.reorder(z, torch.arange(channels[i]) if gather is None else gather, True))
        return out

    def down(self, path: DownPath, x: list[int], bias: Tensor | None) -> None:
        y = x[path.source]
        for step in cast(list[Separable], list(path.steps)):
            y = self.whole(step, y)
        self.separable(path.dw, path.pw, False, y, x[path.target], bias)

    def transition(self, transition: Transition, x: list[int]) -> list[int]:
        new = self.whole(transition.new, x[-1])
        keep = [
            self.whole(layer, y) if isinstance(layer, Separable) else y
            for layer, y in zip(transition.keep, x, strict=True)
        ]
        return [*keep, new]

    def network(self, deployed: DeployedWideHRNet) -> None:
        branches = [self.stem(deployed.stem)]
        for module in deployed.body:
            if isinstance(module, Transition):
                branches = self.transition(module, branches)
            else:
                stage = cast(Stage, module)
                branches = [self.branch(blocks, y) for blocks, y in zip(stage.branches, branches, strict=True)]
                branches = self.fusion(stage.fusion, branches)
        y = branches[-1]
        for i, project in enumerate(cast(list[Separable], list(deployed.neck))):
            if i:
                self.program.add('add_bilinear', {'from': y, 'start': 0}, {}, branches[-1 - i])
                y = branches[-1 - i]
            y = self.whole(project, y)
        head = cast(Pointwise, deployed.head)
        self.program.add('head', {'from': y, 'outputs': self.program.outputs, 'relu': 0}, _product(head), -1)


def record(deployed: DeployedWideHRNet) -> Program:
    """Put a deployed network down as a program for the kernels.

    Args:
        deployed: From `deploy()`, with heatmaps.

    Returns:
        The program, which shares memory with the network's weights where it can.

    Raises:
        UserError: If the network has other attention than squeeze-excitation, no heatmaps, or is not in float32.
    """
    blocks = [m for m in deployed.modules() if isinstance(m, Block)]
    other = [m.attn for m in blocks if not isinstance(m.attn, (Gate, type(None)))]
    if other:
        raise UserError(f'The kernels know squeeze-excitation only, not {type(other[0]).__name__}.')
    if not isinstance(deployed.head, Pointwise):
        raise UserError("The kernels give heatmaps only: create the model with global_pool=''.")
    weight = next(deployed.buffers())
    if weight.device.type != 'cpu' or weight.dtype != torch.float32:
        raise UserError(f'The kernels run on the CPU from float32 weights, not on {weight.device} from {weight.dtype}.')
    recorder = _Recorder(deployed)
    recorder.network(deployed)
    return recorder.program
