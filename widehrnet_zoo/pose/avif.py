"""Large AVIF photos in less memory than Pillow takes for them."""

import ctypes
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image


class _Rgb(ctypes.Structure):
    """avifRGBImage, from avif/avif.h of libavif 1."""

    _fields_ = [
        *((name, ctypes.c_uint32) for name in ('width', 'height', 'depth', 'format', 'upsampling', 'downsampling')),
        *((name, ctypes.c_int) for name in ('avoid_libyuv', 'ignore_alpha', 'premultiplied', 'is_float', 'threads')),
        *(('pixels', ctypes.c_void_p), ('row_bytes', ctypes.c_uint32)),
    ]


def decode_avif(image: Image.Image, file: Any) -> npt.NDArray[np.uint8] | None:
    """Decode a still AVIF with the libavif that Pillow came with, without Pillow's copies of 3 and 4 bytes a pixel.

    Args:
        image: As Pillow opened it, not loaded.
        file: The open file that it was opened from.

    Returns:
        uint8 (H, W, 3) or (H, W, 4), not turned by EXIF; the values that Pillow gives. `None` where Pillow has to do
        it: animations, other formats, damaged files, which it says best, and a Pillow that keeps libavif inside, as on
        Windows.

    Raises:
        MemoryError: If there is too little.
    """
    if image.format != 'AVIF' or image.mode not in ('RGB', 'RGBA') or getattr(image, 'is_animated', False):
        return None
    try:
        # a handle on a library finds what the libraries that it needs have
        avif = ctypes.CDLL(import_module('PIL._avif').__file__)
        avif.avifVersion.restype = ctypes.c_char_p
        if not avif.avifVersion().startswith(b'1.'):
            return None
    except (ImportError, OSError, AttributeError):
        return None
    avif.avifDecoderCreate.restype = avif.avifImageCreateEmpty.restype = ctypes.c_void_p
    file.seek(0)
    data = file.read()
    decoder, decoded = ctypes.c_void_p(avif.avifDecoderCreate()), ctypes.c_void_p(avif.avifImageCreateEmpty())
    try:
        failed = avif.avifDecoderReadMemory(decoder, decoded, data, ctypes.c_size_t(len(data)))
        avif.avifDecoderDestroy(decoder)  # which holds the image as well
        if failed:
            return None
        rgb = _Rgb()
        avif.avifRGBImageSetDefaults(ctypes.byref(rgb), decoded)
        pixels = np.empty((rgb.height, rgb.width, len(image.mode)), np.uint8)
        rgb.depth, rgb.format = 8, {'RGB': 0, 'RGBA': 1}[image.mode]
        rgb.pixels, rgb.row_bytes = pixels.ctypes.data, pixels.strides[0]
        return None if avif.avifImageYUVToRGB(decoded, ctypes.byref(rgb)) else pixels
    finally:
        avif.avifImageDestroy(decoded)
