"""A training run from its recipe to its curves."""

import json
import logging
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from ..errors import UserError
from ..files import check_folder, write_whole
from .accelerator import make_accelerator
from .box_task import BoxTask
from .config import DataConfig, TrainConfig
from .engine import Trainer
from .keypoint_task import KeypointTask
from .log import join_logs
from .pictures import draw_curves
from .recipes import stage_configs
from .state import WEIGHTS_FILE, disk_errors
from .task import Task

_logger = logging.getLogger(__name__)


def open_task(config: TrainConfig, progress: bool = True) -> Task:
    """What a recipe learns, with its data opened.

    Args:
        config: The recipe.
        progress: Show a bar.

    Raises:
        UserError: As for `open_caches`.
    """
    return (BoxTask if config.task == 'boxes' else KeypointTask).open(config, progress)


def preview(config: TrainConfig, path: str | Path, count: int = 12) -> None:
    """Draw a contact sheet of augmented samples with their targets.

    The crops are kept for the training where `out` or `data.cache` is set.

    Args:
        config: The recipe.
        path: Image to write.
        count: Number of samples.

    Raises:
        UserError: As for `open_caches`, or if the image cannot be written.
    """
    check_folder(Path(path).parent, '--preview')
    # of several stages the last, which is what the weights see last
    last = stage_configs(config)[-1][0]
    data = replace(last.data, val_labels=None)
    with tempfile.TemporaryDirectory(prefix='widehrnet-preview-', ignore_cleanup_errors=True) as folder:
        if data.cache is None and config.out == TrainConfig.out:
            data = replace(data, cache=folder)
        open_task(replace(last, data=data)).preview(Path(path), count)


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
    check_folder(config.out, 'out')
    accelerator = accelerator or make_accelerator(config)
    stages = stage_configs(config)
    largest = max((stage.size for stage, _ in stages), key=lambda size: size[0])
    with accelerator.local_main_process_first():
        opened = replace(config, size=largest)
        task = open_task(opened, progress and accelerator.is_local_main_process)
    if not config.stages:
        return _train(config, task, resume, progress, accelerator)
    return _train_stages(config, task, resume, progress, accelerator)


def _train(config: TrainConfig, task: Task, resume: bool, progress: bool, accelerator: Any) -> nn.Module:
    task = task.by(config)
    trainer = Trainer(task.start(), task, config, accelerator, resume, progress)
    _keep_recipe(config, accelerator)
    trained = trainer.run()
    if accelerator.is_main_process:
        _finish(trained, trainer, task, config)
    accelerator.wait_for_everyone()
    return trained


def _keep_recipe(config: TrainConfig, accelerator: Any) -> None:
    if accelerator.is_main_process:
        with disk_errors(Path(config.out)):
            write_whole(Path(config.out) / 'recipe.json', json.dumps(config.to_dict(), indent=2))


def _train_stages(config: TrainConfig, task: Task, resume: bool, progress: bool, accelerator: Any) -> nn.Module:
    out, started = Path(config.out), time.monotonic()
    stages = stage_configs(config)
    if not resume and (out / 'recipe.json').exists():
        raise UserError(f'{out} has a run already: go on with --resume, or choose another out.')
    accelerator.wait_for_everyone()
    _keep_recipe(config, accelerator)
    folders = [out / f'{i}-{stage.size[0]}x{stage.size[1]}' for i, (stage, _) in enumerate(stages, 1)]
    trained: nn.Module | None = None
    spent = 0.0
    for i, ((stage, share), folder) in enumerate(zip(stages, folders, strict=True)):
        stage = replace(stage, out=str(folder))
        if i:
            # what the stage before made, whatever the first one began with
            name = f'local-dir:{folders[i - 1] / "model"}'
            stage = replace(stage, model=replace(stage.model, name=name, weights=None, pretrained=True))
        if (folder / 'summary.json').exists() and i + 1 < len(stages):
            spent += json.loads((folder / 'summary.json').read_text())['minutes']
            continue
        if config.minutes:
            left = config.minutes - spent - (time.monotonic() - started) / 60
            stage = replace(stage, minutes=max(0.01, left * share / sum(s for _, s in stages[i:])))
        _logger.info('stage %d of %d: %dx%d, %s', i + 1, len(stages), *stage.size, folder)
        accelerator.free_memory()
        trained = _train(stage, task, resume, progress, accelerator)
        if accelerator.is_main_process:
            with disk_errors(out):
                for name in (WEIGHTS_FILE, 'validation.png'):
                    if (folder / name).exists():
                        write_whole(out / name, (folder / name).read_bytes())
                join_logs(folders[: i + 1], out / 'log.csv')
            draw_curves(out / 'log.csv', out / 'curves.png', task.figure, task.shown)
    assert trained is not None
    if accelerator.is_main_process:
        with disk_errors(out):
            shutil.copytree(folders[-1] / 'model', out / 'model', dirs_exist_ok=True)
            summaries = [json.loads((folder / 'summary.json').read_text()) for folder in folders]
            whole = {key: sum(s[key] for s in summaries) for key in ('steps', 'samples', 'minutes')}
            write_whole(
                out / 'summary.json',
                json.dumps({**summaries[-1], 'model': config.model.name, **whole, 'stages': summaries}, indent=2),
            )
    return trained


def _finish(model: nn.Module, trainer: Trainer, task: Task, config: TrainConfig) -> None:
    from ..hub import save_pretrained

    out = Path(config.out)
    data: DataConfig = config.data
    with disk_errors(out):
        save_pretrained(model, out / 'model', size=config.size, overwrite=True)
        summary = {
            'model': config.model.name,
            'labels': data.packs or data.labels,
            'people': len(task.train),
            'steps': trainer.step,
            'samples': trainer.step * config.batch_size,
            'minutes': round(trainer.elapsed / 60, 2),
            'processes': trainer.world,
            'loss': trainer.loss,
            f'val_{task.shown.lower()}': trainer.figure,
        }
        write_whole(out / 'summary.json', json.dumps(summary, indent=2))
    draw_curves(out / 'log.csv', out / 'curves.png', task.figure, task.shown)
    if task.val is not None:
        task.draw_validation(model, out / 'validation.png')
