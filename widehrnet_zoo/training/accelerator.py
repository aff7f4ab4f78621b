"""Hugging Face's accelerator, set up as a recipe says."""

import datetime
import logging
import os
from typing import Any

import torch

from ..errors import UserError
from ..extras import require
from .config import TrainConfig

_logger = logging.getLogger(__name__)

_FOREIGN = ('ACCELERATE_USE_DEEPSPEED', 'ACCELERATE_USE_FSDP', 'ACCELERATE_USE_MEGATRON_LM')

_RECIPES = {
    'ACCELERATE_MIXED_PRECISION': 'precision={0.precision}',
    'ACCELERATE_GRADIENT_ACCUMULATION_STEPS': 'batch_size={0.batch_size} and no accumulation of gradients',
    'ACCELERATE_DYNAMO_BACKEND': 'compile={0.compile}',
}


def bf16_is_slow() -> bool:
    """Whether this CPU has no instructions for bfloat16: PyTorch takes many times as long with it as with float32."""
    return torch.backends.cpu.get_cpu_capability() == 'AVX2'


def make_accelerator(config: TrainConfig) -> Any:
    """Hugging Face's accelerator for a run: one process, or this one's place among several.

    What `accelerate launch` or `accelerate config` say of precision, accumulation of gradients and compiling is left
    aside, with a word: the recipe says it.

    Raises:
        UserError: If they ask for a way to share the model out that this training does not know.
    """
    accelerate: Any = require('accelerate', 'train')
    for name in _FOREIGN:
        if os.environ.get(name, '').lower() in ('1', 'true', 'yes', 'on'):
            raise UserError(f'{name} is set, by accelerate launch or its config: training here is data-parallel only.')
    for name, setting in _RECIPES.items():
        if os.environ.get(name, 'no').lower() not in ('no', '1', ''):
            _logger.warning('%s=%s is left aside: the recipe says %s.', name, os.environ[name], setting.format(config))
    handlers = [
        accelerate.InitProcessGroupKwargs(timeout=datetime.timedelta(hours=3)),
        accelerate.DistributedDataParallelKwargs(gradient_as_bucket_view=True),
    ]
    return accelerate.Accelerator(
        cpu=config.cpu,
        mixed_precision='no',
        # given as a plugin, for the variable of the environment goes before the number
        gradient_accumulation_plugin=accelerate.utils.GradientAccumulationPlugin(num_steps=1),
        dynamo_backend='no',
        kwargs_handlers=handlers,
    )
