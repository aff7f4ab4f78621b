"""Large WebP photos in less memory than Pillow takes for them."""

import ctypes
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

LARGE = 20_000_000
"""Pixels above which the decoder itself is called: Pillow takes 16 bytes for each, 320 MB for these."""

_ABI = 0x0200
"""Of the structures below, from webp/decode.h of libwebp 0.5 and later; only its first byte is compared."""


class _Rgba(ctypes.Structure):
    """WebPRGBABuffer."""

    _fields_ = [('pixels', ctypes.c_void_p), ('stride', ctypes.c_int), ('size', ctypes.c_size_t)]


class _Yuva(ctypes.Structure):
    """WebPYUVABuffer, which has the size of the union."""

    _fields_ = [('planes', ctypes.c_void_p * 4), ('strides', ctypes.c_int * 4), ('sizes', ctypes.c_size_t * 4)]


class _Memory(ctypes.Union):
    _fields_ = [('rgba', _Rgba), ('yuva', _Yuva)]


class _Output(ctypes.Structure):
    """WebPDecBuffer."""

    _fields_ = [
        *((name, ctypes.c_int) for name in ('colorspace', 'width', 'height', 'is_external_memory')),
        *(('memory', _Memory), ('pad', ctypes.c_uint32 * 4), ('private_memory', ctypes.c_void_p)),
    ]


class _Options(ctypes.Structure):
    """WebPDecoderOptions."""

    _fields_ = [
        *((name, ctypes.c_int) for name in ('bypass_filtering', 'no_fancy_upsampling', 'use_cropping')),
        *((name, ctypes.c_int) for name in ('crop_left', 'crop_top', 'crop_width', 'crop_height')),
        *((name, ctypes.c_int) for name in ('use_scaling', 'scaled_width', 'scaled_height', 'use_threads')),
        *((name, ctypes.c_int) for name in ('dithering_strength', 'flip', 'alpha_dithering_strength')),
        ('pad', ctypes.c_uint32 * 5),
    ]


class _Config(ctypes.Structure):
    """WebPDecoderConfig."""

    _fields_ = [('features', ctypes.c_int * 10), ('output', _Output), ('options', _Options)]


def decode_large(image: Image.Image, file: Any, shrink: int = 1) -> npt.NDArray[np.uint8] | None:
    """Decode a large still WebP with the libwebp that Pillow came with, at the size that is needed.

    Pillow itself decodes each WebP as an animation, with two canvases and two copies of four bytes a pixel. Here three
    bytes are held for each pixel that comes out, four with alpha; files without loss take four bytes a pixel of the
    whole besides.

    Args:
        image: As Pillow opened it, not loaded.
        file: The open file that it was opened from.
        shrink: 2 for a half of the sides, rounded up, 3 for a third, ...

    Returns:
        uint8 (H, W, 3) or (H, W, 4), not turned by EXIF; the values that Pillow gives, or about their means where it is
        shrunk. `None` where Pillow has to do it: small images, animations, other formats, damaged files, which it says
        best, and a Pillow that keeps libwebp inside, as on Windows.

    Raises:
        MemoryError: If there is too little.
    """
    if image.format != 'WEBP' or image.width * image.height <= LARGE or getattr(image, 'is_animated', False):
        return None
    config = _Config()
    try:
        # a handle on a library finds what the libraries that it needs have
        library = ctypes.CDLL(import_module('PIL._webp').__file__)
        decode = library.WebPDecode
        if not library.WebPInitDecoderConfigInternal(ctypes.byref(config), _ABI):
            return None
    except (ImportError, OSError, AttributeError):
        return None
    file.seek(0)
    data = file.read()
    width, height = (-(-side // shrink) for side in image.size)
    pixels = np.empty((height, width, len(image.mode)), np.uint8)
    output, options = config.output, config.options
    output.colorspace = {'RGB': 0, 'RGBA': 1}[image.mode]
    output.is_external_memory = 1
    output.memory.rgba = _Rgba(pixels.ctypes.data, pixels.strides[0], pixels.nbytes)
    options.use_scaling, options.scaled_width, options.scaled_height = shrink > 1, width, height
    decode.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_void_p]
    return None if decode(data, len(data), ctypes.byref(config)) else pixels
