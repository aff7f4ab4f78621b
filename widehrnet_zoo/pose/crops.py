"""Person boxes, and the crops around them that a network looks at."""

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import UserError

STRIDE = 4
"""Input pixels per heatmap pixel."""

CELL = 32
"""Input pixels per pixel of a network's lowest branch, of which the sides of an input are multiples."""

PADDING = 1.25
"""Growth of a person's box to the network's view, as in the published protocols."""

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's photos, RGB in 0..1, by which inputs are normalised where nothing else is said."""

_PADDINGS = (0.5, 4.0)

_FAR = 1e7


def check_input_size(size: Any) -> tuple[int, int]:
    """Height and width of a network's input, or the reason why they cannot be.

    Raises:
        UserError: If they are anything but two multiples of `CELL`.
    """
    try:
        height, width = (operator.index(side) for side in size)
    except (TypeError, ValueError) as error:
        raise UserError(f'size is height and width in whole pixels, not {size!r:.80}.') from error
    if min(height, width) < CELL or height % CELL or width % CELL:
        raise UserError(f'size is height and width, multiples of {CELL}, not {height}x{width}.')
    return height, width


def padding_of(model: Any) -> float:
    """Growth of a person's box to the view that a model learnt from.

    Args:
        model: A model; one with a padding of its own has it as `padding`.

    Returns:
        Its padding, or `PADDING`.

    Raises:
        UserError: If it is not a number in 0.5..4.
    """
    padding = getattr(model, 'padding', None)
    # a convolution of PyTorch has a padding too, of another kind
    if padding is None or type(model).__module__.startswith('torch.nn.'):
        return PADDING
    low, high = _PADDINGS
    if isinstance(padding, bool) or not isinstance(padding, (int, float)) or not low <= padding <= high:
        raise UserError(f'Padding, the growth of a box to the view, is a number in {low:g}..{high:g}, not {padding!r}.')
    return float(padding)


def three_numbers(values: Any, name: str, least: float) -> tuple[float, ...]:
    """A mean or a standard deviation of an input's colours, or the reason why it cannot be one.

    Raises:
        UserError: If it is anything but three numbers in `least`..1000.
    """
    try:
        numbers = tuple(float(v) for v in values)
    except (TypeError, ValueError, OverflowError):
        numbers = ()
    if len(numbers) != 3 or not all(least <= v <= 1000 for v in numbers):
        raise UserError(f'{name} is three numbers of the size of an input in 0..1, std above 0, not {values!r}.')
    return numbers


def check_boxes(boxes: Any, image_size: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Person boxes of one image as numbers, or the reason why they cannot be boxes.

    Args:
        boxes: (4,) or (N, 4) x1, y1, x2, y2 in image pixels; they may leave the image in part.
        image_size: Width and height of the image.

    Returns:
        float64 (N, 4).

    Raises:
        UserError: If a box is not x1, y1, x2, y2 in pixels, has no area, or lies wholly outside the image.
    """
    try:
        array = np.asarray(boxes.detach().cpu().double() if hasattr(boxes, 'detach') else boxes, np.float64)
    except (TypeError, ValueError) as error:
        raise UserError(f'Boxes must be numbers x1, y1, x2, y2, one row for each person: {error}.') from error
    if array.size == 0 and array.ndim <= 2:
        return np.zeros((0, 4))
    if array.shape == (4,):
        array = array[None]
    if array.ndim != 2 or array.shape[1] != 4:
        hint = '; scores of boxes go into box_scores' if array.ndim == 2 and array.shape[1] == 5 else ''
        raise UserError(f'Boxes have the shape {array.shape}; expected (4,) or (N, 4): x1, y1, x2, y2 in pixels{hint}.')
    width, height = image_size
    for index, (x1, y1, x2, y2) in enumerate(array):
        said = f'box {index} ({x1:g}, {y1:g}, {x2:g}, {y2:g})'
        if not np.isfinite(array[index]).all() or np.abs(array[index]).max() > _FAR:
            raise UserError(f'{said} is not finite.')
        if x2 <= x1 or y2 <= y1:
            raise UserError(
                f'{said} has no area: boxes are x1, y1, x2, y2 with x2 > x1 and y2 > y1. If yours are x, y, width, '
                'height, give x, y, x + width, y + height.'
            )
        if min(x2, width) <= max(x1, 0) or min(y2, height) <= max(y1, 0):
            raise UserError(f'{said} lies outside the image of {width}x{height} pixels.')
    if array.min() >= 0 and array.max() <= 1 and max(width, height) > 2:
        raise UserError(
            f'No box is larger than one pixel of the image of {width}x{height}: boxes are in pixels, not fractions.'
        )
    return array


def overlaps(box: npt.NDArray[np.float64], boxes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """IoU of a box, (4,), with each of several, (N, 4); x1, y1, x2, y2."""
    common = np.clip(np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2]), 0, None).prod(-1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(-1) + (box[2:] - box[:2]).prod()
    return common / np.maximum(areas - common, 1e-9)


def box_views(boxes: npt.ArrayLike, size: tuple[int, int], padding: float = PADDING) -> npt.NDArray[np.float64]:
    """Affine maps from network input to image, one for each box.

    A box keeps its centre, is widened in one direction to the input's aspect ratio and grows by `padding`: the
    test protocol of mmpose 0.24 and HRNet (Sun et al., CVPR 2019).

    Args:
        boxes: (N, 4) x1, y1, x2, y2 in image pixels.
        size: Height and width of the network's input.
        padding: Growth of the box.

    Returns:
        float64 (N, 2, 3): `map @ (x, y, 1)` of a pixel index of the input is a pixel index of the image.

    Raises:
        UserError: If a box is not finite or has no area, or the size or the padding is not positive.
    """
    array = np.asarray(boxes, np.float64).reshape(-1, 4)
    height, width = size
    extent = array[:, 2:] - array[:, :2]
    if not np.isfinite(array).all() or (extent <= 0).any():
        raise UserError('Boxes must be finite x1, y1, x2, y2 with x2 > x1 and y2 > y1.')
    if min(height, width) <= 0 or not 0 < padding < np.inf:
        raise UserError(f'A view needs a positive size and padding, not {height}x{width} and {padding}.')
    step = np.maximum(extent[:, 0] / width, extent[:, 1] / height) * padding
    maps = np.zeros((len(array), 2, 3))
    maps[:, 0, 0] = maps[:, 1, 1] = step
    maps[:, :, 2] = (array[:, :2] + array[:, 2:]) / 2 - step[:, None] * (width / 2, height / 2)
    return maps


def mirror_views(maps: npt.ArrayLike, size: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Maps of the mirrored crops: the left of a crop is the right of its view.

    Args:
        maps: (N, 2, 3) maps from crop to image.
        size: Height and width of a crop.

    Returns:
        float64 (N, 2, 3).
    """
    maps = np.array(maps, np.float64)
    maps[:, :, 2] += (size[1] - 1) * maps[:, :, 0]
    maps[:, :, 0] *= -1
    return maps


def crop_people(
    image: npt.NDArray[np.uint8],
    maps: npt.ArrayLike,
    size: tuple[int, int],
) -> npt.NDArray[np.uint8]:
    """Cut people out of an image: bilinear, black outside, without antialiasing.

    The result is that of OpenCV's `warpAffine(image, map, (width, height), flags=INTER_LINEAR | WARP_INVERSE_MAP)`
    within rounding: both interpolate between pixel indices and blend with black at the border. OpenCV before 5 rounds
    positions to 1/32 pixel and differs by that.

    Args:
        image: uint8 (H, W, 3).
        maps: (N, 2, 3) maps from crop to image, as from `box_views`; rotation and shear are allowed.
        size: Height and width of a crop.

    Returns:
        uint8 (N, height, width, 3).

    Raises:
        UserError: If the image or the maps have the wrong shape or type.
    """
    array = np.asarray(maps, np.float64)
    if image.dtype != np.uint8 or image.ndim != 3 or not image.size:
        raise UserError(f'Crops are cut from uint8 (H, W, 3), not from {image.dtype} {image.shape}.')
    if array.ndim != 3 or array.shape[1:] != (2, 3) or not np.isfinite(array).all():
        raise UserError(f'Maps must be finite (N, 2, 3), not {array.shape}.')
    crops = np.empty((len(array), *size, image.shape[2]), np.uint8)
    upright = (array[:, 0, 1] == 0) & (array[:, 1, 0] == 0)
    if upright.any():
        crops[upright] = _crop_upright(image, array[upright], size)
    for i in np.flatnonzero(~upright):
        crops[i] = _crop_turned(image, array[i], size)
    return crops


def normalise(
    crops: npt.NDArray[np.uint8], mean: Sequence[float] = MEAN, std: Sequence[float] = STD
) -> npt.NDArray[np.float32]:
    """What a network takes.

    Args:
        crops: uint8 (B, H, W, 3).
        mean: RGB in 0..1.
        std: Likewise.

    Returns:
        float32 (B, 3, H, W): `(crop - 255 mean) / (255 std)`.
    """
    images = np.empty((len(crops), 3, *crops.shape[1:3]), np.float32)
    for channel, (centre, scale) in enumerate(zip(*(np.array(v, np.float32) * 255 for v in (mean, std)), strict=True)):
        np.subtract(crops[..., channel], centre, out=images[:, channel], dtype=np.float32)
        images[:, channel] /= scale
    return images


def _taps(
    position: npt.NDArray[np.float64], limit: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """The two neighbours of positions, kept inside 0..limit-1, with weights that are 0 where they lie outside."""
    position = position.clip(-2, limit + 1)
    low = np.floor(position).astype(np.intp)
    share = position - low
    first = np.where((low >= 0) & (low < limit), 1 - share, 0).astype(np.float32)
    second = np.where((low >= -1) & (low < limit - 1), share, 0).astype(np.float32)
    return low.clip(0, limit - 1), (low + 1).clip(0, limit - 1), first, second


def _crop_upright(
    image: npt.NDArray[np.uint8], maps: npt.NDArray[np.float64], size: tuple[int, int]
) -> npt.NDArray[np.uint8]:
    # without rotation the two directions are independent: rows first, over the columns that are needed
    (height, width), channels = size, image.shape[2]
    ys = [_taps(m[1, 1] * np.arange(height) + m[1, 2], image.shape[0]) for m in maps]
    xs = [_taps(m[0, 0] * np.arange(width) + m[0, 2], image.shape[1]) for m in maps]
    spans = [(int(min(x0.min(), x1.min())), int(max(x0.max(), x1.max())) + 1) for x0, x1, _, _ in xs]
    crops = np.empty((len(maps), height, width * channels), np.uint8)
    # new memory for every crop costs more than the arithmetic, and numpy is slow over a last axis of three
    memory = np.empty((2, height * max(right - left for left, right in spans) * channels), np.float32)
    crop, beside = np.empty((2, height, width * channels), np.float32)
    for out, (y0, y1, wy0, wy1), (x0, x1, wx0, wx1), (left, right) in zip(crops, ys, xs, spans, strict=True):
        row = (right - left) * channels
        rows, below = memory[:, : height * row].reshape(2, height, row)
        np.multiply(image[y0, left:right].reshape(height, row), wy0[:, None], out=rows)
        np.multiply(image[y1, left:right].reshape(height, row), wy1[:, None], out=below)
        rows += below
        at = np.repeat((np.stack((x0, x1)) - left) * channels, channels, 1) + np.tile(np.arange(channels), width)
        # without a mode, take would go through memory of its own
        np.take(rows, at[0], 1, out=crop, mode='clip')
        np.take(rows, at[1], 1, out=beside, mode='clip')
        crop *= np.repeat(wx0, channels)
        beside *= np.repeat(wx1, channels)
        crop += beside
        crop += 0.5
        out[:] = crop
    return crops.reshape(len(maps), height, width, channels)


def _crop_turned(
    image: npt.NDArray[np.uint8], affine: npt.NDArray[np.float64], size: tuple[int, int]
) -> npt.NDArray[np.uint8]:
    y, x = np.indices(size)
    x0, x1, wx0, wx1 = _taps(affine[0, 0] * x + affine[0, 1] * y + affine[0, 2], image.shape[1])
    y0, y1, wy0, wy1 = _taps(affine[1, 0] * x + affine[1, 1] * y + affine[1, 2], image.shape[0])
    crop = np.full((*size, image.shape[2]), 0.5, np.float32)
    for ys, wy in ((y0, wy0), (y1, wy1)):
        for xs, wx in ((x0, wx0), (x1, wx1)):
            crop += image[ys, xs] * (wy * wx)[..., None]
    return crop.astype(np.uint8)
