"""Networks on one device of PyTorch, a GPU above all: paths, precisions and memory formats side by side."""

import copy
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from ..engines.graphs import Replayed
from ..models.macs import count_macs
from ..models.registry import create_model, list_pretrained
from ..pose.crops import MEAN, STD, box_views, crop_people, normalise
from ..pose.decoding import decode_heatmaps
from ..pose.images import read_image
from .contenders import Contender
from .photo import PHOTO, Stages, side_by_side, time_stages
from .report import markdown
from .timing import interleave

DEVICE_PATHS = {
    'eager': 'PyTorch, the network as it was trained',
    'compiled': 'torch.compile',
    'graphs': 'CUDA graphs, the default of PoseEstimator on CUDA in f16 and channels last',
}
"""The paths, and what each is."""

DTYPES = {'f32': torch.float32, 'bf16': torch.bfloat16, 'f16': torch.float16}
"""The precisions; weights and activations have them."""

_LARGEST = 3
"""Kernels whose shares of the time are told."""


@dataclass(frozen=True)
class DeviceContender:
    """One network, and how it runs.

    Attributes:
        model: Name in timm's registry; networks of this package have their weights where some ship.
        path: A key of `DEVICE_PATHS`.
        precision: A key of `DTYPES`.
        channels_last: Whether its memory is laid out so.
    """

    model: str
    path: str
    precision: str
    channels_last: bool

    @property
    def label(self) -> str:
        """Name in the table."""
        return f'{self.model} {self.path} {self.precision}{" channels_last" if self.channels_last else ""}'

    @property
    def _format(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def given(self, images: Tensor) -> Tensor:
        """float32 images (B, 3, H, W) as the network takes them."""
        return images.to(dtype=DTYPES[self.precision], memory_format=self._format)

    def open(self, device: torch.device) -> Callable[[Tensor], Any]:
        """Make it ready to run.

        Returns:
            What `given` gives to what the network gives.
        """
        module = copy.deepcopy(_network(self.model)).to(device, DTYPES[self.precision]).to(memory_format=self._format)
        if self.path == 'graphs':
            return Replayed(module)
        run = torch.compile(module, dynamic=False) if self.path == 'compiled' else module
        return torch.inference_mode()(run)


@functools.cache
def _network(name: str) -> nn.Module:
    if any(name in (known, known.partition('.')[0]) for known in list_pretrained()):
        return create_model(name, pretrained=True).eval()
    return Contender(name, 'eager', 'f32', (256, 192)).module()


def sample_images(size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """The two people of the sample photo, normalised: float32 (2, 3, *size)."""
    photo = read_image(Path(__file__).parents[1] / 'samples' / 'portraits.jpg')
    height, width = photo.shape[:2]
    boxes = [[0, 0, width / 2, height], [width / 2, 0, width, height]]
    return normalise(crop_people(photo, box_views(boxes, size, 1.0), size))


def bench_device(
    contenders: Sequence[DeviceContender],
    device: torch.device,
    images: npt.NDArray[np.float32],
    batches: Sequence[int] = (1, 32, 256),
    runs: int = 30,
    progress: bool = True,
) -> Iterator[list[dict[str, Any]]]:
    """Time networks on a device, in turn.

    Args:
        contenders: Who runs.
        device: Where.
        images: Normalised (N, 3, H, W), repeated to each batch; the error is of them.
        batches: Images per call.
        runs: Rounds.
        progress: Show a progress bar.

    Yields:
        The rows of each model and batch, one for each contender, as soon as they are timed: the fields of the
        contender, `batch`, `median` (milliseconds), `per_second` (images), `gmacs_per_s`, `error` (largest difference
        from eager float32 on the device, as a share of the largest value), and `kernels` and `memory` as from `look`.
    """
    for model in dict.fromkeys(c.model for c in contenders):
        mine = [c for c in contenders if c.model == model]
        plain = DeviceContender(model, 'eager', 'f32', False)
        right = plain.open(device)(torch.from_numpy(images).to(device)).float().cpu()
        macs = count_macs(_network(model), (images.shape[2], images.shape[3]))
        for batch in batches:
            given = torch.from_numpy(np.resize(images, (batch, *images.shape[1:]))).to(device)
            calls: dict[str, Callable[[], Any]] = {}
            told: dict[str, dict[str, Any]] = {}
            for c in tqdm(mine, desc=f'{model}, batch {batch}', unit='path', disable=not progress):
                calls[c.label] = call = _finished(c.open(device), c.given(given), device)
                found, expected = call()[: len(right)].float().cpu(), right[:batch]
                kernels, memory = look(call, device)
                error = float((found - expected).abs().max() / expected.abs().max())
                told[c.label] = {'memory': memory, 'error': error, 'kernels': kernels}
            # each has run twice
            timings = interleave(calls, runs, 0, progress)
            rows = []
            for c in mine:
                median = timings[c.label].median
                about = {'model': c.model, 'path': c.path, 'precision': c.precision, 'channels_last': c.channels_last}
                speed = {'batch': batch, 'median': median, 'per_second': 1e3 * batch / median}
                rows.append({**about, **speed, 'gmacs_per_s': macs * batch / median / 1e6, **told[c.label]})
            yield rows


def _finished(run: Callable[[Tensor], Any], given: Tensor, device: torch.device) -> Callable[[], Any]:
    def call() -> Any:
        found = run(given)
        _wait(device)
        return found

    return call


def _wait(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
    elif device.type == 'mps':
        torch.mps.synchronize()


def look(call: Callable[[], Any], device: torch.device) -> tuple[list[tuple[str, float]], float | None]:
    """Where the time and the memory of one call go.

    Args:
        call: What is looked at; it has been called before.
        device: Where it runs. On a CPU PyTorch's operators stand for kernels.

    Returns:
        The kernels that take most of the time, names and shares of the time of all, and on CUDA the MB of memory at
        most, beside weights, inputs and graphs, which are there already.
    """
    on_gpu = device.type == 'cuda'
    before = 0
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
    activities = [torch.profiler.ProfilerActivity.CUDA if on_gpu else torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities) as profiler:
        call()
    memory = (torch.cuda.max_memory_allocated(device) - before) / 2**20 if on_gpu else None
    time_of = 'self_device_time_total' if on_gpu else 'self_cpu_time_total'
    times = [(event.key, float(getattr(event, time_of))) for event in profiler.key_averages()]
    whole = sum(time for _, time in times)
    ranked = sorted(times, key=lambda pair: -pair[1])[:_LARGEST]
    return [(name, time / whole) for name, time in ranked] if whole else [], memory


def crop_on_device(image: Tensor, maps: npt.NDArray[np.float64], size: tuple[int, int]) -> Tensor:
    """`crop_people` of a photo on a device, normalised.

    Args:
        image: uint8 (H, W, 3).
        maps: (N, 2, 3) maps from crop to photo, as from `box_views`.
        size: Height and width of a crop.

    Returns:
        float32 (N, 3, *size).
    """
    height, width = size
    affine = torch.from_numpy(maps).to(image.device, torch.float32)
    y, x = torch.meshgrid(*(torch.arange(n, device=image.device) for n in size), indexing='ij')
    places = torch.stack((x, y, torch.ones_like(x)), -1).float().view(-1, 3)
    at = (places @ affine.transpose(1, 2)).view(-1, height, width, 2)
    # grid_sample counts from -1 to 1 between the edges of the outermost pixels
    sides = torch.tensor([image.shape[1], image.shape[0]], device=image.device)
    photo = image.permute(2, 0, 1)[None].float().expand(len(maps), -1, -1, -1)
    crops = F.grid_sample(photo, (2 * at + 1) / sides - 1, padding_mode='zeros', align_corners=False)
    mean, std = (torch.tensor(v, device=image.device).view(3, 1, 1) * 255 for v in (MEAN, STD))
    return (crops - mean) / std


def time_device_photo(
    contenders: Sequence[DeviceContender],
    device: torch.device,
    people: int,
    size: tuple[int, int],
    runs: int = 10,
    progress: bool = True,
) -> list[Stages]:
    """Time the stages of a photo of 1080p that is sent to the device and cut there.

    Args:
        contenders: Those that give heatmaps are taken.
        device: Where.
        people: Boxes on the photo, side by side.
        size: Height and width of a crop.
        runs: Rounds.
        progress: Show a progress bar.
    """
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (*PHOTO, 3), dtype=np.uint8))
    views = box_views(side_by_side(people), size)
    calls: dict[str, dict[str, Callable[[], Any]]] = {}
    for c in contenders:
        if not c.model.startswith('widehrnet'):
            continue

        def cut(_: Any = None, c: DeviceContender = c) -> Tensor:
            return c.given(crop_on_device(image.to(device), views, size))

        network, crops = c.open(device), cut()

        def whole(network: Any = network, cut: Callable[[], Tensor] = cut) -> Any:
            return [found.cpu() for found in decode_heatmaps(network(cut()).float())]

        calls[c.label] = {
            'crops': _finished(cut, crops, device),
            'network': _finished(network, crops, device),
            'decoding': _finished(decode_heatmaps, network(crops).float(), device),
            'whole': whole,
        }
    return time_stages(calls, runs, progress)


def device_table(rows: Sequence[dict[str, Any]]) -> str:
    """A Markdown table of what `bench_device` gives."""
    head = ['model', 'path', 'precision', 'batch', 'ms', 'crops/s', 'GMAC/s', 'MB', 'error', 'largest kernels']
    lines = []
    for row in rows:
        kernels = ', '.join(f'{name[:30].replace("|", "/")} {share:.0%}' for name, share in row['kernels'])
        lines.append(
            [
                row['model'],
                row['path'],
                row['precision'] + (' channels_last' if row['channels_last'] else ''),
                str(row['batch']),
                f'{row["median"]:.2f}',
                f'{row["per_second"]:.0f}',
                f'{row["gmacs_per_s"]:.0f}',
                '' if row['memory'] is None else f'{row["memory"]:.0f}',
                f'{row["error"]:.1e}',
                kernels,
            ]
        )
    return markdown(head, lines, 3)
