"""Write the deployed network as an ONNX graph, node by node.

`torch.onnx.export(dynamo=True)` of `GraphNetwork` gives the same numbers, and OpenVINO runs it as fast, but ONNX
Runtime is 10 to 20 % slower on it: it has ReduceMean where this graph has GlobalAveragePool. With a rewriting rule of
onnxscript that puts GlobalAveragePool there, it was still 7 to 11 % slower at batch 1 (level at batch 8; one thread,
two runs), and an export took 36 seconds of CPU instead of 7. So the graph is written here, from the few kinds of
operations that runtimes have fast kernels for.
"""

from typing import Any, cast

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from ..deployment.graph import (
    GraphBlock,
    GraphFusion,
    GraphGate,
    GraphGather,
    GraphNetwork,
    GraphStage,
    GraphTransition,
)
from ..engines.metadata import KEY, ExportMetadata
from ..errors import UserError
from ..extras import require
from ..pose.crops import STRIDE

_OPSET = 21


class GraphWriter:
    """Collects nodes and initializers; every method takes and returns names of values."""

    def __init__(self) -> None:
        self.onnx = require('onnx', 'export')
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self._constants: dict[tuple[Any, ...], str] = {}
        self._count = 0

    def constant(self, value: npt.NDArray[Any]) -> str:
        """An initializer; equal small ones are kept once."""
        key = (value.dtype.str, value.shape, value.tobytes())
        name = self._constants.get(key) if value.size <= 16 else None
        if name is None:
            self._count += 1
            name = self._constants[key] = f'c{self._count}'
            self.initializers.append(self.onnx.numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def ints(self, *values: int) -> str:
        """A constant of int64."""
        return self.constant(np.array(values, np.int64))

    def floats(self, value: npt.ArrayLike) -> str:
        """A constant of float32."""
        return self.constant(np.asarray(value, np.float32))

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """A node with one output."""
        self._count += 1
        name = f'{kind}_{self._count}'
        self.nodes.append(self.onnx.helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def split(self, x: str, *sizes: int) -> list[str]:
        """Runs of channels of these sizes, each once; of no channels nothing."""
        self._count += 1
        names = [f'Split_{self._count}_{i}' for i in range(len(sizes))]
        kept = [name for name, size in zip(names, sizes, strict=True) if size]
        widths = self.ints(*(size for size in sizes if size))
        self.nodes.append(self.onnx.helper.make_node('Split', [x, widths], kept, name=f'Split_{self._count}', axis=1))
        return kept

    def rename(self, value: str, name: str) -> None:
        """Give the last node's output its public name."""
        assert self.nodes[-1].output[0] == value
        self.nodes[-1].output[0] = name

    def model(self, metadata: ExportMetadata, inputs: list[Any], outputs: list[Any]) -> Any:
        """What was written as a checked `onnx.ModelProto` that says what it is.

        Args:
            metadata: What the model says about itself.
            inputs: Its `ValueInfoProto`s.
            outputs: Likewise.
        """
        helper = self.onnx.helper
        graph = helper.make_graph(self.nodes, metadata.name, inputs, outputs, self.initializers)
        opset = helper.make_opsetid('', _OPSET)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=10, producer_name='widehrnet_zoo')
        helper.set_model_props(model, {KEY: metadata.to_json()})
        self.onnx.checker.check_model(model)
        return model


def _numpy(tensor: Tensor) -> npt.NDArray[Any]:
    return tensor.detach().cpu().numpy()


class NetworkWriter(GraphWriter):
    """Writes the layers of `GraphNetwork`.

    Args:
        orders_are_products: Write a new order of channels as a 1x1 convolution with ones and zeros, which is the same
            number for number, for runtimes that gather channels only in another memory format.
    """

    def __init__(self, orders_are_products: bool = False) -> None:
        super().__init__()
        self.orders_are_products = orders_are_products

    def conv(self, layer: nn.Conv2d, x: str, outputs: slice = slice(None), inputs: slice = slice(None)) -> str:
        """A convolution, or some of its outputs from some of its inputs; of a depthwise one some channels."""
        assert layer.bias is not None and isinstance(layer.padding, tuple)
        kernel = layer.weight[outputs, inputs]
        weight, bias = self.constant(_numpy(kernel)), self.constant(_numpy(layer.bias[outputs]))
        pads = [*layer.padding, *layer.padding]
        return self.op(
            'Conv',
            x,
            weight,
            bias,
            kernel_shape=list(layer.kernel_size),
            strides=list(layer.stride),
            pads=pads,
            group=len(kernel) if layer.groups > 1 else 1,
        )

    def chain(self, layers: Any, x: str) -> str:
        """Layers one after the other."""
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                x = self.conv(layer, x)
            elif isinstance(layer, nn.ReLU):
                x = self.op('Relu', x)
            elif isinstance(layer, nn.Sequential):
                x = self.chain(layer, x)
            elif isinstance(layer, GraphBlock):
                x = self.block(layer, x)
            elif isinstance(layer, GraphGather):
                x = self.order(layer, x)
            elif not isinstance(layer, nn.Identity):
                raise UserError(f'{type(layer).__name__} has no form in ONNX here: export to torch-export instead.')
        return x

    def order(self, layer: GraphGather, x: str) -> str:
        """Channels in another order."""
        if not self.orders_are_products:
            return self.op('Gather', x, self.constant(_numpy(layer.order)), axis=1)
        chosen = np.eye(len(layer.order), dtype=np.float32)[_numpy(layer.order)]
        return self.op('Conv', x, self.constant(chosen[..., None, None]), kernel_shape=[1, 1])

    def stem(self, stem: nn.Sequential, x: str) -> str:
        """The stem, in whose 1x1 convolution the first half of the channels only passes: here it goes past it."""
        first, _, mix, _, separable = cast(Any, stem)
        half = first.out_channels // 2
        lower, upper = slice(0, half), slice(half, None)
        depthwise, *last = separable
        a, b = (self.op('Relu', self.conv(first, x, part)) for part in (lower, upper))
        b = self.op('Relu', self.conv(mix, b, upper, upper))
        a, b = self.conv(depthwise, a, lower), self.conv(depthwise, b, upper)
        return self.chain(last, self.op('Concat', a, b, axis=1))

    def gate(self, gate: GraphGate, x: str) -> str:
        """The factors (B, C, 1, 1) of squeeze-excitation."""
        # with matrix products here, int8 files of OpenVINO have 1.3 times the error
        pooled = self.op('GlobalAveragePool', x)
        return self.op('Sigmoid', self.conv(gate.fc2, self.op('Relu', self.conv(gate.fc1, pooled))))

    def block(self, block: GraphBlock, x: str) -> str:
        """A block."""
        sizes = (block.start, block.stop - block.start, block.chs - block.stop)
        parts = self.split(x, *sizes)
        place = int(block.start > 0)
        b = parts[place]
        y = self.op('Relu', self.conv(block.expand, b))
        y = self.op('Relu', self.conv(block.dw, y))
        attn = block.attn
        if isinstance(attn, GraphGate):
            y = self.op('Mul', y, self.gate(attn, y))
        elif not isinstance(attn, nn.Identity):
            raise UserError(
                f'The attention {type(attn).__name__} has no form in ONNX here, only squeeze-excitation has: export '
                'to torch-export instead.'
            )
        parts[place] = self.op('Add', b, self.conv(block.project, y))
        return self.op('Concat', *parts, axis=1)

    def double(self, x: str) -> str:
        """Each pixel four times."""
        scales = self.floats([1, 1, 2, 2])
        return self.op(
            'Resize', x, '', scales, mode='nearest', coordinate_transformation_mode='asymmetric', nearest_mode='floor'
        )

    def bilinear(self, x: str) -> str:
        """Twice the size, corners aligned."""
        scales = self.floats([1, 1, 2, 2])
        return self.op('Resize', x, '', scales, mode='linear', coordinate_transformation_mode='align_corners')

    def fusion(self, fusion: GraphFusion, x: list[str]) -> list[str]:
        """The sum over the branches."""
        out: list[str] = []
        last = fusion.num - 1
        for i in range(fusion.num):
            z = x[i]
            if i < last:
                low = self.chain([fusion.up[f'{i}_{last}']], x[-1])
                for j in range(last - 1, i, -1):
                    low = self.op('Add', self.chain([fusion.up[f'{i}_{j}']], x[j]), self.double(low))
                z = self.op('Add', z, self.double(low))
            for j in range(i):
                z = self.op('Add', self.chain([fusion.down[f'{i}_{j}']], out[0] if j == 0 else x[j]), z)
            out.append(z)
        # in this order runtimes compute the last sum and its ReLU with the convolution before
        return [self.chain([gather], self.op('Relu', z)) for gather, z in zip(fusion.gather, out, strict=True)]

    def network(self, network: GraphNetwork, x: str) -> str:
        """Images to heatmaps."""
        branches = [self.stem(network.stem, x)]
        for module in network.body:
            if isinstance(module, GraphTransition):
                new = self.chain([module.new], branches[-1])
                branches = [self.chain([k], y) for k, y in zip(module.keep, branches, strict=True)] + [new]
            else:
                assert isinstance(module, GraphStage)
                branches = [self.chain([b], y) for b, y in zip(module.branches, branches, strict=True)]
                branches = self.fusion(module.fusion, branches)
        y = branches[-1]
        for i, project in enumerate(network.neck):
            if i > 0:
                y = self.op('Add', branches[-1 - i], self.bilinear(y))
            y = self.chain([project], y)
        if not isinstance(network.head, nn.Conv2d):
            raise UserError("Only networks with heatmaps are exported to ONNX: create the model with global_pool=''.")
        return self.conv(network.head, y)


class PoseWriter(NetworkWriter):
    """Adds what stands before and after the network, in the graph."""

    def normalise(self, x: str, mean: tuple[float, ...], std: tuple[float, ...]) -> str:
        """uint8 crops (B, H, W, 3) to float32 (B, 3, H, W)."""
        scale = self.floats((1 / (255 * np.array(std))).reshape(3, 1, 1))
        shift = self.floats((-np.array(mean) / np.array(std)).reshape(3, 1, 1))
        # channels first: runtimes are slow over a last axis of three, and a byte is moved faster than a float
        planes = self.op('Transpose', x, perm=[0, 3, 1, 2])
        y = self.op('Cast', planes, to=self.onnx.TensorProto.FLOAT)
        return self.op('Add', self.op('Mul', y, scale), shift)

    def decode(self, heatmaps: str) -> str:
        """Heatmaps (B, K, h, w) to keypoints (B, K, 3): x, y in crop pixels and score, as `decode_heatmaps` 'quarter'.

        A maximum at the border has no neighbours on one side and stays where it is.
        """
        ints, floats = self.ints, self.floats
        shape = self.op('Shape', heatmaps)
        height, width = (self.op('Gather', shape, ints(i)) for i in (2, 3))
        flat = self.op('Reshape', heatmaps, ints(0, 0, -1))
        score = self.op('ReduceMax', flat, ints(2), keepdims=1)
        index = self.op('ArgMax', flat, axis=2, keepdims=1)
        y = self.op('Div', index, width)
        x = self.op('Sub', index, self.op('Mul', y, width))
        one = ints(1)

        def inner(value: str, size: str) -> str:
            above = self.op('Greater', value, one)
            return self.op('And', above, self.op('Less', value, self.op('Sub', size, one)))

        inside = self.op('And', inner(x, width), inner(y, height))
        last = self.op('Sub', self.op('Mul', height, width), one)

        def neighbour(offset: str) -> str:
            place = self.op('Max', self.op('Min', self.op('Add', index, offset), last), ints(0))
            return self.op('GatherElements', flat, place, axis=2)

        def refined(value: str, step: str) -> str:
            difference = self.op('Sub', neighbour(step), neighbour(self.op('Neg', step)))
            quarter = self.op('Mul', self.op('Sign', difference), floats(0.25))
            quarter = self.op('Where', inside, quarter, floats(0.0))
            moved = self.op('Add', self.op('Cast', value, to=self.onnx.TensorProto.FLOAT), quarter)
            return self.op('Mul', moved, floats(float(STRIDE)))

        return self.op('Concat', refined(x, one), refined(y, width), score, axis=2)
