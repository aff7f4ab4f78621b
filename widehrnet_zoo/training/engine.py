"""The training loop."""

import logging
import math
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from tqdm import tqdm

from ..errors import UserError
from ..files import write_whole
from ..models.blocks import Fusion, TopDownNeck, Transition, WideInvertedResidual, WideStem
from ..pose.skeletons import skeleton_of
from ..weights.checkpoints import load_weights
from .accelerator import bf16_is_slow
from .batches import normalise
from .config import TrainConfig
from .log import RunLog
from .optimizer import Schedule, average_decay, check_resume, load_optimizer, make_optimizer
from .readings import Readings
from .start import freeze, input_stats, train_mode
from .state import (
    WEIGHTS_FILE,
    disk_errors,
    latest_checkpoint,
    load_checkpoint,
    pack_weights,
    save_checkpoint,
    seed_step,
)
from .stopping import StopRequest, few_collections
from .sync_norm import sync_norms
from .task import Task
from .teacher import Teacher

_logger = logging.getLogger(__name__)

_NOT_FINITE = (
    'Nothing was saved since. Lower lr, raise warmup_steps, or use precision float32, and start again with --resume.'
)


class Trainer:
    """One run, from its start or its last checkpoint to its end.

    Args:
        model: The network to start from.
        task: What it learns.
        config: The recipe.
        accelerator: From `make_accelerator`.
        resume: Go on from the newest checkpoint in `config.out`.
        progress: Show a bar.

    Raises:
        UserError: If a setting does not fit, or there is a run in `out` already and `resume` is not set.
    """

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        config: TrainConfig,
        accelerator: Any,
        resume: bool = False,
        progress: bool = True,
    ):
        self.config, self.task, self.accelerator = config, task, accelerator
        self.rank, self.world = accelerator.process_index, accelerator.num_processes
        self.main = accelerator.is_main_process
        self.device: torch.device = accelerator.device
        # a CPU has its numbers at once, and several processes must stop at the same step
        self.at_once = self.device.type != 'cuda' or self.world > 1
        self.has_teacher = False
        self.out = Path(config.out)
        self.batches = task.batches(model, self.device, self.rank, self.world)
        self.total_steps = max(1, math.ceil(config.epochs * self.batches.steps_per_epoch))
        found = latest_checkpoint(self.out)
        if found and not resume:
            raise UserError(f'{self.out} has a run already ({found.name}): go on with --resume, or choose another out.')
        if found:
            check_resume(self.out, config)
        state = load_checkpoint(found) if found else None

        freeze(model, config.model.freeze)
        self.stats = input_stats(model)
        self.teacher = None
        if config.teacher.model:
            bf16 = config.precision == 'bf16'
            self.teacher = Teacher(config.teacher, skeleton_of(model), self.device, config.fused, bf16)
        model.to(self.device)
        if config.channels_last:
            model.to(memory_format=torch.channels_last)
        if state:
            self._load(model, state['model'])
        decay = average_decay(config.ema_decay, self.total_steps)
        self.ema = ModelEmaV3(model, decay=decay, use_warmup=True) if config.ema_decay else None
        if self.ema is not None and state:
            self._load(self.ema.module, state['ema'] or state['model'])
        self.model = self._prepare_model(model)
        optimizer = make_optimizer(self.model, config)
        if state:
            load_optimizer(optimizer, state['optimizer'])
        self.schedule = Schedule(optimizer, config, self.total_steps, self.batches.steps_per_epoch)
        self.network, self.optimizer = accelerator.prepare(self.model, optimizer)
        self.step = int(state['step']) if state else 0
        self.before = float(state['elapsed']) if state else 0.0
        self.loss: float | None = state['loss'] if state else None
        # checkpoints of before have it under another name
        self.figure: float | None = state.get('figure', state.get('pck')) if state else None
        self.last_eval = state['last_eval'] if state else [0, 0.0]
        self.started = self.last_save = time.monotonic()
        self.log = RunLog(self.out, task.figure, self.step, config.tensorboard) if self.main else None
        self.progress = progress and accelerator.is_local_main_process
        self.stopping = StopRequest()
        self.readings = Readings()
        self.compiling = 0.0

    def _prepare_model(self, model: nn.Module) -> nn.Module:
        config = self.config
        if config.precision == 'bf16' and self.main and self.device.type == 'cpu' and bf16_is_slow():
            _logger.warning(
                'This processor has no instructions for bfloat16: PyTorch is many times slower with it here than with '
                'float32. Use precision float32.'
            )
        if config.grad_checkpointing:
            model.set_grad_checkpointing(True)  # type: ignore[operator]
        if config.sync_bn and self.world > 1:
            model = sync_norms(model, self.device)
        if config.fused:
            if self.device.type != 'cpu':
                raise UserError('Fused kernels are for the CPU: leave fused out on an accelerator.')
            from ..kernels.fused import fuse_training

            fuse_training(model)
        if config.compile != 'none':
            # blocks of several widths are one piece of code, and so are those of the stage before, of another size
            from torch import _dynamo

            torch.compiler.reset()
            # the name depends on PyTorch's version
            name = 'recompile_limit' if hasattr(_dynamo.config, 'recompile_limit') else 'cache_size_limit'
            setattr(_dynamo.config, name, 64)
        if config.compile == 'model':
            model.compile()
        elif config.compile == 'blocks':
            for module in model.modules():
                if isinstance(module, (WideStem, WideInvertedResidual, Fusion, Transition, TopDownNeck)):
                    module.compile(dynamic=False)
        return model

    @staticmethod
    def _load(model: nn.Module, state: dict[str, Tensor]) -> None:
        try:
            load_weights(model, state, 'the checkpoint')
        except UserError as error:
            raise UserError(f'{error} Resume with the recipe of the run (recipe.json in its folder).') from error

    @property
    def elapsed(self) -> float:
        """Seconds of training, those before a resume included."""
        return self.before + time.monotonic() - self.started

    @property
    def kept(self) -> nn.Module:
        """The model that is validated and kept: the averaged one, if there is one."""
        return self.model if self.ema is None else self.ema.module

    def _agree(self) -> tuple[float, bool]:
        """The main process's clock, and whether any was asked to stop: all must decide alike."""
        elapsed, stop = self.elapsed, self.stopping.asked
        if self.world > 1:
            shared = torch.tensor([elapsed if self.main else 0.0, float(stop)], device=self.device)
            dist.all_reduce(shared)
            elapsed, stop = float(shared[0]), bool(shared[1] > 0)
        return elapsed, stop

    def run(self) -> nn.Module:
        """Train to the end.

        Returns:
            The model that is kept, in evaluation mode.

        Raises:
            UserError: If the loss is not finite, or the disk is full.
            KeyboardInterrupt: If the run was asked to stop; its state was saved first.
        """
        bar = tqdm(
            total=self.total_steps,
            initial=self.step,
            disable=not self.progress,
            desc='train',
            mininterval=1,
            unit='step',
        )
        train_mode(self.model)
        with self.stopping.listen(), few_collections(), bar:
            for batch in self.batches.stream(self.step):
                elapsed, stop = self._agree()
                progress = self.step / self.total_steps
                if self.config.minutes:
                    # what compiling took is part of the budget, but no progress
                    budget = self.config.minutes * 60
                    progress = max(progress, (elapsed - self.compiling) / max(1.0, budget - self.compiling))
                if progress >= 1 or stop:
                    break
                compiles = self.compiling == 0 and self.config.compile != 'none'
                if compiles and self.main:
                    _logger.warning('The first step compiles the network (compile: %s) ...', self.config.compile)
                row = self._train_step(batch, progress, elapsed)
                if compiles:
                    if self.device.type == 'cuda':
                        torch.cuda.synchronize(self.device)
                    self.compiling = max(1e-3, self.elapsed - elapsed)
                    if self.main:
                        _logger.warning('Compiled in %.0f s.', self.compiling)
                if self._eval_due(elapsed):
                    # its row is written with the step's numbers, as soon as they are there
                    row[f'val_{self.task.figure}'] = self._evaluate(elapsed)
                save = self.main and time.monotonic() - self.last_save >= self.config.save_minutes * 60
                self._report(bar, wait=save)
                bar.update()
                if self.config.minutes and progress > 0:
                    # what tqdm works the time left out from
                    bar.total = max(self.step, round(self.step / progress))
                if save:
                    self.save()
        self._report(bar, wait=True)
        if self.step == 0 and self.main and not stop:
            _logger.warning('The minutes were over before the first step: the model is as it began.')
        if self.task.val is not None and self.last_eval[0] != self.step and not stop:
            self._write(self._now({f'val_{self.task.figure}': self._evaluate(elapsed)}, elapsed), bar)
        self.save()
        if stop:
            raise KeyboardInterrupt(f'stopped at step {self.step}; go on with --resume')
        if self.log is not None:
            self.log.close()
        if self.ema is None:
            # without what the accelerator laid around its forward
            return self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False).eval()
        return self.ema.module.eval()

    def _train_step(self, batch: Any, progress: float, elapsed: float) -> dict[str, float]:
        config = self.config
        lr = self.schedule.set(self.step, progress)
        seed_step(config.seed, self.step, self.rank)
        images = normalise(batch.pixels, *self.stats)
        if config.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        # not through the accelerator, whose precision is fixed for as long as Python runs
        with torch.autocast(self.device.type, torch.bfloat16, enabled=config.precision == 'bf16'):
            maps = self.network(images).float()
        loss, to_labels = self.task.losses(maps, batch)
        loss = loss * self.world
        teacher_loss = torch.zeros((), device=self.device) if to_labels is None else to_labels * self.world
        if self.teacher is not None:
            teacher_loss = teacher_loss + self.teacher.loss(maps, batch.pixels, config.target.sharpness)
        total_loss = loss + config.teacher.weight * teacher_loss
        shown = torch.stack((loss.detach(), teacher_loss.detach()))
        if self.world > 1:
            dist.all_reduce(shown)
            shown /= self.world
        self.optimizer.zero_grad(set_to_none=True)
        if self.at_once:
            # before the weights are touched; every process sees the same sum and stops
            values = shown.tolist()
            if not all(map(math.isfinite, values)):
                raise UserError(self._diagnose(values, batch, maps, lr))
        self.accelerator.backward(total_loss)
        norm = torch.zeros((), device=self.device)
        if config.clip_grad:
            norm = self.accelerator.clip_grad_norm_(self.model.parameters(), config.clip_grad)
            if self.at_once and not math.isfinite(norm):
                raise UserError(self._diagnose(values, batch, maps, lr, 'gradient'))
        self.optimizer.step()
        self.step += 1
        if self.ema is not None:
            self.ema.update(self.model, step=self.step)
        row = self._now({'lr': lr}, elapsed)
        if self.step % self.config.log_steps == 0 or self.step == 1:
            row[f'train_{self.task.figure}'] = self.task.train_figure(maps.detach(), batch)
        self.has_teacher = self.teacher is not None or to_labels is not None
        self.readings.add(torch.cat((shown, norm.detach().float().view(1))), row)
        return row

    def _now(self, values: dict[str, float], elapsed: float) -> dict[str, float]:
        epoch = self.step / self.batches.steps_per_epoch
        samples = self.step * self.config.batch_size
        return {'step': self.step, 'epoch': epoch, 'samples': samples, 'minutes': elapsed / 60, **values}

    def _diagnose(self, values: list[float], batch: Any, maps: Tensor, lr: float, what: str = 'loss') -> str:
        bad = torch.nonzero(~torch.isfinite(maps.flatten(1)).all(1)).flatten().tolist()
        weights = [name for name, p in self.model.named_parameters() if not torch.isfinite(p).all()]
        if not torch.isfinite(batch.pixels).all():
            cause = 'the images of the batch are not finite'
        elif weights:
            cause = f'{len(weights)} weights are not finite, the first {weights[0]}'
        elif bad:
            names = ', '.join(self.task.file(batch, i) for i in bad[:3])
            cause = f'the network overflows on {len(bad)} of {len(maps)} samples ({names})'
        else:
            cause = 'maps and weights are finite, so the loss or its gradient overflows'
        return (
            f'The {what} is not finite at step {self.step}: loss {values[0]}, teacher loss {values[1]}, learning rate '
            f'{lr:.3g}; {cause}. {_NOT_FINITE}'
        )

    def _eval_due(self, elapsed: float) -> bool:
        if self.task.val is None:
            return False
        if self.step >= self.total_steps:
            return True
        step, seconds = self.last_eval
        if self.config.eval_minutes:
            return elapsed - seconds >= self.config.eval_minutes * 60
        return self.step - step >= self.config.eval_epochs * self.batches.steps_per_epoch

    def _evaluate(self, elapsed: float) -> float:
        if self.world > 1:
            # each process saw its own part of the batch; what is kept are the main one's statistics
            for buffer in self.kept.buffers():
                dist.broadcast(buffer, 0)
        self.figure = self.task.validate(self.kept.eval(), self.device, self.rank, self.world)
        train_mode(self.model)
        self.last_eval = [self.step, elapsed]
        return self.figure

    def _report(self, bar: tqdm, wait: bool = False) -> None:
        """Look at the steps whose numbers have come; with `wait` at all, as before anything is saved."""
        for values, row in self.readings.read(wait):
            loss, teacher_loss, norm = values
            if not all(map(math.isfinite, values)):
                raise UserError(
                    f'The loss or its gradient was not finite at step {row["step"] - 1}: loss {loss}, teacher loss '
                    f'{teacher_loss}, norm of the gradient {norm}, learning rate {row["lr"]:.3g}. {_NOT_FINITE}'
                )
            self.loss = loss if self.loss is None else 0.98 * self.loss + 0.02 * loss
            row['loss'] = loss
            if self.has_teacher:
                row['teacher_loss'] = teacher_loss
            if self.config.clip_grad:
                row['grad_norm'] = norm
            self._write(row, bar)

    def _write(self, row: dict[str, float], bar: tqdm) -> None:
        trained, found = (row.get(f'{kind}_{self.task.figure}') for kind in ('train', 'val'))
        if self.log is not None and not (trained is None and found is None):
            self.log.write(row)
        shown = {} if self.loss is None else {'loss': f'{self.loss:.4f}'}
        if self.figure is not None:
            shown[self.task.shown] = f'{self.figure:.3f}'
        elif trained is not None:
            shown[f'train {self.task.shown}'] = f'{trained:.3f}'
        bar.set_postfix(shown, refresh=False)

    def save(self) -> None:
        """Write a checkpoint, and the kept weights in float16 beside it; only the main process does."""
        if not self.main:
            return
        state = {'elapsed': self.elapsed, 'loss': self.loss, 'figure': self.figure, 'last_eval': self.last_eval}
        optimizer = getattr(self.optimizer, 'optimizer', self.optimizer)
        save_checkpoint(
            self.out,
            self.step,
            self.model.state_dict(),
            optimizer.state_dict(),
            None if self.ema is None else self.ema.module.state_dict(),
            state,
        )
        with disk_errors(self.out):
            write_whole(self.out / WEIGHTS_FILE, pack_weights(self.kept.state_dict()))
        self.last_save = time.monotonic()
