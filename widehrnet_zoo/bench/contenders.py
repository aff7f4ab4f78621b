"""What is timed: a network, the path that runs it, and its precision."""

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ..deployment.graph import GraphNetwork
from ..deployment.network import deploy
from ..engines.exported import onnx_session, openvino_runner
from ..errors import UserError
from ..export.export import FORMATS, export
from ..extras import require
from ..models.widehrnet import WideHRNet

PATHS = {
    'eager': 'PyTorch, the network as it was trained',
    'deployed': 'PyTorch, widehrnet_zoo.deploy()',
    'kernels': 'the compiled kernels of this package, the default of PoseEstimator on a CPU',
    'compiled': 'torch.compile with frozen weights, of the deployed network where there is one',
    'aot': 'AOTInductor package, of the deployed network where there is one',
    'torch-export': '`torch.export` file of `widehrnet export`',
    'torchscript': 'TorchScript file of `widehrnet export`',
    'onnx': 'ONNX Runtime, file of `widehrnet export`',
    'openvino': 'OpenVINO, file of `widehrnet export`',
    'train': 'PyTorch, a training step of AdamW on the network as it was trained',
    'train-fused': 'PyTorch, a training step of AdamW with the fused kernels of this package',
}
"""The paths, and what each is."""

PRECISIONS = ('f32', 'bf16', 'int8')

Runner = Callable[[npt.NDArray[np.float32]], Any]

TRAINING = {'train', 'train-fused'}
"""The paths that are training steps, with three times the products of a forward pass."""

OURS = {'deployed', 'kernels', 'torch-export', 'train-fused'}
"""The paths that only networks of this package have, or that are the same as another path for others."""

ALLOWED = {
    'f32': set(PATHS),
    'bf16': {'eager', 'deployed', 'kernels', 'compiled', 'aot', 'openvino'} | TRAINING,
    'int8': {'kernels', 'openvino'},
}
"""The paths that run in each precision."""


@dataclass(frozen=True)
class Contender:
    """One line of the table.

    Attributes:
        model: Name in timm's registry, or an ONNX file.
        path: A key of `PATHS`.
        precision: One of `PRECISIONS`.
        size: Height and width.
        file: What `prepare` wrote, or the ONNX file itself.
        weights: File of weights, for networks of this package.
    """

    model: str
    path: str
    precision: str
    size: tuple[int, int]
    file: str | None = None
    weights: str | None = None

    @property
    def label(self) -> str:
        """Name in the table."""
        return f'{Path(self.model).name} {self.path} {self.precision}'

    def module(self) -> nn.Module:
        """The network as it was trained, in evaluation mode.

        Weights are random where none are given: they have no part in the time.

        Raises:
            UserError: If there is no such network.
        """
        return copy.deepcopy(_module(self.model, self.weights, self.size))

    def prepare(self, folder: Path, crops: npt.NDArray[np.uint8] | None = None) -> 'Contender':
        """Write the file that the path runs, if it runs one.

        Args:
            folder: Where to.
            crops: Real crops, for int8.

        Raises:
            UserError: If the path does not run this model in this precision.
        """
        if self.file is not None or self.path in {'eager', 'deployed', 'kernels', 'compiled'} | TRAINING:
            return self
        name = f'{Path(self.model).name}-{self.path}-{self.precision}'
        module = self.module()
        ours = isinstance(module, WideHRNet)
        if self.path in FORMATS and ours:
            file = folder / f'{name}{FORMATS[self.path]}'
            export(module, file, size=self.size, precision=self.precision, crops=crops)
            return replace(self, file=str(file))
        if self.precision == 'int8':
            raise UserError(f'{self.model} {self.path}: int8 is made for networks of this package only.')
        example = torch.zeros(2, 3, *self.size)
        if self.path == 'onnx':
            require('onnxscript', 'export')
            file = folder / f'{name}.onnx'
            batch = ({0: torch.export.Dim('batch')},)
            torch.onnx.export(
                module,
                (example,),
                str(file),
                dynamo=True,
                external_data=False,
                verbose=False,
                dynamic_shapes=batch,
            )
        elif self.path == 'openvino':
            ov = require('openvino', 'export')
            file = folder / f'{name}.xml'
            ov.save_model(ov.convert_model(module, example_input=example), str(file), compress_to_fp16=False)
        elif self.path == 'aot':
            from torch._inductor import aoti_compile_and_package

            file = folder / f'{name}.pt2'
            with torch.no_grad():
                fast = _fast(module, self.precision)
                traced = torch.export.export(fast, (example[:1].to(_dtype(self.precision)),))
                aoti_compile_and_package(traced, package_path=str(file), inductor_configs={'freezing': True})
        else:
            file = folder / f'{name}.torchscript'
            torch.jit.save(torch.jit.freeze(torch.jit.trace(module, example)), str(file))
        return replace(self, file=str(file))

    def open(self, threads: int) -> Runner:
        """Make it ready to run.

        Returns:
            Normalised images (B, 3, H, W) to whatever the network gives.
        """
        torch.set_num_threads(threads)
        if self.path == 'onnx':
            session = onnx_session(Path(str(self.file)), threads=threads)
            name = session.get_inputs()[0].name
            return lambda images: session.run(None, {name: images})[0]
        if self.path == 'openvino':
            model = require('openvino', 'export').Core().read_model(self.file)
            return openvino_runner(model, 'bf16' if self.precision == 'bf16' else 'f32', threads)
        if self.path in TRAINING:
            return _training(self.module(), self.path == 'train-fused', self.precision)
        if self.path == 'torchscript':
            module = torch.jit.load(str(self.file))
        elif self.path == 'torch-export':
            module = torch.export.load(str(self.file)).module()
        elif self.path == 'aot':
            from torch._inductor import aoti_load_package

            module = aoti_load_package(str(self.file))
        else:
            module = self._live(self.module())
        # the kernels of this package convert inside
        dtype = torch.float32 if self.path == 'kernels' else _dtype(self.precision)

        def run(images: npt.NDArray[np.float32]) -> Any:
            with torch.inference_mode():
                return module(torch.from_numpy(images).to(dtype))

        return run

    def _live(self, module: nn.Module) -> Any:
        if self.path == 'eager':
            return module.to(_dtype(self.precision))
        if self.path == 'compiled':
            import torch._inductor.config as inductor

            inductor.freezing = True
            if isinstance(module, WideHRNet):
                # its products on runs of channels compile to less than convolutions and slices do
                module = deploy(module)
            # one graph for each batch: shapes that are known make faster loops
            return torch.compile(module.to(_dtype(self.precision)), dynamic=False)
        deployed = deploy(module)
        if self.path == 'kernels':
            from ..kernels.native import accelerate

            return accelerate(deployed, self.precision)
        return deployed.to(_dtype(self.precision))


@functools.cache
def _module(model: str, weights: str | None, size: tuple[int, int]) -> nn.Module:
    import timm

    from ..engines.opening import open_backend
    from ..engines.pytorch import TorchBackend

    if weights is not None:
        return cast(TorchBackend, open_backend(model, weights, 'cpu', size)).module.eval()
    torch.manual_seed(0)
    try:
        module = timm.create_model(model)
    except RuntimeError as error:
        raise UserError(f'timm has no model {model!r}: see `timm.list_models()`.') from error
    if isinstance(module, WideHRNet):
        _settle(module)
    return module.eval()


def _training(module: nn.Module, fused: bool, precision: str) -> Runner:
    module.train().to(memory_format=torch.channels_last)
    if fused:
        from ..kernels.fused import fuse_training

        fuse_training(module)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-5, fused=True)

    def run(images: npt.NDArray[np.float32]) -> Any:
        x = torch.from_numpy(images).contiguous(memory_format=torch.channels_last)
        with torch.autocast('cpu', torch.bfloat16, enabled=precision == 'bf16'):
            loss = module(x).float().square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.item()

    return run


def _settle(module: WideHRNet) -> None:
    """Random weights whose activations are of the size of trained ones, so that low precisions can be checked."""
    # the init of the paper would leave denormal numbers in the deep layers, which are slow
    for m in module.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.kaiming_normal_(m.weight)
        elif isinstance(m, nn.BatchNorm2d):
            m.momentum = 1.0
    with torch.no_grad():
        module.train()(torch.randn(8, module.in_chans, 64, 64))


def _dtype(precision: str) -> torch.dtype:
    return torch.bfloat16 if precision == 'bf16' else torch.float32


def _fast(module: nn.Module, precision: str) -> nn.Module:
    fast = GraphNetwork(deploy(module)) if isinstance(module, WideHRNet) else module
    return fast.to(_dtype(precision)).to(memory_format=torch.channels_last)
