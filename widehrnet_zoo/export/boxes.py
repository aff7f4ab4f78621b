"""A person finder's boxes in the exported graph: normalisation, decoding and the suppression of doubles."""

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from ..pose.box_maps import BINS, box_positions, distances_of
from .onnx_graph import PoseWriter

__all__ = ['LEAST', 'MOST', 'OVERLAP', 'box_difference', 'write_boxes']

LEAST, OVERLAP, MOST = 0.05, 0.6, 1000
"""Lowest score, largest IoU of two boxes, and most boxes of a photo in an exported file."""


def write_boxes(writer: PoseWriter, maps: str, size: tuple[int, int], stride: int = 4) -> str:
    """The same as `find_boxes` in ONNX operators, whose NonMaxSuppression knows the photos of a batch.

    Args:
        writer: Of the graph.
        maps: Name of the maps.
        size: Height and width of the input, which these files are for.
        stride: Input pixels per position.

    Returns:
        Name of (N, 6), see `BoxPipeline`; ordered by photo, then by score.
    """
    count = (size[0] // stride) * (size[1] // stride)
    op, float_type = writer.op, writer.onnx.TensorProto.FLOAT

    def ints(*values: int) -> str:
        return writer.constant(np.array(values, np.int64))

    def floats(value: object) -> str:
        return writer.constant(np.asarray(value, np.float32))

    flat = op('Reshape', maps, ints(0, 0, count))
    scores = op('Sigmoid', op('Slice', flat, ints(0), ints(1), ints(1)))
    bins = op('Reshape', op('Slice', flat, ints(1), ints(1 + 4 * BINS), ints(1)), ints(0, 4, BINS, count))
    # the mean bin of each distribution: (B, 4, P)
    places = floats(np.arange(BINS).reshape(1, 1, BINS, 1))
    mean = op('ReduceSum', op('Mul', op('Softmax', bins, axis=2), places), ints(2), keepdims=0)
    near, step = distances_of()
    sides = op('Mul', op('Sub', op('Exp', op('Mul', mean, floats(step))), floats(1.0)), floats(near))
    x, y = box_positions(size[0] // stride, size[1] // stride, stride).T
    centres, signs = floats(np.stack((x, y, x, y))[None]), floats(np.array([-1, -1, 1, 1]).reshape(1, 4, 1))
    boxes = op('Transpose', op('Add', centres, op('Mul', sides, signs)), perm=[0, 2, 1])
    kept = op('NonMaxSuppression', boxes, scores, ints(MOST), floats([OVERLAP]), floats([LEAST]))
    image = op('Slice', kept, ints(0), ints(1), ints(1))
    place = op('Concat', image, op('Slice', kept, ints(2), ints(3), ints(1)), axis=1)
    score = op('GatherND', op('Transpose', scores, perm=[0, 2, 1]), place)
    return op('Concat', op('Cast', image, to=float_type), op('GatherND', boxes, place), score, axis=1)


def box_difference(found: Tensor, expected: Tensor, tolerance: float) -> float:
    """How far the boxes of an exported file lie from PyTorch's.

    Args:
        found: (N, 6) rows of the file.
        expected: (M, 6) rows of PyTorch.
        tolerance: Largest difference of scores.

    Returns:
        The largest distance of a side, in pixels.

    Raises:
        UserError: If more than one in twenty boxes above twice the lowest score is without its like: within two
            pixels, or 2 % of its larger side.
    """
    apart, lost = 0.0, 0
    sure = expected[expected[:, 5] > 2 * LEAST]
    for row in sure:
        mine = found[found[:, 0] == row[0]]
        distance = (mine[:, 1:5] - row[1:5]).abs().amax(1) if len(mine) else torch.tensor([torch.inf])
        near = int(distance.argmin())
        reach = max(2.0, 0.02 * float((row[3:5] - row[1:3]).max()))
        if distance[near] > reach or abs(float(mine[near, 5] - row[5])) > tolerance:
            lost += 1
        else:
            apart = max(apart, float(distance[near]))
    if 20 * lost > len(sure):
        raise UserError(
            f'The exported file misses {lost} of {len(sure)} boxes that PyTorch finds. Nothing was written.'
        )
    return apart
