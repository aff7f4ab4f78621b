"""The library of compiled kernels: where it is, what it has for this processor, and how it is called."""

import ctypes
import functools
import os
import sys
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import UserError

INTERFACE = 1
"""Number of the C interface, as the library says it."""

VARIABLE = 'WIDEHRNET_KERNELS'
"""Environment variable with the name of the kernels to use instead of the best for this processor."""

_NEEDED = {'f32': '', 'bf16': 'AVX512-BF16', 'int8': 'AVX512-VNNI'}
"""What a processor must have for each precision."""

_NAMES = {'linux': 'libwidehrnet.so', 'darwin': 'libwidehrnet.dylib', 'win32': 'widehrnet.dll'}
FIELDS = 20

PARTS = (
    *('stem', 'expand', 'gate', 'project', 'separable', 'pointwise'),
    *('add_nearest', 'add_bilinear', 'reorder', 'head'),
)
"""Kinds of work in the order of the library; a block is `expand` (with its depthwise part), `gate` and `project`."""


def find_library() -> Path | None:
    """The file of compiled kernels, or `None` where the package was installed without a compiler.

    Python that is started in a clone imports the clone, which has no such file: that of the installation serves it.
    """
    from . import __path__ as folders

    name = _NAMES.get(sys.platform, 'libwidehrnet.so')
    installed = Path(sysconfig.get_path('platlib'), *__name__.split('.')[:-1])
    files = (folder / name for folder in [*map(Path, folders), installed])
    return next((file for file in files if file.is_file()), None)


@functools.cache
def _library() -> ctypes.CDLL:
    file = find_library()
    if file is None:
        raise UserError(
            'This installation has no compiled kernels: there was no C++17 compiler (GCC or Clang) when the package '
            'was installed. Install it again where there is one, or choose another engine.'
        )
    try:
        library = ctypes.CDLL(str(file))
    except OSError as error:
        raise UserError(f'The compiled kernels cannot be loaded: {error}.') from error
    library.widehrnet_interface.restype = ctypes.c_int
    if library.widehrnet_interface() != INTERFACE:
        raise UserError(f'{file} belongs to another version of this package: install the package again.')
    library.widehrnet_variant_name.restype = ctypes.c_char_p
    library.widehrnet_open.restype = ctypes.c_void_p
    library.widehrnet_open.argtypes = [
        ctypes.c_int,
        ctypes.c_void_p,
        ctypes.c_int64,
        ctypes.c_void_p,
        ctypes.c_int64,
        ctypes.c_char_p,
        ctypes.c_int64,
    ]
    library.widehrnet_close.argtypes = [ctypes.c_void_p]
    library.widehrnet_close.restype = None
    library.widehrnet_run.argtypes = [
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_int64,
        ctypes.c_int64,
        ctypes.c_int64,
        ctypes.c_void_p,
        ctypes.c_int,
    ]
    library.widehrnet_profile.argtypes = [
        ctypes.c_void_p,
        ctypes.c_void_p,
        *[ctypes.c_int64] * 2,
        *[ctypes.c_void_p] * 3,
    ]
    library.widehrnet_peak.restype = ctypes.c_double
    return library


def variants() -> dict[str, str]:
    """The sets of kernels that this processor runs, the best last: names, and what their products are of.

    Returns:
        For each name `'f32'`, `'bf16'` or `'int8'`.

    Raises:
        UserError: If there are no compiled kernels.
    """
    library = _library()

    def precision(i: int) -> str:
        if library.widehrnet_variant_bf16(i):
            return 'bf16'
        return 'int8' if library.widehrnet_variant_int8(i) else 'f32'

    return {
        library.widehrnet_variant_name(i).decode(): precision(i)
        for i in range(library.widehrnet_variants())
        if library.widehrnet_variant_runs(i)
    }


def precision_of(bf16: bool, int8: bool) -> str:
    """`'f32'`, `'bf16'` or `'int8'`.

    Raises:
        UserError: If both are asked for.
    """
    if bf16 and int8:
        raise UserError('Products are of bfloat16 numbers or of 8-bit integers: ask for bf16 or for int8.')
    return 'bf16' if bf16 else 'int8' if int8 else 'f32'


def device_for(device: Any, engine: str, int8: bool) -> Any:
    """The device that is asked for, if any; the kernels, which alone know int8, are of the CPU."""
    return 'cpu' if device is None and (engine == 'kernels' or int8) else device


def choose_variant(precision: str = 'f32', name: str | None = None) -> str:
    """The set of kernels to use.

    Args:
        precision: `'f32'`, `'bf16'` or `'int8'`.
        name: Its name, to choose by hand; by default what the environment variable `WIDEHRNET_KERNELS` says, or else
            the best for this processor.

    Raises:
        UserError: If there is none.
    """
    if precision not in _NEEDED:
        raise UserError(f'The kernels run in {", ".join(_NEEDED)}, not in {precision}.')
    here = variants()
    said = name or os.environ.get(VARIABLE)
    fitting = [v for v, of in here.items() if of == precision]
    if name is None and said in here and said not in fitting:
        said = None  # the variable speaks of the other precision
    if said is not None and said not in fitting:
        there = ', '.join(fitting) or 'another precision'
        raise UserError(f'There are no kernels {said!r} in {precision} for this processor: choose {there}.')
    if not fitting:
        raise UserError(f'This processor has no {_NEEDED[precision]}, which the kernels need for {precision}: use f32.')
    return said or fitting[-1]


def peak(variant: str) -> float:
    """Multiply-adds per second of one thread on registers alone, which the kernels can at most reach; measured now.

    Args:
        variant: From `choose_variant`.
    """
    library = _library()
    names = [library.widehrnet_variant_name(i).decode() for i in range(library.widehrnet_variants())]
    found: float = library.widehrnet_peak(names.index(variant))
    return found


def num_threads() -> int:
    """The threads to use: those of PyTorch where it is in use, or else OMP_NUM_THREADS, or all processors."""
    torch = sys.modules.get('torch')
    if torch is not None and hasattr(torch, 'get_num_threads'):
        return torch.get_num_threads()
    said = os.environ.get('OMP_NUM_THREADS', '').partition(',')[0].strip()
    if said.isdecimal() and int(said) > 0:
        return int(said)
    return num_processors()


def num_processors() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


class Network:
    """A program that is ready to run on one set of kernels. Calls from several threads at once are safe.

    Args:
        steps: (N, 20) int64, as `Program.encode` gives them.
        numbers: float32, the weights that they name.
        variant: From `choose_variant`.
        channels: Of the images.
        outputs: Number of heatmaps.

    Raises:
        UserError: If the program is wrong.
    """

    def __init__(
        self,
        steps: npt.NDArray[np.int64],
        numbers: npt.NDArray[np.float32],
        variant: str,
        channels: int,
        outputs: int,
    ):
        self._handle: int | None = None
        self.variant, self.channels, self.outputs = variant, channels, outputs
        self._library = library = _library()
        names = [library.widehrnet_variant_name(i).decode() for i in range(library.widehrnet_variants())]
        steps = np.ascontiguousarray(steps, np.int64)
        numbers = np.ascontiguousarray(numbers, np.float32)
        assert steps.ndim == 2 and steps.shape[1] == FIELDS
        error = ctypes.create_string_buffer(200)
        self._handle = library.widehrnet_open(
            names.index(variant), steps.ctypes.data, len(steps), numbers.ctypes.data, numbers.size, error, len(error)
        )
        if not self._handle:
            raise UserError(f'The kernels cannot run this network: {error.value.decode()}.')

    def __call__(self, images: npt.NDArray[np.float32], threads: int | None = None) -> npt.NDArray[np.float32]:
        """Images (B, C, H, W), H and W multiples of 32, to heatmaps (B, K, H/4, W/4).

        Args:
            images: float32.
            threads: Threads at most; by default `num_threads()`.

        Raises:
            UserError: If the images do not fit.
            MemoryError: If there is no memory for the activations.
        """
        if images.ndim != 4 or images.shape[1] != self.channels or images.dtype != np.float32:
            raise UserError(
                f'The kernels take float32 images (B, {self.channels}, H, W), not {images.dtype} {images.shape}.'
            )
        images = np.ascontiguousarray(images)
        batch, _, height, width = images.shape
        if height % 32 or width % 32 or not height or not width:
            raise UserError(f'The kernels take images whose sides are multiples of 32, not {height}x{width}.')
        heatmaps = np.empty((batch, self.outputs, height // 4, width // 4), np.float32)
        self.run_into(images.ctypes.data, heatmaps.ctypes.data, (batch, height, width), threads)
        return heatmaps

    def run_into(self, images: int, heatmaps: int, shape: tuple[int, int, int], threads: int | None = None) -> None:
        """`__call__` on addresses of contiguous memory, for who keeps arrays of another kind.

        Args:
            images: Address of float32 (B, C, H, W).
            heatmaps: Address of float32 (B, K, H/4, W/4).
            shape: B, H and W.
            threads: As in `__call__`.
        """
        threads = num_threads() if threads is None else threads
        code = self._library.widehrnet_run(self._handle, images, *shape, heatmaps, threads)
        if code == 1:
            raise MemoryError(f'no memory for the activations of {shape[0]} images of {shape[1]}x{shape[2]}')
        if code:
            raise UserError(f'The kernels cannot run {shape[0]} images of {shape[1]}x{shape[2]} on {threads} threads.')

    def profile(self, image: npt.NDArray[np.float32]) -> dict[str, tuple[float, float]]:
        """Seconds and multiply-adds of one image on one thread, by the kinds of work in `PARTS`.

        Args:
            image: float32 (1, C, H, W), as for a call.

        Raises:
            UserError: If the image does not fit.
            MemoryError: If there is no memory for the activations.
        """
        heatmaps = self(image, 1)  # says what does not fit
        image = np.ascontiguousarray(image[:1])
        found = np.zeros((2, len(PARTS)))
        height, width = image.shape[2:]
        addresses = [a.ctypes.data for a in (heatmaps, found[0], found[1])]
        if self._library.widehrnet_profile(self._handle, image.ctypes.data, height, width, *addresses):
            raise MemoryError(f'no memory for the activations of an image of {height}x{width}')
        return {name: (float(s), float(w)) for name, s, w in zip(PARTS, *found, strict=True)}

    def __del__(self) -> None:
        if self._handle:
            self._library.widehrnet_close(self._handle)
            self._handle = None

    def __reduce__(self) -> Any:
        raise TypeError('a Network holds compiled kernels: pickle the Program that it was made from')
