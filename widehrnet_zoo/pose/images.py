"""Anything that holds an image to upright 8-bit RGB."""

import io
import math
import sys
import warnings
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from ..errors import UserError
from .avif import decode_avif
from .heic import decode_heic
from .webp import decode_large

if TYPE_CHECKING:
    from torch import Tensor

ImageSource: TypeAlias = (
    'str | Path | bytes | bytearray | memoryview | BinaryIO | Image.Image | npt.NDArray[Any] | Tensor'
)
"""What `read_image` takes."""

MAX_PIXELS = 178_956_970
"""Largest image that is read, in pixels: 512 MiB of RGB, the size at which Pillow refuses as well."""


# drawings that Pillow hands to another program (Ghostscript, GDI), icons whose size changes while they are decoded, and
# files of which it knows no more than their first bytes
_NO_PHOTOS = frozenset(('EPS', 'WMF', 'ICO', 'CUR', 'ICNS', 'FPX', 'MIC', 'BUFR', 'GRIB', 'HDF5', 'MPEG'))


_TURNS: dict[int, Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.uint8]]] = {
    2: np.fliplr,
    3: lambda pixels: np.rot90(pixels, 2),
    4: np.flipud,
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(pixels, 2).swapaxes(0, 1),
    8: np.rot90,
}
"""How an image is turned upright, by its EXIF orientation."""

_STRIP = 4_000_000
"""Pixels of a large photo that are converted at a time."""

_OF_OTHERS = ('.gif', '.tif', '.tiff', '.ppm', '.pgm', '.pnm', '.avif', '.mpo', '.tga')
PHOTO_SUFFIXES = ('.jpg', '.jpeg', '.jpe', '.jfif', '.png', '.webp', '.bmp', *_OF_OTHERS)
"""Files that are taken from folders, beside `HEIF_SUFFIXES`; a file that is named is read whatever its extension."""

HEIF_SUFFIXES = ('.heic', '.heif', '.hif')
"""Photos of phones that are read with pillow-heif."""

_HEIF_BRANDS = (b'heic', b'heix', b'hevc', b'heim', b'heis', b'mif1', b'msf1')


def read_image(
    source: ImageSource, max_pixels: int = MAX_PIXELS, shrink_above: int | None = None
) -> npt.NDArray[np.uint8]:
    """Read an image as upright 8-bit RGB.

    Files are recognised by their content, whatever their extension says, and turned upright by their EXIF
    orientation. Transparent images are laid on white. 16-bit values are scaled by 255 / 65535. Of an animation the
    first frame is taken. Colour profiles are not applied: the stored values are taken as sRGB, as OpenCV takes them
    and as the published figures were made.

    Args:
        source: Path; content of a file as bytes, or a file opened for reading in binary; PIL image; array
            (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), RGB(A); tensor of the same layouts or (1, H, W), (3, H, W),
            (4, H, W), where channels first wins if both fit. Arrays and tensors hold 8-bit integers, 16-bit integers
            of the full range (uint16), booleans, or floats in 0..1.
        max_pixels: Refuse larger images. Above Pillow's own limit, `PIL.Image.MAX_IMAGE_PIXELS` must be raised too.
        shrink_above: Decode paths and bytes of more pixels at a half, a third, ... of their sides, so that they fit;
            JPEG without the memory of the whole, but progressive JPEG with all its coefficients, at half of those sides
            if its colours are stored at full size; of the whole WebP without loss takes four bytes a pixel, HEIC and
            AVIF five.

    Returns:
        uint8 (H, W, 3), RGB. It shares memory with `source` where nothing had to be changed.

    Raises:
        UserError: If the image is missing, broken, too large, or its values or layout cannot be told for certain.
    """
    if isinstance(source, Image.Image):
        return _from_pillow(source, 'the PIL image', max_pixels)
    if isinstance(source, np.ndarray):
        return _from_array(source)
    torch = sys.modules.get('torch')  # it need not be installed, and where it is not imported there are no tensors
    if torch is not None and isinstance(source, torch.Tensor):
        return _from_tensor(source)
    if isinstance(source, (str, Path)):
        return _from_file(source, max_pixels, shrink_above)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _open(io.BytesIO(source), 'the image given as bytes', max_pixels, shrink_above)
    if hasattr(source, 'read'):
        return _open(source, 'the image given as a file object', max_pixels)
    raise UserError(
        f'{type(source).__name__} is not an image: give a path, bytes, a PIL image, an array (H, W, 3) or a tensor '
        '(3, H, W).'
    )


def read_size(source: str | Path | bytes) -> tuple[int, int] | None:
    """Width and height of a file's image as `read_image` gives it, upright, from the head of the file.

    Returns:
        Width and height; `None` where there is no image that can be read, which `read_image` says in words.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', Image.DecompressionBombWarning)
            file: Any = source
            if isinstance(source, bytes):
                file = io.BytesIO(source)
            elif Path(source).suffix.lower() in HEIF_SUFFIXES:
                has_heif()
            with Image.open(file) as image:
                turned = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
                width, height = image.size
                if turned and isinstance(image, TiffImageFile):  # which later Pillows give as it is once it is turned
                    turned = image.size == tuple(image.tag_v2.get(tag) for tag in (256, 257))
    except Exception:  # Pillow's format plugins let all kinds of errors out
        return None
    return (height, width) if turned else (width, height)


def _from_file(source: str | Path, max_pixels: int, shrink_above: int | None) -> npt.NDArray[np.uint8]:
    name = str(source)
    if name.startswith(('http://', 'https://')):
        raise UserError(f'{name} is an address: download the image and give its path.')
    path = Path(source)
    try:
        if path.is_dir():
            raise UserError(f'{name} is a folder: give the path of an image.')
        if path.exists() and not path.is_file():
            # opening a pipe would wait for somebody to write into it
            raise UserError(f'{name} is a pipe or a device: give the path of an image.')
        with open(path, 'rb') as file:
            return _open(file, name, max_pixels, shrink_above)
    except FileNotFoundError:
        raise UserError(f'There is no file {name}.') from None
    except UserError:
        raise
    except (OSError, ValueError) as error:
        raise UserError(f'{name[:300]!r} cannot be read: {getattr(error, "strerror", None) or error}.') from error


@cache
def has_heif() -> bool:
    """Whether HEIC photos can be read: whether pillow-heif is installed. It is told to Pillow then."""
    try:
        import_module('pillow_heif').register_heif_opener()
    except ImportError:
        return False
    return True


def _is_heif(file: Any) -> bool:
    try:
        head = file.read(12)
        file.seek(-len(head), 1)
    except (OSError, ValueError):
        return False
    return isinstance(head, bytes) and head[4:8] == b'ftyp' and head[8:12] in _HEIF_BRANDS


def _is_empty(file: Any) -> bool:
    try:
        return file.seek(0, io.SEEK_END) == 0
    except (OSError, ValueError):  # a pipe
        return False


def _is_raw(image: Image.Image) -> bool:
    """Whether this is a DNG, or a TIFF that begins with a preview (tag 254, NewSubfileType), as other raw photos do."""
    try:
        return isinstance(image, TiffImageFile) and (50706 in image.tag_v2 or image.tag_v2.get(254) == 1)
    except Exception:  # see _open
        return False


def _open(file: Any, name: str, max_pixels: int, shrink_above: int | None = None) -> npt.NDArray[np.uint8]:
    is_heif = _is_heif(file)
    if is_heif:
        has_heif()
    Image.init()
    try:
        image = Image.open(file, formats=[kind for kind in Image.ID if kind not in _NO_PHOTOS])
    except Image.DecompressionBombError as error:
        raise UserError(
            f'{name} is too large: {error}. Make it smaller, or raise PIL.Image.MAX_IMAGE_PIXELS and max_pixels if '
            'you trust it.'
        ) from error
    except UnidentifiedImageError as error:
        if is_heif and not has_heif():
            raise UserError(
                f'{name} is a HEIC photo: run `pip install "widehrnet_zoo[heic]"` to read it, or convert it to JPEG.'
            ) from error
        if _is_empty(file):
            raise UserError(f'{name} is empty: it has no bytes.') from error
        raise UserError(
            f'{name} is not an image that Pillow {Image.__version__} can read: convert it to JPEG or PNG.'
        ) from error
    except Exception as error:  # Pillow's format plugins let all kinds of errors out on damaged headers
        raise UserError(f'{name} is damaged: {error}.') from error
    with image:
        return _from_pillow(image, name, max_pixels, shrink_above, file)


def _from_pillow(
    image: Image.Image, name: str, max_pixels: int, shrink_above: int | None = None, file: Any = None
) -> npt.NDArray[np.uint8]:
    # some format plugins take the size as the file says it
    if len(image.size) != 2 or not all(isinstance(side, int) for side in image.size):
        raise UserError(f'{name} is damaged: its size is {image.size!s:.100}.')
    width, height = image.size
    if not width or not height:
        raise UserError(f'{name} is empty: {width}x{height} pixels.')
    if width * height > max_pixels:
        raise UserError(
            f'{name} is too large: {width}x{height} pixels, the limit is {max_pixels}. Make it smaller or raise '
            'max_pixels.'
        )
    if _is_raw(image):
        raise UserError(f'{name} is a raw photo, of which only a small preview can be read here: convert it to JPEG.')
    shrink = 1 if shrink_above is None else math.ceil(math.sqrt(width * height / shrink_above))
    try:
        if shrink > 1:
            # a JPEG is decoded at a half, a quarter or an eighth of its sides
            part = 2 * shrink if _keeps_all(image) else shrink
            image.draft(image.mode, (-(-width // part), -(-height // part)))
        decoded, left = decode_large(image, file, shrink), 1
        if decoded is None and shrink > 1:
            left = shrink
            decoded = decode_avif(image, file) if image.format == 'AVIF' else decode_heic(image, (width, height))
        if decoded is None:
            image.load()
            left = math.ceil(math.sqrt(image.width * image.height / shrink_above)) if shrink > 1 and shrink_above else 1
    except MemoryError:
        raise UserError(
            f'{name} needs more memory than there is: {width}x{height} pixels of {image.format}. Make it smaller, or '
            'convert it to baseline JPEG, which needs the least.'
        ) from None
    except Exception as error:  # see _open
        raise UserError(f'{name} is damaged or cut off: {error}.') from error
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # EXIF that cannot be parsed says nothing of the orientation, like none at all
        turn = None
    try:
        if isinstance(image, TiffImageFile) and image.tag_v2.get(258) == (12,):
            image = image.point(lambda value: value * 16)  # Pillow keeps values of 12 bits as they are
        if decoded is not None:
            pixels = decoded if left == 1 and decoded.shape[2] == 3 else _reduced(decoded, left, name)
        else:
            pixels = _to_rgb(image, name) if left == 1 else _reduced(image, left, name)
    except UserError:
        raise
    except Exception as error:  # see _open
        raise UserError(f'{name} has colours that cannot be converted to RGB ({image.mode}): {error}.') from error
    return pixels if turn is None else np.ascontiguousarray(turn(pixels))


def _keeps_all(image: Image.Image) -> bool:
    """Whether six bytes a pixel are held to decode this: the coefficients of a progressive JPEG in 4:4:4."""
    sampling = [layer[1:3] for layer in getattr(image, 'layer', ())]
    return 'progressive' in image.info and len(sampling) > 1 and len(set(sampling)) == 1


def _reduced(image: Image.Image | npt.NDArray[np.uint8], factor: int, name: str) -> npt.NDArray[np.uint8]:
    """RGB at a part of the sides. Strip by strip, as each conversion takes as much memory as what is converted."""
    if isinstance(image, np.ndarray):
        height, width = image.shape[:2]
    elif image.mode == 'I':  # whose range only the whole tells
        return np.asarray(Image.fromarray(_to_rgb(image, name)).reduce(factor))
    else:
        width, height = image.size
    rows = factor * max(1, _STRIP // (factor * width))
    reduced = np.empty((-(-height // factor), -(-width // factor), 3), np.uint8)
    for top in range(0, height, rows):
        end = min(top + rows, height)
        strip = Image.fromarray(image[top:end]) if isinstance(image, np.ndarray) else image.crop((0, top, width, end))
        small = Image.fromarray(_to_rgb(strip, name)).reduce(factor)
        reduced[top // factor :][: small.height] = np.asarray(small)
    return reduced


def _to_rgb(image: Image.Image, name: str) -> npt.NDArray[np.uint8]:
    mode = image.mode
    if mode == 'F' or mode.startswith('I'):
        values = np.asarray(image)
        clear = image.info.get('transparency')
        grey = _to_bytes(_integers(values, name, image.format) if mode == 'I' else values, name)
        if mode != 'F' and isinstance(clear, int):
            grey = np.where(values == clear, np.uint8(255), grey)
        return _as_rgb(grey)
    if mode in ('LA', 'La', 'PA', 'RGBA', 'RGBa') or 'transparency' in image.info:
        rgba = image if mode == 'RGBA' else image.convert('RGBA')
        return np.array(Image.alpha_composite(Image.new('RGBA', rgba.size, 'white'), rgba).convert('RGB'))
    return np.array(image if mode == 'RGB' else image.convert('RGB'))


def _integers(values: npt.NDArray[Any], name: str, file_format: str | None) -> npt.NDArray[Any]:
    """Pillow's 32-bit mode, which holds 16-bit files too; their range must be told from the values or the format."""
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise UserError(f'{name} has 32-bit values from {low} to {high}: scale them to 8 bits first.')
    return values.astype(np.uint16 if high > 255 or file_format in ('PNG', 'PPM') else np.uint8)


def _from_tensor(tensor: 'Tensor') -> npt.NDArray[np.uint8]:
    tensor = tensor.detach().cpu()
    if tensor.is_floating_point():
        tensor = tensor.float()
    if tensor.ndim == 3 and tensor.shape[0] in (1, 3, 4):
        tensor = tensor.permute(1, 2, 0)
    return _from_array(tensor.numpy(), 'tensor')


def _from_array(array: npt.NDArray[Any], kind: str = 'array') -> npt.NDArray[np.uint8]:
    shape = array.shape
    if array.ndim not in (2, 3) or (array.ndim == 3 and shape[2] not in (1, 3, 4)):
        if array.ndim == 4:
            hint = 'for several images give a list of them'
        elif array.ndim == 3 and shape[0] in (1, 3, 4):
            hint = 'this looks like channels first, which is for tensors: transpose it to (H, W, 3)'
        else:
            hint = 'expected (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)' + (
                ', or channels first' if kind == 'tensor' else ''
            )
        raise UserError(f'An {kind} of shape {shape} is not an image: {hint}.'.replace('An tensor', 'A tensor'))
    if not array.size:
        raise UserError(f'The {kind} is empty: its shape is {shape}.')
    if array.dtype.kind == 'u' and array.dtype.itemsize == 2 and 0 < array.max() <= 255:
        raise UserError(
            f'The {kind} is uint16, taken as 0..65535, but its largest value is {array.max()}: convert 8-bit values '
            'to uint8.'
        )
    values = _to_bytes(array, f'the {kind}')
    if values.ndim == 3 and values.shape[2] == 4:
        alpha = values[..., 3:].astype(np.float32) / 255
        values = np.rint(values[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)
    return _as_rgb(values)


def _to_bytes(values: npt.NDArray[Any], name: str) -> npt.NDArray[np.uint8]:
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype.kind == 'f':
        low, high = float(values.min()), float(values.max())
        if not np.isfinite([low, high]).all():
            raise UserError(f'{name} holds NaN or infinite values.')
        # resampling overshoots by rounding, not by more
        if low < -1e-3 or high > 1 + 1e-3:
            raise UserError(
                f'{name} has float values from {low:g} to {high:g}; floats are taken as 0..1. Convert 0..255 to '
                'uint8, and undo a normalisation by mean and std.'
            )
        return np.rint(values.astype(np.float32).clip(0, 1) * 255).astype(np.uint8)
    if values.dtype.kind == 'u' and values.dtype.itemsize == 2:
        return np.rint(values.astype(np.float32) * (255 / 65535)).astype(np.uint8)
    if values.dtype.kind in 'iu':
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > 255:
            raise UserError(
                f'{name} has {values.dtype} values from {low} to {high}; expected 0..255, or uint16 for 0..65535.'
            )
        return values.astype(np.uint8)
    raise UserError(f'{name} holds {values.dtype}: expected uint8, uint16, bool or floats in 0..1.')


def _as_rgb(values: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    if values.ndim == 2 or values.shape[2] == 1:
        values = np.repeat(values.reshape(*values.shape[:2], 1), 3, axis=2)
    return np.ascontiguousarray(values)
