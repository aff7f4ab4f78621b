"""Skeletons drawn on images, and images side by side."""

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from .images import ImageSource, read_image
from .skeletons import Skeleton

# the blue is from Okabe and Ito's palette for colour-blind people (https://jfly.uni-koeln.de/color)
SIDE_COLOURS: dict[str, tuple[int, int, int]] = {
    'left': (86, 180, 233),
    'right': (230, 120, 0),
    'centre': (255, 255, 255),
}
"""RGB of left, right and centre keypoints and bones: sky blue, orange and white."""

_OUTLINE = (16, 16, 24)
_FAINT = 0.35
_STRIP = 64

Colour = tuple[int, int, int]
Canvas = npt.NDArray[np.uint8]  # (3, height, width): rows of one channel are painted faster than pixels of three
Point = npt.NDArray[np.float64]
Strip = tuple[slice, slice, npt.NDArray[np.float32]]  # rows, columns, and how far these pixels are from a line


def draw_poses(
    image: ImageSource,
    keypoints: npt.ArrayLike,
    scores: npt.ArrayLike,
    skeleton: Skeleton,
    *,
    boxes: npt.ArrayLike | None = None,
    threshold: float = 0.2,
    line_width: float | None = None,
) -> Image.Image:
    """Draw people: colour by side, opacity and size by score, dark outlines.

    Args:
        image: The image they are in, as `read_image` takes it.
        keypoints: (N, K, 2), x and y in pixels; the last person is drawn on top.
        scores: (N, K), 0..1.
        skeleton: What the keypoints are.
        boxes: (N, 4), x1, y1, x2, y2 in pixels, to be drawn too.
        threshold: Keypoints with a lower score, and their bones, are left out. A score of 0 is never drawn.
        line_width: Width of a bone in pixels; by default it follows the size of the person and of the image.

    Returns:
        A new image of the same size.
    """
    canvas = np.moveaxis(read_image(image), 2, 0).copy()
    points, certain = np.asarray(keypoints, float), np.asarray(scores, float)
    corners = [None] * len(points) if boxes is None else np.asarray(boxes, float)
    for person, sure, box in zip(points, certain, corners, strict=True):
        _draw_person(canvas, person, sure, box, skeleton, threshold, line_width)
    return Image.merge('RGB', [Image.fromarray(channel) for channel in canvas])


def contact_sheet(tiles: Sequence[tuple[Image.Image, str]], columns: int) -> Image.Image:
    """Images in rows, each with a line of text under it, on dark ground."""
    line, gap = 14, 4
    width, height = (max(sides) + gap for sides in zip(*(tile.size for tile, _ in tiles), strict=True))
    columns, height = min(columns, len(tiles)), height + line
    page = Image.new('RGB', (columns * width + gap, -(-len(tiles) // columns) * height + gap), (24, 24, 28))
    pen = ImageDraw.Draw(page)
    for i, (tile, text) in enumerate(tiles):
        x, y = i % columns * width + gap, i // columns * height + gap
        page.paste(tile, (x, y))
        pen.text((x, y + tile.height + 1), text, (220, 220, 220))
    return page


def _draw_person(
    canvas: Canvas,
    points: npt.NDArray[np.float64],
    scores: npt.NDArray[np.float64],
    box: npt.NDArray[np.float64] | None,
    skeleton: Skeleton,
    threshold: float,
    line_width: float | None,
) -> None:
    shown = np.isfinite(points).all(1) & (scores >= threshold) & (scores > 0)
    radius = _radius(canvas, points[shown], line_width)
    outline = max(0.6, 0.45 * radius)
    if box is not None and np.isfinite(box).all():
        x1, y1, x2, y2 = box
        corners = np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2), (x1, y1)])
        for grow, colour in ((outline, _OUTLINE), (0.0, SIDE_COLOURS['centre'])):
            for a, b in itertools.pairwise(corners):
                half = max(0.5, 0.4 * radius) + grow
                _paint(canvas, _near(canvas, a, b, half), half, colour, 0.8)
    if not shown.any():
        return
    sides = skeleton.sides
    # a score of 1 is as sure as heatmaps get; below that lines fade and joints shrink, but stay visible
    certainty = scores.clip(0, 1)
    opacity = _FAINT + (1 - _FAINT) * certainty
    bones = [
        (_near(canvas, points[a], points[b], radius + outline), _side(sides[a], sides[b]), min(opacity[a], opacity[b]))
        for a, b in skeleton.bones
        if shown[a] and shown[b]
    ]
    for strips, _, sure in bones:
        _paint(canvas, strips, radius + outline, _OUTLINE, 0.8 * sure)
    for strips, side, sure in bones:
        _paint(canvas, strips, radius, SIDE_COLOURS[side], sure)
    for k in np.flatnonzero(shown):
        size = radius * (1.2 + 0.8 * certainty[k])
        strips = _near(canvas, points[k], points[k], size + outline)
        _paint(canvas, strips, size + outline, _OUTLINE, opacity[k])
        _paint(canvas, strips, size, SIDE_COLOURS[sides[k]], opacity[k])


def _side(a: str, b: str) -> str:
    """Side of a bone: that of its ends, where the centre counts for both."""
    sides = {a, b} - {'centre'}
    return sides.pop() if len(sides) == 1 else 'centre'


def _radius(canvas: Canvas, points: npt.NDArray[np.float64], line_width: float | None) -> float:
    """Half the width of a bone."""
    if line_width is not None:
        return max(line_width / 2, 0.25)
    height, width = canvas.shape[1:]
    person = float(np.ptp(points, axis=0).max()) if len(points) else 0.0
    # thick enough to be seen when the whole image is on a screen, thin enough not to cover a small person
    return float(np.clip(max(0.008 * person, 0.0016 * max(height, width)), 0.5, max(0.5, 0.02 * person)))


def _near(canvas: Canvas, a: Point, b: Point, radius: float) -> list[Strip]:
    """The pixels nearer than `radius` to the line from `a` to `b`, and others around them."""
    height, width = canvas.shape[1:]
    reach = radius + 1
    low = np.floor(np.minimum(a, b) - reach).clip(0, (width, height)).astype(int)
    high = np.ceil(np.maximum(a, b) + reach + 1).clip(0, (width, height)).astype(int)
    if (high <= low).any():
        return []
    # numbers of Python leave the arrays float32
    (x0, y0), (across, down) = a.tolist(), (b - a).tolist()
    length = across**2 + down**2
    strips = []
    # strips follow a slanting line closely, so that the work is in proportion to what is painted
    for top in range(low[1], high[1], _STRIP):
        bottom = min(top + _STRIP, high[1])
        near = [0.0, 1.0]
        if down:
            near = [min(max((y - y0) / down, 0.0), 1.0) for y in (top - reach, bottom + reach)]
        ends = [x0 + share * across for share in near]
        left = max(low[0], int(min(ends) - reach))
        right = min(high[0], int(max(ends) + reach) + 2)
        if right <= left:
            continue
        x = np.arange(left, right, dtype=np.float32) - np.float32(x0)
        y = np.arange(top, bottom, dtype=np.float32)[:, None] - np.float32(y0)
        if length > 0:
            share = x * (across / length) + y * (down / length)
            # not `np.clip`, whose call takes longer than its work
            np.minimum(np.maximum(share, 0, out=share), 1, out=share)
            x, y = x - share * across, y - share * down
        strips.append((slice(top, bottom), slice(left, right), np.sqrt(x * x + y * y)))
    return strips


def _paint(canvas: Canvas, strips: list[Strip], radius: float, colour: Colour, opacity: float) -> None:
    """Paint the pixels that are nearer than `radius`.

    The coverage of a pixel at the edge follows its distance: as smooth as supersampling, at any size.
    """
    ink = np.array(colour, np.float32)[:, None, None]
    most = float(min(2 * radius, 1) * opacity)
    for rows, columns, distance in strips:
        alpha = np.float32(radius + 0.5) - distance
        np.minimum(np.maximum(alpha, 0, out=alpha), 1, out=alpha)
        alpha *= most
        patch = canvas[:, rows, columns]
        before = patch.astype(np.float32)
        patch[...] = before + (ink - before) * alpha + np.float32(0.5)
