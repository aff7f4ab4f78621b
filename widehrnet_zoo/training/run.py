"""A training run from its recipe to its pictures."""

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from ..errors import UserError
from ..files import write_whole
from .config import DataConfig, TrainConfig
from .crops import CropCache
from .engine import Trainer, make_accelerator
from .keypoint_task import KeypointTask
from .people import People, read_people
from .pictures import draw_curves
from .state import disk_errors
from .task import Task

__all__ = ['open_caches', 'preview', 'train']

_logger = logging.getLogger(__name__)


def _read(config: TrainConfig) -> tuple[People, People | None]:
    data = config.data
    if not data.labels or not data.images:
        raise UserError('The recipe does not say what to learn from: set data.labels and data.images.')
    people = read_people(data.labels, data.skeleton, config.teacher.keypoints, data.shares, data.keypoint_weights)
    if not data.val_labels:
        return people, None
    val = read_people(data.val_labels, people.skeleton)
    return people, val


def open_caches(config: TrainConfig, progress: bool = True) -> tuple[CropCache, CropCache | None]:
    """Read the labels of a recipe and cut, or find, the crops.

    Args:
        config: The recipe.
        progress: Show a bar.

    Returns:
        Training and validation crops; `None` without validation labels.

    Raises:
        UserError: If a label file or too many images are broken, or the disk is full.
    """
    data = config.data
    people, val = _read(config)

    def build(who: People, images: str) -> CropCache:
        return CropCache.build(
            who,
            images,
            data.cache or Path(config.out) / 'cache',
            size=data.crop_size or round(config.size[0] * data.margin),
            margin=data.margin,
            aspect=config.size[1] / config.size[0],
            max_bad=data.max_bad_images,
            workers=data.workers,
            progress=progress,
        )

    assert data.images is not None
    return build(people, data.images), None if val is None else build(val, data.val_images or data.images)


def open_task(config: TrainConfig, progress: bool = True) -> Task:
    """What a recipe learns, with its data opened.

    Args:
        config: The recipe.
        progress: Show a bar.

    Raises:
        UserError: As for `open_caches`.
    """
    if config.task == 'boxes':
        from .box_task import BoxTask

        return BoxTask.open(config, progress)
    return KeypointTask(config, *open_caches(config, progress))


def preview(config: TrainConfig, path: str | Path, count: int = 12) -> None:
    """Draw a contact sheet of augmented samples with their targets.

    Args:
        config: The recipe.
        path: Picture to write.
        count: Number of samples.

    Raises:
        UserError: As for `open_caches`.
    """
    small = replace(config, data=replace(config.data, val_labels=None))
    open_task(small).preview(path, count)


def train(config: TrainConfig, resume: bool = False, progress: bool = True, accelerator: Any = None) -> nn.Module:
    """Train by a recipe.

    In `config.out` stand afterwards: `model/` (for `local-dir:`), `log.csv`, `recipe.json`, `summary.json`,
    `curves.png`, `validation.png`, and the last checkpoint.

    Args:
        config: The recipe.
        resume: Go on from the newest checkpoint in `config.out`, if there is one.
        progress: Show bars.
        accelerator: Hugging Face's accelerator; by default one is made.

    Returns:
        The trained model, in evaluation mode.

    Raises:
        UserError: If something does not fit, is broken, or the loss is not finite.
        KeyboardInterrupt: If the run was asked to stop; its state was saved first.
    """
    accelerator = accelerator or make_accelerator(config)
    out = Path(config.out)
    with accelerator.local_main_process_first():
        task = open_task(config, progress and accelerator.is_local_main_process)
    trainer = Trainer(task.start(), task, config, accelerator, resume, progress)
    if accelerator.is_main_process:
        with disk_errors(out):
            write_whole(out / 'recipe.json', json.dumps(config.to_dict(), indent=2))
    trained = trainer.run()
    if accelerator.is_main_process:
        _finish(trained, trainer, task, config)
    accelerator.wait_for_everyone()
    return trained


def _finish(model: nn.Module, trainer: Trainer, task: Task, config: TrainConfig) -> None:
    from ..hub import save_pretrained

    out = Path(config.out)
    data: DataConfig = config.data
    with disk_errors(out):
        save_pretrained(model, out / 'model', size=config.size, overwrite=True)
        summary = {
            'model': config.model.name,
            'labels': data.labels,
            'people': task.train_size,
            'steps': trainer.step,
            'samples': trainer.step * config.batch_size,
            'minutes': round(trainer.elapsed / 60, 2),
            'processes': trainer.world,
            'loss': trainer.loss,
            f'val_{task.shown.lower()}': trainer.figure,
        }
        write_whole(out / 'summary.json', json.dumps(summary, indent=2))
    draw_curves(out / 'log.csv', out / 'curves.png', task.figure, task.shown)
    if task.has_val:
        task.draw_validation(model, out / 'validation.png')
