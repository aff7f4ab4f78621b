"""Large WebP photos in less memory than Pillow takes for them."""

import ctypes
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

LARGE = 20_000_000
"""Pixels above which the decoder itself is called: Pillow takes 16 bytes for each, 320 MB for these."""


def decode_large(image: Image.Image, file: Any) -> npt.NDArray[np.uint8] | None:
    """Decode a large still WebP with the libwebp that Pillow came with, in three bytes a pixel, four with alpha.

    Pillow itself decodes each WebP as an animation, with two canvases and two copies of four bytes a pixel. Files
    without loss take four bytes a pixel more.

    Args:
        image: As Pillow opened it, not loaded.
        file: The open file that it was opened from.

    Returns:
        uint8 (H, W, 3) or (H, W, 4), not turned by EXIF, the values that Pillow gives; `None` where Pillow has to do
        it: small images, animations, other formats, damaged files, which it says best, and a Pillow that keeps libwebp
        inside, as on Windows.

    Raises:
        MemoryError: If there is too little.
    """
    if image.format != 'WEBP' or image.width * image.height <= LARGE or getattr(image, 'is_animated', False):
        return None
    try:
        # a handle on a library finds what the libraries that it needs have
        library = ctypes.CDLL(import_module('PIL._webp').__file__)
        decode = library.WebPDecodeRGBAInto if image.mode == 'RGBA' else library.WebPDecodeRGBInto
    except (ImportError, OSError, AttributeError):
        return None
    decode.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    decode.restype = ctypes.c_void_p
    file.seek(0)
    data = file.read()
    pixels = np.empty((image.height, image.width, len(image.mode)), np.uint8)
    done = decode(data, len(data), pixels.ctypes.data, pixels.nbytes, pixels.strides[0])
    return pixels if done else None
