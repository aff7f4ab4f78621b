"""Boxes drawn and moved by clicks, and the view that is clicked on."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from ..pose.results import PoseResult

VIEW_SIDE = 1400
"""Longest side of the view; larger photos are made smaller for the screen."""

_HANDLE = 0.015
_SMALLEST = 0.01
_INK, _PAPER, _ACTIVE = (16, 16, 24), (255, 255, 255), (255, 220, 0)

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Held:
    """What the next click sets down.

    Attributes:
        x: Of the corner that stays where it is; of the click that took the box up, if a whole box moves.
        y: Likewise.
        index: The box that changes, or None for a new one.
        whole: The box moves as a whole.
    """

    x: float
    y: float
    index: int | None = None
    whole: bool = False


def click(
    boxes: list[Box], held: Held | None, x: float, y: float, image_size: tuple[int, int]
) -> tuple[list[Box], Held | None]:
    """What a click does: take up a corner or a middle, on its handle, or begin a box, or set down what was taken up.

    Args:
        boxes: x1, y1, x2, y2 in image pixels.
        held: What an earlier click took up.
        x: Of the click, in image pixels.
        y: Likewise.
        image_size: Width and height of the photo.

    Returns:
        The boxes, which are the same ones while something is held, and what is held now. A click that would make a
        box of no size sets nothing down and changes nothing.
    """
    width, height = image_size
    x, y = min(max(x, 0.0), float(width)), min(max(y, 0.0), float(height))
    if held is None:
        return boxes, _take_up(boxes, x, y, _HANDLE * max(width, height))
    if held.whole and held.index is not None:
        x1, y1, x2, y2 = boxes[held.index]
        dx = min(max(x - held.x, -x1), width - x2)
        dy = min(max(y - held.y, -y1), height - y2)
        new: Box = (x1 + dx, y1 + dy, x2 + dx, y2 + dy)
    else:
        new = (min(x, held.x), min(y, held.y), max(x, held.x), max(y, held.y))
        if min(new[2] - new[0], new[3] - new[1]) < max(1.0, _SMALLEST * min(width, height)):
            return boxes, None
    changed = list(boxes)
    if held.index is None:
        changed.append(new)
    else:
        changed[held.index] = new
    return changed, None


def _take_up(boxes: list[Box], x: float, y: float, reach: float) -> Held:
    # only what lies under the click: a box that begins beside another one is a new box
    best, found = reach, Held(x, y)
    for index, (x1, y1, x2, y2) in enumerate(boxes):
        handles = [((a, b), Held(x1 + x2 - a, y1 + y2 - b, index)) for a in (x1, x2) for b in (y1, y2)]
        middle = ((x1 + x2) / 2, (y1 + y2) / 2)
        handles.append((middle, Held(*middle, index, whole=True)))
        for (a, b), held in handles:
            distance = max(abs(x - a), abs(y - b))
            if distance <= best:
                best, found = distance, held
    return found


def view_size(width: int, height: int) -> tuple[int, int]:
    """Width and height of the view of a photo."""
    scale = min(1.0, VIEW_SIDE / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def draw_view(
    image: npt.NDArray[np.uint8],
    result: PoseResult | None,
    boxes: list[Box],
    held: Held | None = None,
    threshold: float = 0.2,
) -> Image.Image:
    """The photo with skeletons, and with boxes that have handles at corners and middle.

    Args:
        image: uint8 (H, W, 3).
        result: People to draw; None for none.
        boxes: Boxes to draw.
        held: What is taken up; it is marked.
        threshold: Keypoints with a lower score are not drawn.

    Returns:
        An image of the photo's shape, at most `VIEW_SIDE` long.
    """
    picture = Image.fromarray(image) if result is None else result.draw(image, threshold=threshold)
    size = view_size(*picture.size)
    scale = max(size) / max(picture.size)
    if size != picture.size:
        picture = picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=3)
    pen = ImageDraw.Draw(picture)
    line = max(1, round(max(picture.size) / 500))
    handle = max(3 * line, round(_HANDLE * max(picture.size)))
    for index, box in enumerate(boxes):
        colour = _ACTIVE if held is not None and held.index == index else _PAPER
        x1, y1, x2, y2 = (v * scale for v in box)
        pen.rectangle((x1 - line, y1 - line, x2 + line, y2 + line), outline=_INK, width=3 * line)
        pen.rectangle((x1, y1, x2, y2), outline=colour, width=line)
        for x, y in ((x1, y1), (x2, y1), (x1, y2), (x2, y2), ((x1 + x2) / 2, (y1 + y2) / 2)):
            pen.rectangle((x - handle, y - handle, x + handle, y + handle), fill=colour, outline=_INK, width=line)
    if held is not None:
        x, y, radius = held.x * scale, held.y * scale, 2 * handle
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), outline=_INK, width=2 * line)
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), outline=_ACTIVE, width=line)
    return picture
