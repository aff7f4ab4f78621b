"""The optimiser and the schedule of a run, and what of them a resumed run may change."""

import json
from pathlib import Path
from typing import Any

import torch
from timm.optim import Muon, create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from torch import Tensor, nn

from ..errors import UserError
from .config import TrainConfig
from .muon import StackedMuon

# of a run: the most that warm-up takes, and the most that the averaged weights look back
_WARM_UP, _AVERAGE = 1 / 20, 1 / 10

# what the state of a run is of
_FIXED = ('opt', 'batch_size', 'model.name', 'model.args', 'data.skeleton')


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """The optimiser of a recipe, timm's."""
    # one pass over all parameters, on the CPU too; PyTorch's own optimisers have it
    options: dict[str, Any] = {'fused': True} if config.opt in ('adam', 'adamw') else {}
    optimizer = create_optimizer_v2(
        model, opt=config.opt, lr=config.lr, weight_decay=config.weight_decay, layer_decay=config.layer_decay, **options
    )
    return StackedMuon(optimizer) if type(optimizer) is Muon else optimizer


def check_resume(folder: Path, config: TrainConfig) -> None:
    """Refuse to go on with what the state of a run is not of; all else may change.

    Raises:
        UserError: If a setting changed that cannot.
    """
    recipe = folder / 'recipe.json'
    if not recipe.exists():
        return
    try:
        before = json.loads(recipe.read_text())
    except ValueError as error:
        raise UserError(f'{recipe} is damaged: {error}.') from error
    now = json.loads(json.dumps(config.to_dict()))
    for name in _FIXED:
        *sections, key = name.split('.')
        was, wanted = before, now
        for section in sections:
            was, wanted = was.get(section, {}), wanted.get(section, {})
        if key in was and was[key] != wanted[key]:
            raise UserError(
                f'The run in {folder} has {name}={was[key]!r}, the recipe {wanted[key]!r}: the state of a run fits '
                f'only its own. Leave {name} as it is, or start in another folder with the weights of this one '
                '(--weights).'
            )


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Take over the state of a checkpoint; learning rates, weight decay and the like stay those of the recipe.

    Raises:
        UserError: If the groups of parameters are others.
    """
    groups = optimizer.param_groups
    sizes = [[len(group['params']) for group in some] for some in (state['param_groups'], groups)]
    if sizes[0] != sizes[1]:
        raise UserError(
            'The checkpoint has other groups of parameters than the recipe: layer_decay can change, but not be set '
            'anew or left out, and model.freeze not at all. Resume with the recipe of the run (recipe.json).'
        )
    own = [
        {**{k: v for k, v in group.items() if k != 'params'}, 'params': saved['params']}
        for group, saved in zip(groups, state['param_groups'], strict=True)
    ]
    optimizer.load_state_dict({**state, 'param_groups': own})
    # a checkpoint has no strides, and fused steps walk through memory: channels-last parameters need theirs alike
    for parameter, values in optimizer.state.items():
        for key, value in values.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                values[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def average_decay(decay: float, total_steps: int) -> float:
    """Decay of the averaged weights, which look back on no more than a tenth of the run."""
    return min(decay, max(0.0, 1 - 1 / max(1.0, _AVERAGE * total_steps)))


class Schedule:
    """The learning rate by the progress of a run: warm-up, then timm's schedule.

    Warm-up takes no more than a twentieth of the run, in steps or, where a budget of time ends it sooner, in time.

    Args:
        optimizer: Whose rates are set.
        config: The recipe.
        total_steps: Of the run, if no budget of time ends it.
        steps_per_epoch: For the milestones.

    Raises:
        UserError: If the schedule leaves the learning rate alone.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, config: TrainConfig, total_steps: int, steps_per_epoch: float):
        self.optimizer, self.total = optimizer, total_steps
        self.warm_up = min(config.warmup_steps, max(1, int(total_steps * _WARM_UP)), total_steps - 1)
        scheduler, _ = create_scheduler_v2(
            optimizer,
            config.sched,
            num_epochs=total_steps,
            decay_milestones=[round(m * steps_per_epoch) for m in config.milestones],
            decay_rate=config.decay_rate,
            min_lr=config.min_lr,
            warmup_lr=config.warmup_lr,
            warmup_epochs=self.warm_up,
        )
        if scheduler is None:
            raise UserError(f'sched {config.sched!r} leaves the learning rate alone; choose constant for that.')
        self.scheduler = scheduler

    def set(self, step: int, progress: float) -> float:
        """Set the learning rate of a step.

        Args:
            step: Steps done.
            progress: How much of the run is done, in steps or in time, 0..1.

        Returns:
            The largest of the groups.
        """
        warm = 1.0 if not self.warm_up else max(step / self.warm_up, progress / _WARM_UP)
        place = warm * self.warm_up if warm < 1 else max(step, self.warm_up, int(progress * self.total))
        self.scheduler.step(place)
        return max(float(group['lr']) for group in self.optimizer.param_groups)
