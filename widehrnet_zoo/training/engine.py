"""The training loop: resumable, with EMA, on cached crops."""

import csv
import json
import logging
import math
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.optim import create_optimizer_v2
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from tqdm import tqdm

from .augment import AugmentConfig, cut_views, jitter_colour, move_keypoints, sample_views
from .crops import CropCache
from .fused import fuse_training
from .targets import STRIDE, gaussian_heatmaps, heatmap_loss

_logger = logging.getLogger(__name__)


@dataclass
class TrainConfig:
    """A training run.

    Attributes:
        size: Height and width of the input.
        batch_size: Samples per step.
        epochs: Passes over the data; may be a fraction.
        minutes: Wall-clock budget of the whole run; the learning rate follows whichever of epochs and minutes
            is further on, so that a run on a slow machine still ends annealed.
        lr: Peak learning rate.
        weight_decay: Weight decay.
        warmup_steps: Steps of linear warm-up.
        sigma: Standard deviation of the targets in heatmap pixels.
        sharpness: See `heatmap_loss`.
        ema_decay: Decay of the exponential moving average of the weights.
        eval_every: Minutes between validations.
        save_every: Minutes between saved states.
        seed: Seed of the order and the augmentation.
        fused: Run the step through the fused CPU kernels (see `fuse_training`).
        augment: Augmentation ranges.
    """

    size: tuple[int, int] = (128, 96)
    batch_size: int = 32
    epochs: float = 20.0
    minutes: float | None = None
    lr: float = 2e-3
    weight_decay: float = 0.02
    warmup_steps: int = 200
    sigma: float = 1.2
    sharpness: float = 10.0
    ema_decay: float = 0.998
    eval_every: float = 10.0
    save_every: float = 5.0
    seed: int = 0
    fused: bool = False
    augment: AugmentConfig = field(default_factory=AugmentConfig)


def normalise(images: Tensor) -> Tensor:
    """Float images in 0..255 to ImageNet-normalised ones, channels last in memory."""
    mean = torch.tensor(IMAGENET_DEFAULT_MEAN).view(1, 3, 1, 1) * 255
    std = torch.tensor(IMAGENET_DEFAULT_STD).view(1, 3, 1, 1) * 255
    return ((images - mean) / std).contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def validate(model: nn.Module, cache: CropCache, size: tuple[int, int], batch_size: int = 50) -> dict[str, float]:
    """PCK@0.2 of the torso (right shoulder to left hip) on cached crops, argmax decoding, no flip.

    Args:
        model: A heatmap model for COCO's 17 keypoints.
        cache: The crops.
        size: Input height and width.
        batch_size: Crops per forward.

    Returns:
        `pck` over twelve body joints.
    """
    model.eval()
    hits = total = 0.0
    for start in range(0, len(cache), batch_size):
        crops = torch.from_numpy(np.ascontiguousarray(cache.crops[start : start + batch_size]))
        maps, mirrored = sample_views(len(crops), cache.view, cache.crops.shape[1] / 2, size)
        truth = move_keypoints(torch.from_numpy(cache.keypoints[start : start + batch_size]), maps, mirrored, range(17))
        heatmaps = model(normalise(cut_views(crops, maps, size)))
        width = heatmaps.shape[-1]
        index = heatmaps.flatten(2).argmax(-1)
        found = torch.stack((index % width, index // width), -1) * float(STRIDE)
        torso = (truth[:, 6, :2] - truth[:, 11, :2]).norm(dim=-1)
        usable = (truth[:, 6, 2] > 0) & (truth[:, 11, 2] > 0) & (torso > 1)
        error = (found - truth[..., :2]).norm(dim=-1)[:, 5:]
        counted = (truth[:, 5:, 2] > 0) & usable[:, None]
        hits += ((error < 0.2 * torso[:, None]) & counted).sum().item()
        total += counted.sum().item()
    model.train()
    return {'pck': hits / max(total, 1)}


def write_whole(path: Path, write: Any) -> None:
    """Call `write(temporary_path)`, then put the file in place in one step."""
    tmp = path.with_name(path.name + '.tmp')
    write(tmp)
    os.replace(tmp, path)


def lr_factor(step: int, progress: float, warmup_steps: int) -> float:
    """Linear warm-up by step, then a cosine to zero by `progress` in 0..1."""
    return min(1.0, (step + 1) / max(1, warmup_steps)) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def fit(
    model: nn.Module,
    train: CropCache,
    val: CropCache,
    config: TrainConfig,
    out: Path,
    flip_order: Sequence[int],
) -> nn.Module:
    """Train and keep the state in `out`; a run that finds a state there goes on from it.

    Args:
        model: Heatmap model.
        train: Training crops.
        val: Validation crops.
        config: The run.
        out: Folder of `state.pt`, `ema.safetensors` and `log.csv`.
        flip_order: Keypoint order after mirroring.

    Returns:
        The model of averaged weights.

    Raises:
        FloatingPointError: If the loss is not finite.
    """
    out.mkdir(parents=True, exist_ok=True)
    model.to(memory_format=torch.channels_last)
    optimizer = create_optimizer_v2(model, opt='adamw', lr=config.lr, weight_decay=config.weight_decay, fused=True)
    ema = ModelEmaV3(model, decay=config.ema_decay, use_warmup=True)
    if config.fused:
        fuse_training(model)
    step, elapsed = 0, 0.0
    state_file = out / 'state.pt'
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        model.load_state_dict(state['model'])
        ema.module.load_state_dict(state['ema'])
        optimizer.load_state_dict(state['optimizer'])
        for group in optimizer.param_groups:
            group.update(fused=True, foreach=None)
        step, elapsed = state['step'], state['elapsed']
    (out / 'config.json').write_text(json.dumps(asdict(config), indent=2))

    def save() -> None:
        state = {
            'model': model.state_dict(),
            'ema': ema.module.state_dict(),
            'optimizer': optimizer.state_dict(),
            'step': step,
            'elapsed': elapsed,
        }
        write_whole(state_file, lambda p: torch.save(state, p))
        weights = {k: v.contiguous() for k, v in ema.module.state_dict().items()}
        write_whole(out / 'ema.safetensors', lambda p: save_file(weights, p))

    steps_per_epoch = len(train) // config.batch_size
    total_steps = int(config.epochs * steps_per_epoch)
    progress_bar = tqdm(total=total_steps, initial=step, mininterval=10)
    last_eval = last_save = elapsed
    running, started, before = None, time.monotonic(), elapsed
    model.train()
    while True:
        progress = step / total_steps
        if config.minutes:
            progress = max(progress, elapsed / 60 / config.minutes)
        if progress >= 1:
            break
        epoch, position = divmod(step, steps_per_epoch)
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(config.seed + epoch))
        picked = order[position * config.batch_size : (position + 1) * config.batch_size].sort().values.numpy()
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        maps, mirrored = sample_views(
            len(picked), train.view, train.crops.shape[1] / 2, config.size, config.augment, generator
        )
        images = cut_views(torch.from_numpy(train.crops[picked]), maps, config.size)
        images = normalise(jitter_colour(images, config.augment, generator))
        keypoints = move_keypoints(torch.from_numpy(train.keypoints[picked]), maps, mirrored, flip_order)
        targets, weights = gaussian_heatmaps(
            keypoints, (config.size[0] // STRIDE, config.size[1] // STRIDE), config.sigma
        )

        for group in optimizer.param_groups:
            group['lr'] = config.lr * lr_factor(step, progress, config.warmup_steps)
        loss = heatmap_loss(model(images), targets, weights, config.sharpness)
        if not torch.isfinite(loss):
            raise FloatingPointError(f'the loss became {loss.item()} at step {step}')
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        step += 1
        ema.update(model, step=step)
        running = loss.item() if running is None else 0.98 * running + 0.02 * loss.item()
        elapsed = before + time.monotonic() - started
        progress_bar.update()
        progress_bar.set_postfix(loss=f'{running:.3f}', minutes=f'{elapsed / 60:.1f}', refresh=False)
        if elapsed - last_eval > config.eval_every * 60:
            last_eval = elapsed
            row = {
                'step': step,
                'samples': step * config.batch_size,
                'minutes': round(elapsed / 60, 2),
                'loss': round(running, 4),
                **validate(ema.module, val, config.size),
            }
            is_new = not (out / 'log.csv').exists()
            with open(out / 'log.csv', 'a', newline='') as log:
                writer = csv.DictWriter(log, row)
                if is_new:
                    writer.writeheader()
                writer.writerow(row)
            _logger.info('%s', row)
        if elapsed - last_save > config.save_every * 60:
            last_save = elapsed
            save()
    save()
    return ema.module.eval()
