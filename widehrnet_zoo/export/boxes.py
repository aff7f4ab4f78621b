"""A person finder's boxes in the exported graph: normalisation, decoding and the suppression of doubles."""

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from ..pose.box_maps import ALIKE, BINS, OVERLAP, distances_of
from ..pose.crops import STRIDE
from .onnx_graph import PoseWriter

LEAST, MOST = 0.05, 1000
"""Lowest score and most boxes of a photo in an exported file."""


def write_boxes(writer: PoseWriter, maps: str) -> str:
    """The same as `find_boxes` in ONNX operators, whose NonMaxSuppression knows the photos of a batch.

    Args:
        writer: Of the graph.
        maps: Name of the maps.

    Returns:
        Name of (N, 6), see `BoxPipeline`; ordered by photo, then by score.
    """
    op, ints, floats, float_type = writer.op, writer.ints, writer.floats, writer.onnx.TensorProto.FLOAT
    flat = op('Reshape', maps, ints(0, 0, -1))
    scores = op('Sigmoid', op('Slice', flat, ints(0), ints(1), ints(1)))
    bins = op('Reshape', op('Slice', flat, ints(1), ints(1 + 4 * BINS), ints(1)), ints(0, 4, BINS, -1))
    # the mean bin of each distribution: (B, 4, P)
    places = floats(np.arange(BINS).reshape(1, 1, BINS, 1))
    mean = op('ReduceSum', op('Mul', op('Softmax', bins, axis=2), places), ints(2), keepdims=0)
    near, step = distances_of()
    sides = op('Mul', op('Sub', op('Exp', op('Mul', mean, floats(step))), floats(1.0)), floats(near))
    signs = floats(np.array([-1, -1, 1, 1]).reshape(1, 4, 1))
    boxes = op('Transpose', op('Add', _centres(writer, maps), op('Mul', sides, signs)), perm=[0, 2, 1])
    # of each photo the highest alone
    count = op('Slice', op('Shape', flat), ints(2), ints(3))
    most = op('Min', count, ints(MOST))
    best = ['highest_scores', 'highest_places']
    node = writer.onnx.helper.make_node('TopK', [op('Squeeze', scores, ints(1)), most], best, name='TopK', axis=1)
    writer.nodes.append(node)
    scores = op('Unsqueeze', best[0], ints(1))
    boxes = op('GatherND', boxes, op('Unsqueeze', best[1], ints(2)), batch_dims=1)
    kept = op('NonMaxSuppression', boxes, scores, ints(MOST), floats([OVERLAP]), floats([LEAST]))
    image = op('Slice', kept, ints(0), ints(1), ints(1))
    place = op('Concat', image, op('Slice', kept, ints(2), ints(3), ints(1)), axis=1)
    score = op('GatherND', op('Transpose', scores, perm=[0, 2, 1]), place)

    # each as the mean of those like it, as `average_boxes`, over the highest positions of its photo: (N, M)
    mine, photo = op('GatherND', boxes, place), op('Reshape', image, ints(-1))
    others = op('Gather', boxes, photo, axis=0)
    # a Reshape to (0, -1) would fail where no box was kept
    theirs = op('Squeeze', op('Gather', scores, photo, axis=0), ints(1))
    edges = op('Unsqueeze', mine, ints(1))

    def part(value: str, axis: int, start: int, end: int) -> str:
        return op('Slice', value, ints(start), ints(end), ints(axis))

    def area(value: str, axis: int) -> str:
        sides = op('Sub', part(value, axis, 2, 4), part(value, axis, 0, 2))
        return op('ReduceProd', sides, ints(axis), keepdims=0)

    low = op('Max', part(others, 2, 0, 2), part(edges, 2, 0, 2))
    high = op('Min', part(others, 2, 2, 4), part(edges, 2, 2, 4))
    common = op('ReduceProd', op('Relu', op('Sub', high, low)), ints(2), keepdims=0)
    union = op('Sub', op('Add', area(others, 2), op('Unsqueeze', area(mine, 1), ints(1))), common)
    overlaps = op('Div', common, op('Max', union, floats(1e-9)))
    alike = op('GreaterOrEqual', overlaps, floats(ALIKE))
    sure = op('GreaterOrEqual', op('Mul', theirs, floats(2.0)), score)
    weights = op('Mul', op('Cast', op('And', alike, sure), to=float_type), op('Mul', overlaps, theirs))
    weights = op('Unsqueeze', op('Div', weights, op('ReduceSum', weights, ints(1), keepdims=1)), ints(1))
    means = op('Squeeze', op('MatMul', weights, others), ints(1))
    return op('Concat', op('Cast', image, to=float_type), means, score, axis=1)


def _centres(writer: PoseWriter, maps: str) -> str:
    """`box_positions` of maps of any size: (1, 4, P), x, y, x, y."""
    op, ints, floats = writer.op, writer.ints, writer.floats
    shape = op('Shape', maps)
    float_type, whole = writer.onnx.TensorProto.FLOAT, writer.constant(np.array(0))
    axes = []
    for axis in (3, 2):
        side = op('Gather', shape, writer.constant(np.array(axis)))
        steps = op('Cast', op('Range', whole, side, writer.constant(np.array(1))), to=float_type)
        places = op('Mul', op('Add', steps, floats(0.5)), floats(float(STRIDE)))
        axes.append(op('Unsqueeze', places, ints(1) if axis == 2 else ints(0)))
    grid = op('Slice', shape, ints(2), ints(4))
    x, y = (op('Reshape', op('Expand', axis, grid), ints(1, 1, -1)) for axis in axes)
    return op('Concat', x, y, x, y, axis=1)


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
