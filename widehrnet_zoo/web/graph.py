"""A pose network with all of `PoseEstimator`'s arithmetic in the ONNX graph: crops in, keypoints and chances out."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..deployment.graph import GraphGate, GraphNetwork
from ..deployment.network import deploy
from ..engines.metadata import ExportMetadata
from ..errors import UserError
from ..export.export import TOLERANCE, sample_crops
from ..export.onnx_graph import PoseWriter
from ..extras import require
from ..files import write_whole
from ..models.opening import OpenedNetwork
from ..pose.box_maps import gives_boxes
from ..pose.crops import STRIDE, normalise
from ..pose.decoding import decode_heatmaps, gaussian_of
from ..pose.score_map import ScoreMap

_REACH = 2
"""Pixels around the maximum that `decode_heatmaps(..., 'dark')` looks at, and the furthest that it moves a keypoint."""


class LiveWriter(PoseWriter):
    """Adds the decoder `dark` and the map to chances, for one size of the input.

    Args:
        size: Height and width of the heatmaps.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        # in WebAssembly half the time of a depthwise convolution goes into copying rows
        super().__init__(sideways=size[0] > size[1])
        self.size = size
        self.float = self.onnx.TensorProto.FLOAT

    def pick(self, x: str, *index: int) -> str:
        """Some entries of the last axis."""
        return self.op('Gather', x, self.ints(*index), axis=-1)

    def gate(self, gate: GraphGate, x: str) -> str:
        """The same with matrix products, which MLAS computes faster than convolutions of a single pixel."""

        def linear(layer: nn.Conv2d, value: str) -> str:
            assert layer.bias is not None
            weight = self.floats(layer.weight[:, :, 0, 0].t().numpy())
            return self.op('Gemm', value, weight, self.floats(layer.bias.numpy()))

        pooled = self.op('Flatten', self.op('GlobalAveragePool', x), axis=1)
        factors = self.op('Sigmoid', linear(gate.fc2, self.op('Relu', linear(gate.fc1, pooled))))
        return self.op('Reshape', factors, self.ints(0, gate.fc2.out_channels, 1, 1))

    def dark(self, heatmaps: str) -> tuple[str, str]:
        """The same as `decode_heatmaps` with `'dark'`.

        Args:
            heatmaps: (B, K, h, w).

        Returns:
            Points (B, K, 2), x and y in heatmap pixels, and the heights of the maxima (B, K, 1).
        """
        height, width = self.size
        kernel = gaussian_of(height)
        radius = len(kernel) // 2
        margin = radius + _REACH
        flat = self.op('Reshape', heatmaps, self.ints(0, 0, height * width))
        peak = self.op('ReduceMax', flat, self.ints(2), keepdims=1)
        index = self.op('ArgMax', flat, axis=2, keepdims=1)
        y = self.op('Div', index, self.ints(width))
        x = self.op('Sub', index, self.op('Mul', y, self.ints(width)))
        place = self.op('Cast', self.op('Concat', x, y, axis=2), to=self.float)
        # a square around each maximum, zero beyond the border
        side, wide = 2 * margin + 1, width + 2 * margin
        padded = self.op('Pad', heatmaps, self.ints(0, 0, margin, margin, 0, 0, margin, margin))
        padded = self.op('Reshape', padded, self.ints(0, 0, (height + 2 * margin) * wide))
        steps = (np.arange(side)[:, None] * wide + np.arange(side)).reshape(1, 1, -1)
        corner = self.op('Add', self.op('Mul', y, self.ints(wide)), x)
        around = self.op('GatherElements', padded, self.op('Add', corner, self.constant(steps)), axis=2)
        square = self.op('Reshape', around, self.ints(0, 0, side, side))
        offset = self._expand(square, kernel)
        # smoothing reads the zeros: near the border a Gaussian is fitted to what is inside
        low = self.op('Less', place, self.floats(margin))
        high = self.op('GreaterOrEqual', place, self.floats([width - margin, height - margin]))
        near = self.op('Cast', self.op('Or', low, high), to=self.float)
        near = self.op('Greater', self.op('ReduceSum', near, self.ints(2), keepdims=1), self.floats(0))
        moved = self.op('Add', place, self.op('Where', near, self._fit(square, radius), offset))
        limits = [width - 0.5, height - 0.5]
        inside = self.op('Max', self.op('Min', moved, self.floats(limits)), self.floats(-0.5))
        return self.op('Where', near, inside, moved), peak

    def _solve(self, a: str, b: str, c: str, gx: str, gy: str, scale: float = 1.0) -> str:
        """Where a quadratic with the second derivatives a, b, c and the slopes gx, gy has its maximum; else 0."""
        det = self.op('Sub', self.op('Mul', a, b), self.op('Mul', c, c))
        is_peak = self.op('And', self.op('Greater', det, self.floats(1e-9)), self.op('Less', a, self.floats(0)))
        dx = self.op('Sub', self.op('Mul', c, gy), self.op('Mul', b, gx))
        dy = self.op('Sub', self.op('Mul', c, gx), self.op('Mul', a, gy))
        safe = self.op('Where', is_peak, det, self.floats(1))
        offset = self.op('Div', self.op('Concat', dx, dy, axis=2), safe)
        offset = self.op('Mul', offset, self.floats(scale))
        furthest = self.op('ReduceMax', self.op('Abs', offset), self.ints(2), keepdims=1)
        used = self.op('And', is_peak, self.op('LessOrEqual', furthest, self.floats(_REACH)))
        return self.op('Where', used, offset, self.floats(0))

    def _expand(self, square: str, kernel: np.ndarray) -> str:
        """Offsets by the Taylor expansion of the logarithm of the smoothed heatmap."""
        size = 2 * _REACH + 1
        smooth = np.stack([np.pad(kernel, (i, size - 1 - i)) for i in range(size)])
        log = self.op('MatMul', self.op('MatMul', self.floats(smooth), square), self.floats(smooth.T))
        log = self.op('Log', self.op('Max', log, self.floats(1e-10)))
        log = self.op('Reshape', log, self.ints(0, 0, size * size))
        # columns: gx, gy, hxx, hyy, hxy as sums of what stands around the middle
        sums = np.zeros((size, size, 5))
        m = _REACH
        sums[m, m + 1, 0] = sums[m + 1, m, 1] = 0.5
        sums[m, m - 1, 0] = sums[m - 1, m, 1] = -0.5
        for i, (dx, dy) in ((2, (2, 0)), (3, (0, 2))):
            sums[m + dy, m + dx, i] = sums[m - dy, m - dx, i] = 0.25
            sums[m, m, i] = -0.5
        for dx, dy in ((1, 1), (-1, -1), (1, -1), (-1, 1)):
            sums[m + dy, m + dx, 4] = 0.25 * dx * dy
        terms = self.op('MatMul', log, self.floats(sums.reshape(-1, 5)))
        gx, gy, hxx, hyy, hxy = (self.pick(terms, i) for i in range(5))
        return self._solve(hxx, hyy, hxy, gx, gy)

    def _fit(self, square: str, radius: int) -> str:
        """Offsets by the Gaussian that fits best, as `decode_heatmaps` says."""
        reach = max(2, round(radius * 0.6))
        first, count = radius + _REACH - reach, 2 * reach + 1
        middle = self.op(
            'Slice', square, self.ints(first, first), self.ints(first + count, first + count), self.ints(2, 3)
        )
        values = self.op('Max', self.op('Reshape', middle, self.ints(0, 0, count**2)), self.floats(0))
        top = self.op('Max', self.op('ReduceMax', values, self.ints(2), keepdims=1), self.floats(1e-30))
        values = self.op('Div', values, top)
        weights = self.op(
            'Where',
            self.op('Greater', values, self.floats(1e-3)),
            self.op('Mul', values, values),
            self.floats(0),
        )
        # steps in -1..1, which float32 solves well
        dy, dx = (d.ravel() for d in np.meshgrid(*[np.linspace(-1, 1, count)] * 2, indexing='ij'))
        terms = np.stack((np.ones_like(dx), dx, dy, dx * dx, dx * dy, dy * dy), -1)
        products = (terms[:, :, None] * terms[:, None]).reshape(count**2, 36)
        normal = self.op('MatMul', weights, self.floats(products))
        normal = self.op('Add', normal, self.floats(1e-7 * np.eye(6).reshape(36)))
        normal = self.op('Reshape', normal, self.ints(0, 0, 6, 6))
        log = self.op('Log', self.op('Max', values, self.floats(1e-3)))
        right = self.op('MatMul', self.op('Mul', weights, log), self.floats(terms))
        rows = self.op('Concat', normal, self.op('Unsqueeze', right, self.ints(3)), axis=3)
        # Gauss and Jordan; the matrix is positive definite, so that no rows change places
        for i in range(6):
            row = self.op('Gather', rows, self.ints(i), axis=2)
            row = self.op('Div', row, self.pick(row, i))
            others = self.op('Sub', rows, self.op('Mul', self.pick(rows, i), row))
            chosen = np.arange(6).reshape(1, 1, 6, 1) == i
            rows = self.op('Where', self.constant(chosen), row, others)
        solution = self.op('Squeeze', self.pick(rows, 6), self.ints(3))
        _, bx, by, cxx, cxy, cyy = (self.pick(solution, i) for i in range(6))
        a, b = (self.op('Mul', c, self.floats(2)) for c in (cxx, cyy))
        return self._solve(a, b, cxy, bx, by, scale=reach)

    def chances(self, peaks: str, score_map: ScoreMap) -> str:
        """The piecewise linear map as a sum of ramps."""
        places, chances = np.array(score_map.peaks), np.array(score_map.chances)
        widths = np.diff(places)
        ramps = self.op('Sub', peaks, self.floats(places[:-1]))
        ramps = self.op('Max', self.op('Min', ramps, self.floats(widths)), self.floats(0))
        sums = self.op('MatMul', ramps, self.floats((np.diff(chances) / widths)[:, None]))
        return self.op('Add', sums, self.floats(chances[0]))


def write_pose(opened: OpenedNetwork, path: str | Path) -> None:
    """Write a pose network to an ONNX file that gives what `PoseEstimator` gives, and check it against PyTorch.

    The file takes `crops`, uint8 (B, H, W, 3), and gives `keypoints`, float32 (B, K, 3): x and y in crop pixels and the
    score, a chance where the weights have a map to chances.

    Args:
        opened: A `WideHRNet` with heatmaps, and what it says about itself.
        path: The file, ending in .onnx; written whole or not at all.

    Raises:
        UserError: If the model finds no keypoints or cannot be exported, or the file gives other results than PyTorch.
        ImportError: If a package of the extra `export` is missing.
    """
    onnx, ort = require('onnx', 'export'), require('onnxruntime', 'export')
    if gives_boxes(opened.skeleton):
        raise UserError('This model finds people, not keypoints: give it as the finder, and a pose model besides.')
    (height, width), score_map = opened.size, opened.score_map
    metadata = ExportMetadata(
        name=(getattr(opened.network, 'pretrained_cfg', None) or {}).get('architecture') or 'pose',
        skeleton=opened.skeleton,
        size=opened.size,
        mean=opened.mean,
        std=opened.std,
        pipeline=True,
        padding=opened.padding,
    )
    deployed = deploy(opened.network).cpu()
    writer = LiveWriter((height // STRIDE, width // STRIDE))
    heatmaps = writer.network(GraphNetwork(deployed), writer.normalise('crops', metadata.mean, metadata.std))
    points, scores = writer.dark(heatmaps)
    if score_map is not None:
        scores = writer.chances(scores, score_map)
    points = writer.op('Mul', points, writer.floats(STRIDE))
    writer.rename(writer.op('Concat', points, scores, axis=2), 'keypoints')
    types, describe = onnx.TensorProto, onnx.helper.make_tensor_value_info
    given = [describe('crops', types.UINT8, ['batch', height, width, 3])]
    result = describe('keypoints', types.FLOAT, ['batch', opened.skeleton.num_keypoints, 3])
    content = writer.model(metadata, given, [result]).SerializeToString()
    session = ort.InferenceSession(content, providers=['CPUExecutionProvider'])
    _check(session, deployed, metadata, score_map)
    write_whole(path, content)


def _check(session: object, network: nn.Module, metadata: ExportMetadata, score_map: ScoreMap | None) -> None:
    crops = sample_crops(metadata.size)
    images = torch.from_numpy(normalise(crops, metadata.mean, metadata.std))
    with torch.inference_mode():
        heatmaps = network(images)
        points, peaks = decode_heatmaps(heatmaps, 'dark')
    scores = peaks.numpy() if score_map is None else score_map(peaks.numpy())
    found = session.run(None, {'crops': crops})[0]  # type: ignore[attr-defined]
    # where two pixels are nearly equally high, rounding chooses
    top = heatmaps.flatten(2).topk(2).values
    tolerance = TOLERANCE['f32']
    clear = ((top[..., 0] - top[..., 1]) > 2 * tolerance * heatmaps.abs().max()).numpy()
    apart = np.abs(found[..., :2] - points.numpy() * STRIDE).max(-1)[clear]
    score = np.abs(found[..., 2] - scores).max()
    if not (apart.max(initial=0.0) <= 0.5 and score <= 10 * tolerance):
        raise UserError(
            f'The exported file gives keypoints that are {apart.max():.2g} pixels and scores that are {score:.2g} away '
            'from PyTorch. Nothing was written.'
        )
