"""Large HEIC photos as pillow-heif decodes them, without Pillow's copy of four bytes a pixel."""

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image


def decode_heic(image: Image.Image, size: tuple[int, int]) -> npt.NDArray[np.uint8] | None:
    """The pixels of a HEIC.

    Args:
        image: As Pillow opened it with pillow-heif, not loaded.
        size: Its width and height as it was opened; `draft` changes them where a thumbnail is large enough.

    Returns:
        uint8 (H, W, 3) or (H, W, 4), not turned by EXIF, not to be written to. `None` where Pillow has to do it: other
        formats and colours, thumbnails, and a pillow-heif that keeps them elsewhere.
    """
    channels = {'RGB': 3, 'RGBA': 4}.get(image.mode)
    if image.format != 'HEIF' or image.size != size or channels is None:
        return None
    held: Any = image
    try:
        frame = held._heif_file[image.tell()]
        data, stride = frame.data, frame.stride
    except (AttributeError, TypeError):
        return None
    if frame.size != size or frame.mode != image.mode:  # it is surer of them once it is decoded
        return None
    width, height = size
    return np.ndarray((height, width, channels), np.uint8, data, strides=(stride, channels, 1))
