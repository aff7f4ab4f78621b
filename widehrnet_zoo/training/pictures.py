"""Pictures of a run: augmented samples before it, curves and predictions after it."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import nn

from ..extras import require
from ..files import write_whole
from ..pose.drawing import contact_sheet, draw_poses
from ..pose.skeletons import Skeleton
from .batches import Batches
from .log import read_log
from .state import disk_errors

_SHOWN = 16
_HEAT = np.array((255, 60, 40), np.float32)


def _zoom(image: npt.NDArray[np.uint8]) -> int:
    """Factor that brings a small input to a size where lines and a line of text have room."""
    return max(1, -(-160 // image.shape[1]))


def _enlarge(image: Image.Image, zoom: int) -> Image.Image:
    return image.resize((image.width * zoom, image.height * zoom), Image.Resampling.BICUBIC) if zoom > 1 else image


def _with_keypoints(image: npt.NDArray[np.uint8], keypoints: npt.NDArray, skeleton: Skeleton) -> Image.Image:
    """An input with keypoints (K, 3) in its pixels; those with a third value of 0 are left out."""
    zoom = _zoom(image)
    # pixel indices, so that 0 stays the middle of the first pixel
    points = (keypoints[None, :, :2] + 0.5) * zoom - 0.5
    return draw_poses(_enlarge(Image.fromarray(image), zoom), points, keypoints[None, :, 2] > 0, skeleton)


def _with_heatmaps(image: npt.NDArray[np.uint8], heatmaps: torch.Tensor) -> Image.Image:
    """An input with heatmaps (K, h, w) over it in red."""
    heat = heatmaps.amax(0).clamp(0, 1)[None, None]
    heat = nn.functional.interpolate(heat, size=image.shape[:2], mode='bilinear', align_corners=False)
    share = heat[0, 0].numpy()[..., None] * 0.75
    mixed = (image * (0.7 - 0.6 * share) + _HEAT * share).clip(0, 255).astype(np.uint8)
    return _enlarge(Image.fromarray(mixed), _zoom(image))


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write a picture whole or not at all."""
    buffer = io.BytesIO()
    picture.save(buffer, Image.registered_extensions().get(path.suffix.lower(), 'PNG'))
    with disk_errors(path):
        write_whole(path, buffer.getvalue())


def evenly(count: int) -> npt.NDArray[np.intp]:
    """Places of a few samples, evenly spread over all."""
    return np.unique(np.linspace(0, count - 1, min(_SHOWN, count)).round().astype(int))


def pixels_of(images: torch.Tensor) -> npt.NDArray[np.uint8]:
    """Float images (N, 3, H, W) in 0..255 as uint8 (N, H, W, 3)."""
    return images.round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()


def draw_samples(batches: Batches, path: Path, count: int) -> None:
    """Contact sheet of samples as the network will get them: keypoints on the left, targets on the right.

    Args:
        batches: The batches.
        path: Picture to write.
        count: Number of samples, taken from as many batches as it needs.
    """
    tiles: list[tuple[Image.Image, str]] = []
    step = 0
    while len(tiles) < 2 * count:
        batch = batches.batch(step)
        keypoints = batch.keypoints.clone()
        keypoints[..., 2] = batch.weights * (keypoints[..., 2] > 0)
        for i, image in enumerate(pixels_of(batch.pixels)[: count - len(tiles) // 2]):
            used = int((keypoints[i, :, 2] > 0).sum())
            labelled = int((batch.keypoints[i, :, 2] > 0).sum())
            name = Path(batches.cache.people.files[batch.indices[i]]).name
            tiles.append((_with_keypoints(image, keypoints[i].numpy(), batches.skeleton), name[:24]))
            shown = batch.targets[i] * (batch.weights[i] > 0)[:, None, None]
            tiles.append((_with_heatmaps(image, shown), f'{used} of {labelled} in the loss'))
        step += 1
    save_picture(contact_sheet(tiles, columns=8), path)


def draw_found(pixels: torch.Tensor, truth: npt.NDArray, found: npt.NDArray, skeleton: Skeleton, path: Path) -> None:
    """Contact sheet of people: the label on the left, the prediction on the right.

    Args:
        pixels: (N, 3, H, W) in 0..255.
        truth: (N, K, 3) labels in input pixels.
        found: (N, K, 3) predictions with their scores.
        skeleton: What the keypoints are.
        path: Picture to write.
    """
    tiles: list[tuple[Image.Image, str]] = []
    for image, label, points in zip(pixels_of(pixels), truth, found, strict=True):
        tiles.append((_with_keypoints(image, label, skeleton), 'label'))
        # a prediction is drawn wherever it is, however unsure: hiding it would flatter
        shown = np.concatenate((points[:, :2], np.ones_like(points[:, 2:])), 1)
        tiles.append((_with_keypoints(image, shown, skeleton), f'prediction, score {points[:, 2].mean():.2f}'))
    save_picture(contact_sheet(tiles, columns=8), path)


def draw_curves(log: Path, path: Path, figure: str, shown: str) -> None:
    """Loss, figure and learning rate of a run over its epochs.

    Args:
        log: The run's `log.csv`.
        path: Picture to write.
        figure: The figure's name in the log's columns.
        shown: Its name on the plot.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    rows = read_log(log)
    figures: Any = require('matplotlib.figure', 'train')
    page = figures.Figure(figsize=(10, 3.2), layout='constrained')
    panels = page.subplots(1, 3)
    series = (
        (panels[0], 'loss', 'training loss', '#c0392b'),
        (panels[0], 'teacher_loss', "to the teacher's", '#e67e22'),
        (panels[1], f'train_{figure}', 'augmented training samples', '#95a5a6'),
        (panels[1], f'val_{figure}', 'validation', '#2471a3'),
        (panels[2], 'lr', 'learning rate', '#333333'),
    )
    for panel, column, label, colour in series:
        points = [(row['epoch'], row[column]) for row in rows if column in row]
        if points:
            panel.plot(*zip(*points, strict=True), color=colour, label=label, marker='.' if len(points) < 30 else '')
    for panel, title in zip(panels, ('loss', shown, 'learning rate'), strict=True):
        panel.set_xlabel('epoch')
        panel.set_title(title)
        panel.grid(alpha=0.3)
        if panel.get_legend_handles_labels()[0] and panel is not panels[2]:
            panel.legend(fontsize=8)
    losses = [row['loss'] for row in rows if 'loss' in row]
    if losses and min(losses) > 0 and max(losses) > 20 * min(losses):
        panels[0].set_yscale('log')
    panels[1].set_ylim(0, 1)
    buffer = io.BytesIO()
    page.savefig(buffer, dpi=110, format='png')
    with disk_errors(path):
        write_whole(path, buffer.getvalue())
