"""Networks that this machine has opened before, as the kernels' programs in the user's cache: opened without PyTorch.

To import PyTorch and timm takes ten times as long as to find the people in a photo. The command `widehrnet` therefore
keeps the program of a network that it ran on the kernels, and takes it the next time. A program is found by everything
that it was made from: what was asked for, the content of the weights, and the code that made it. Where the cache is
absent, damaged or cannot be written, the network is opened from its weights as ever.
"""

import ctypes
import functools
import hashlib
import json
import os
import platform
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..files import sha256, write_whole
from ..kernels.library import choose_variant, device_for, find_library, precision_of
from ..kernels.saved import decode_program, encode_program
from ..pose.skeletons import Skeleton
from ..version import __version__
from ..weights.shipped import WEIGHTS, check_shipped
from .exported import Array, ExportedBackend, Opened
from .metadata import ExportMetadata

if TYPE_CHECKING:
    from torch import nn

    from .pytorch import TorchBackend

VARIABLE = 'WIDEHRNET_CACHE'
"""Environment variable with the folder of the cache; empty for none."""

STARTED_WITHOUT_PYTORCH = 'torch' not in sys.modules
"""Whether this process imported the package before PyTorch, as the command does; others would gain nothing."""

_MOST = 8
"""Programs that are kept, those used last."""

_OURS = re.compile(r'\.?[0-9a-f]{32}-[0-9a-f]{24,64}.*\.(?:kernels|tmp)')

_MAKERS = ('deployment', 'engines', 'kernels', 'models', 'pose', 'weights')
"""Folders of the package whose code says what a network is and how it becomes a program."""


@dataclass(frozen=True)
class Request:
    """What `open_backend` is asked for; see `PoseEstimator`."""

    model: Any = None
    weights: str | Path | None = None
    device: Any = None
    size: tuple[int, int] | None = None
    skeleton: Skeleton | None = None
    bf16: bool = False
    engine: str = 'auto'
    int8: bool = False

    @functools.cached_property
    def key(self) -> str | None:
        """A hash of all that the program depends on; `None` where it cannot be told without PyTorch, or none runs."""
        device = device_for(self.device, self.engine, self.int8)
        on_cpu = str(device) == 'cpu' or (device is None and not _may_have_gpu())
        files = self._files()
        if files is None or not on_cpu or self.engine not in ('auto', 'kernels') or find_library() is None:
            return None
        said: list[Any] = [
            __version__,
            _timm_version(),
            _code(),
            sorted(file.name for file in WEIGHTS.glob('*.safetensors')),
            None if self.model is None else str(self.model),
            None if self.weights is None else str(self.weights),
            self.size,
            None if self.skeleton is None else self.skeleton.to_dict(),
        ]
        try:
            said += map(sha256, files)
            return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:32]
        except (OSError, TypeError):  # a file or a size that is none, which is said where it is opened
            return None

    def _files(self) -> list[Path] | None:
        """What is read to open it, but for weights that ship; `None` where that is not known."""
        files = [] if self.weights is None else [Path(self.weights)]
        if self.model is None:
            return files
        if not isinstance(self.model, (str, Path)):
            return None
        path = Path(str(self.model).removeprefix('local-dir:'))
        if isinstance(self.model, str) and re.fullmatch(r'widehrnet_\w+(\.\w+)?', self.model):
            return None if path.exists() else files
        if path.is_dir():
            return [path / 'config.json', path / 'model.safetensors', *files]
        return [path, *files] if path.is_file() else None


class CachedBackend(ExportedBackend):
    """A network on the kernels, from the cache.

    Attributes:
        engine: `'kernels'`.
        request: What was asked for.
    """

    engine = 'kernels'

    def __init__(self, path: Path, opened: Opened, request: Request):
        super().__init__(path, 'the kernels', opened)
        self.request = request

    @functools.cached_property
    def torch_backend(self) -> 'TorchBackend':
        """The same opened from its weights, for what needs the module; from then on it runs, as weights may change."""
        return _open_torch(self.request)

    @property
    def module(self) -> 'nn.Module':
        """The plain network."""
        return self.torch_backend.module

    def run(self, images: Array) -> Array:
        """Normalised crops (B, 3, H, W) to heatmaps (B, K, H/4, W/4)."""
        if 'torch_backend' not in self.__dict__:
            return super().run(images)
        import torch

        with torch.inference_mode():
            return self.torch_backend(torch.from_numpy(images)).numpy()

    def __reduce__(self) -> tuple[Any, ...]:
        # a copy, also one in another process, is opened anew; the cache may have changed
        return _open_anew, (self.request,)


def cache_folder() -> Path | None:
    """The folder of the cache: `WIDEHRNET_CACHE`, by default `widehrnet_zoo` in `XDG_CACHE_HOME` or `~/.cache`."""
    said = os.environ.get(VARIABLE)
    if said is not None:
        return Path(said) if said else None
    return Path(os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache'), 'widehrnet_zoo')


def open_cached(request: Request) -> CachedBackend | None:
    """Open a network from the cache.

    Returns:
        The backend; `None` where the cache does not have it whole.
    """
    for path in _kept(request):
        with suppress(OSError, UserError, ValueError, LookupError, TypeError):
            content = path.read_bytes()
            if hashlib.sha256(content).hexdigest() != path.stem.partition('-')[2]:
                continue
            program, text = decode_program(content, path)
            said = json.loads(text)
            if said['shipped'] is not None:
                check_shipped(WEIGHTS / said['shipped'])
            metadata = ExportMetadata.from_json(said['metadata'], path.name)
            network = program.open(choose_variant(precision_of(request.bf16, request.int8)))
            with suppress(OSError):
                os.utime(path)  # those used last are kept
            return CachedBackend(path, Opened(metadata, network, any_size=True), request)
    return None


def keep(request: Request, backend: 'TorchBackend') -> None:
    """Keep a network for the next time; nothing happens where that cannot be done."""
    folder = cache_folder()
    # a file that changes while it is opened would be kept under the name of what it was
    if request.key is None or folder is None or backend.engine != 'kernels' or replace(request).key != request.key:
        return
    shipped = None
    if not request._files():
        shipped = Path(backend.pretrained_cfg.get('file') or '')
        if shipped.parent != WEIGHTS:
            return
    metadata = ExportMetadata(
        name=backend.name,
        skeleton=backend.skeleton,
        size=backend.size,
        mean=backend.mean,
        std=backend.std,
        padding=backend.padding,
        score_map=backend.score_map,
    )
    about = json.dumps({'metadata': metadata.to_json(), 'shipped': shipped and shipped.name})
    runner: Any = backend.runner
    content = encode_program(runner.program, about)
    with suppress(OSError):
        for damaged in _kept(request):
            damaged.unlink()
        write_whole(folder / f'{request.key}-{hashlib.sha256(content).hexdigest()}.kernels', content)
        ours = [path for path in folder.iterdir() if _OURS.fullmatch(path.name)]
        for path in sorted(ours, key=lambda path: -path.stat().st_mtime)[_MOST:]:
            path.unlink()


def _kept(request: Request) -> Iterator[Path]:
    folder = cache_folder()
    if folder is not None and request.key is not None:
        with suppress(OSError):
            yield from folder.glob(f'{request.key}-*.kernels')


def _open_torch(request: Request) -> 'TorchBackend':
    from .pytorch import open_torch

    r = request
    return open_torch(r.model, r.weights, 'cpu', r.size, r.skeleton, r.bf16, r.engine, r.int8)


def _open_anew(request: Request) -> 'CachedBackend | TorchBackend':
    return open_cached(request) or _open_torch(request)


def _may_have_gpu() -> bool:
    """Whether PyTorch might find a GPU: by the drivers that its CUDA, ROCm and MPS need."""
    if sys.platform == 'darwin':
        return platform.machine() == 'arm64'
    for name in ('nvcuda.dll', 'amdhip64.dll') if sys.platform == 'win32' else ('libcuda.so.1',):
        with suppress(OSError):
            ctypes.CDLL(name)
            return True
    return Path('/dev/kfd').exists()


def _timm_version() -> str:
    # it chooses the weights of a variant that is named without a tag
    try:
        return version('timm')
    except PackageNotFoundError:
        return ''


@functools.cache
def _code() -> str:
    """A hash of the code and the tables that make a program; a checkout changes without another version."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for file in sorted(f for folder in _MAKERS for f in (root / folder).glob('*') if f.suffix in ('.py', '.json')):
        digest.update(f'{file.name}\0{file.stat().st_size}\0'.encode() + file.read_bytes())
    return digest.hexdigest()
