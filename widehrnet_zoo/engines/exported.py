"""Exported files as backends of `PoseEstimator`: crops in, heatmaps out. PyTorch is needed for its own formats only."""

import os
import threading
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import UserError
from ..extras import needs_pytorch, require
from ..kernels.library import choose_variant
from ..kernels.saved import read_program
from ..pose.crops import normalise
from .fork import check_fork
from .metadata import KEY, ExportMetadata

Array = npt.NDArray[Any]
Runner = Callable[[Array], Array]


class Opened(NamedTuple):
    """A file that its runtime has opened.

    Attributes:
        metadata: What the file says about itself.
        run: What it takes to what it gives.
        heatmaps: Of a pipeline that gives them besides, uint8 crops (B, H, W, 3) to heatmaps (B, K, H/4, W/4).
        device: Where it runs.
        any_size: Whether it takes inputs of any height and width, multiples of 32.
    """

    metadata: ExportMetadata
    run: Runner
    heatmaps: Runner | None = None
    device: str = 'cpu'
    any_size: bool = False


_MOST_SHAPES = 8
"""Shapes of inputs that OpenVINO keeps a compiled network for."""


class ExportedBackend:
    """An exported network.

    Attributes:
        path: The file.
        runtime: What runs it.
        device: Where.
        metadata: What the file says about itself.
        skeleton: What the keypoints are.
        size: Height and width of the input.
        mean: Of the input, RGB in 0..1.
        std: Of the input.
        padding: Growth of a person's box to the network's view.
        score_map: From heatmap peaks to chances, or `None`.
        any_size: Whether it takes inputs of other heights and widths, multiples of 32.
    """

    def __init__(self, path: Path, runtime: str, opened: Opened, threads: int | None = None):
        self.path = path
        self._process, self._threads = os.getpid(), threads
        self.runtime = runtime
        self.device = opened.device
        self.metadata = metadata = opened.metadata
        self.skeleton = metadata.skeleton
        self.size = metadata.size
        self.mean = metadata.mean
        self.std = metadata.std
        self.padding = metadata.padding
        self.score_map = metadata.score_map
        self.any_size = opened.any_size
        self._run, self._heatmaps = opened.run, opened.heatmaps

    @property
    def gives_heatmaps(self) -> bool:
        """Whether `from_crops` can be called: not of pipelines that give keypoints or boxes alone."""
        return not self.metadata.pipeline or self._heatmaps is not None

    def __reduce__(self) -> tuple[Any, ...]:
        # a copy, also one in another process, opens the file anew
        return open_backend, (self.path.absolute(), self.device, self._threads)

    def __call__(self, images: npt.NDArray[np.float32], /) -> Array:
        """Normalised crops (B, 3, H, W) to heatmaps (B, K, H/4, W/4).

        Raises:
            UserError: If the file normalises by itself; or if this is another process, forked from the one that opened
                the file.
        """
        if self.metadata.pipeline:
            raise UserError(f'{self.path.name} takes uint8 crops and normalises them itself: call run(crops).')
        return self.run(images)

    def run(self, images: Array) -> Array:
        """What the file itself takes to what it gives; see `ExportMetadata.pipeline`.

        Raises:
            UserError: If the runtime cannot run it.
        """
        return self._checked(self._run, images)

    def from_crops(self, crops: npt.NDArray[np.uint8], mean: Sequence[float], std: Sequence[float]) -> Array:
        """uint8 crops (B, H, W, 3) to heatmaps (B, K, H/4, W/4).

        Args:
            crops: Of the network's size.
            mean: Of the input, RGB in 0..1.
            std: Likewise.

        Raises:
            UserError: If the file gives no heatmaps, or normalises in another way.
        """
        if not self.metadata.pipeline:
            return self(normalise(crops, mean, std))
        if self._heatmaps is None:  # from an older version, or in one of PyTorch's formats
            raise UserError(f'{self.path.name} gives keypoints or boxes alone, and no heatmaps.')
        if (tuple(mean), tuple(std)) != (self.mean, self.std):
            raise UserError(f'{self.path.name} normalises crops itself: leave mean and std out.')
        return self._checked(self._heatmaps, crops)

    def _checked(self, runner: Runner, images: Array) -> Array:
        if self.runtime in ('TorchScript', 'torch.export'):
            check_fork()
        elif os.getpid() != self._process and self.runtime in ('ONNX Runtime', 'OpenVINO'):
            raise UserError(
                f'{self.path.name} was opened before this process was forked, and {self.runtime} would wait here '
                "without end: open it in each worker, or start workers by multiprocessing's 'spawn'."
            )
        try:
            return runner(images)
        except Exception as error:  # each runtime has its own
            raise UserError(f'{self.path} cannot be run by {self.runtime}: {_reason(error)}') from error


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


def onnx_session(path: Path, device: str = 'cpu', threads: int | None = None) -> Any:
    """Open a graph with ONNX Runtime.

    Args:
        path: The `.onnx`.
        device: A provider that is installed, see `open_backend`.
        threads: Of the runtime; by default its own choice.

    Returns:
        An `onnxruntime.InferenceSession`.

    Raises:
        UserError: If the runtime cannot open it or does not have the device.
    """
    ort = require('onnxruntime', 'export')
    providers = _providers(ort, device)
    options = ort.SessionOptions()
    # what goes wrong is told by an exception
    options.log_severity_level = 4
    if threads:
        options.intra_op_num_threads = threads
    try:
        # its fallback would try the same again, and print that it does
        session = ort.InferenceSession(str(path), options, providers=providers, enable_fallback=0)
    except Exception as error:  # onnxruntime's errors have no common class of their own
        raise UserError(f'ONNX Runtime cannot open {path}: {_reason(error)}') from error
    if session.get_providers()[0] != providers[0][0]:
        raise UserError(f'ONNX Runtime cannot start {device}: see what its CUDA and driver need, or leave device out.')
    if not session.get_inputs():
        raise UserError(f'{path} is a graph without an input: expected one that takes crops.')
    return session


def _onnx(path: Path, device: str, threads: int | None) -> Opened:
    session = onnx_session(path, device, threads)
    try:
        text = session.get_modelmeta().custom_metadata_map.get(KEY)
    except UnicodeDecodeError:
        text = None
    metadata = ExportMetadata.from_json(text, path.name)
    name = session.get_inputs()[0].name

    def runner(index: int) -> Runner:
        outputs = [session.get_outputs()[index].name]
        return lambda images: session.run(outputs, {name: images})[0]

    fixed = all(isinstance(side, int) for side in session.get_inputs()[0].shape[1:])
    heatmaps = runner(1) if len(session.get_outputs()) > 1 else None
    return Opened(metadata, runner(0), heatmaps, device, any_size=not fixed)


def _providers(ort: Any, device: str) -> list[tuple[str, dict[str, int]]]:
    """What runs the graph, and what runs the nodes that it has no kernels for."""
    name, _, number = device.partition(':')
    there = {provider.removesuffix('ExecutionProvider').lower(): provider for provider in ort.get_available_providers()}
    if name not in there or (number and not number.isdecimal()):
        hint = ' (install onnxruntime-gpu in place of onnxruntime)' if name == 'cuda' else ''
        raise UserError(f'The installed ONNX Runtime has no {device}{hint}: choose {", ".join(sorted(there))}.')
    providers: list[tuple[str, dict[str, int]]] = [(there[name], {'device_id': int(number)} if number else {})]
    return providers if name == 'cpu' else [*providers, (there['cpu'], {})]


def _openvino(path: Path, device: str, threads: int | None) -> Opened:
    try:
        model = require('openvino', 'export').Core().read_model(str(path))
        text = str(model.get_rt_info(KEY).value) if model.has_rt_info(KEY) else None
    except (RuntimeError, UnicodeDecodeError) as error:  # its messages quote the file, whatever is in it
        raise UserError(f'OpenVINO cannot open {path}: {_reason(error)}') from error
    metadata = ExportMetadata.from_json(text, path.name)
    run = openvino_runner(model, 'bf16' if metadata.precision == 'bf16' else 'f32', threads)
    any_size = model.inputs[0].partial_shape.rank == 4 and model.inputs[0].partial_shape[2].is_dynamic
    return Opened(metadata, run, partial(run, output=1) if len(model.outputs) > 1 else None, any_size=any_size)


def openvino_runner(model: Any, precision: str, threads: int | None = None) -> Callable[..., Array]:
    """A network on the CPU by OpenVINO, compiled for each shape of input that comes.

    Args:
        model: As `openvino.Core().read_model` gives it.
        precision: `'f32'` or `'bf16'`.
        threads: Of the runtime; by default its own choice.

    Returns:
        Maps an input, and the place of an output, to this output.
    """
    core = require('openvino', 'export').Core()
    options: dict[str, Any] = {'PERFORMANCE_HINT': 'LATENCY', 'INFERENCE_PRECISION_HINT': precision}
    if threads:
        options['INFERENCE_NUM_THREADS'] = threads
    # by shape of the input, the network and its idle requests: a request serves one thread at a time
    compiled: dict[tuple[int, ...], tuple[Any, list[Any]]] = {}
    lock = threading.Lock()

    def run(images: Array, output: int = 0) -> Array:
        shape = tuple(images.shape)
        with lock:
            if shape not in compiled:
                # fixed shapes are a good deal faster than dynamic ones
                fixed = model.clone()
                fixed.reshape(list(shape))
                compiled[shape] = core.compile_model(fixed, 'CPU', options), []
                while len(compiled) > _MOST_SHAPES:
                    compiled.pop(next(iter(compiled)))
            network, idle = compiled[shape]
            request = idle.pop() if idle else network.create_infer_request()
        try:
            return request.infer({0: images})[output].copy()
        finally:
            idle.append(request)

    return run


def _kernels(path: Path, device: str, threads: int | None) -> Opened:
    program, text = read_program(path)
    metadata = ExportMetadata.from_json(text, path.name)
    network = program.open(choose_variant(metadata.precision))
    if program.outputs != metadata.skeleton.num_keypoints or program.channels != 3 or metadata.pipeline:
        raise UserError(f'{path} is damaged: its program does not fit what it says of itself.')
    return Opened(metadata, partial(network, threads=threads), any_size=True)


def _torchscript(path: Path, device: str, threads: int | None) -> Opened:
    with needs_pytorch('A file of TorchScript'):
        import torch
    import torchvision  # noqa: F401  its operators, which files of person finders hold

    files = {KEY: ''}
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings('ignore', r'.*torch\.jit\.', FutureWarning)  # the file is there, and is to be used
            module = torch.jit.load(str(path), map_location='cpu', _extra_files=files)
    except (RuntimeError, UnicodeDecodeError) as error:  # its messages quote the file, whatever is in it
        raise UserError(f'TorchScript cannot open {path}: {_reason(error)}') from error
    text: Any = files[KEY]
    said = text.decode(errors='replace') if isinstance(text, bytes) else text
    return Opened(ExportMetadata.from_json(said, path.name), _torch(module))


def _torch_export(path: Path, device: str, threads: int | None) -> Opened:
    with needs_pytorch('A file of torch.export'):
        import torch

    from .program import check_program

    check_program(path)
    files = {KEY: ''}
    try:
        program = torch.export.load(str(path), extra_files=files)
    except Exception as error:  # torch raises what its unpacking happens to meet
        raise UserError(f'torch.export cannot open {path}: {_reason(error)}') from error
    return Opened(ExportMetadata.from_json(files[KEY], path.name), _torch(program.module()))


def _torch(module: Any) -> Runner:
    import torch

    def run(images: Array) -> Array:
        with torch.inference_mode():
            return module(torch.from_numpy(images)).numpy()

    return run


_RUNTIMES = {
    '.onnx': ('ONNX Runtime', _onnx),
    '.xml': ('OpenVINO', _openvino),
    '.torchscript': ('TorchScript', _torchscript),
    '.pt2': ('torch.export', _torch_export),
    '.kernels': ('the kernels', _kernels),
}

SUFFIXES = tuple(_RUNTIMES)
"""Of the files that can be opened here."""


def open_backend(path: str | Path, device: Any = None, threads: int | None = None) -> ExportedBackend:
    """Open an exported file.

    Args:
        path: `.onnx`, `.xml` (OpenVINO), `.kernels`, `.torchscript` or `.pt2` (torch.export), as `widehrnet export`
            writes them; or a folder with one model of OpenVINO, beside which its person finder may lie.
        device: For `.onnx` a provider of ONNX Runtime that is installed, in lower case: `cpu`, `cuda`, `cuda:1`, ...;
            others run on the CPU. The CPU by default.
        threads: Threads of the runtime; by default its own choice. The torch formats follow `torch.set_num_threads`.

    Returns:
        The backend.

    Raises:
        UserError: If the file is not there, broken, of another kind, or does not say what it is.
        ImportError: If its runtime is not installed.
    """
    path = Path(path)
    if path.is_dir():
        found = sorted(p for p in path.glob('*.xml') if not p.name.endswith('.finder.xml'))
        if not found and (path / 'model' / 'config.json').exists():
            raise UserError(f'{path} is the folder of a training run: its model is {path / "model"}.')
        if not found:
            raise UserError(
                f'{path} holds no model: a trained one is config.json and model.safetensors, which a run writes at its '
                'end, one for OpenVINO an .xml and a .bin.'
            )
        if len(found) > 1:
            raise UserError(f'{path} holds {len(found)} models for OpenVINO (.xml): name one file.')
        path = found[0]
    if not path.exists():
        raise UserError(f'There is no file {path}.')
    if path.suffix not in _RUNTIMES or not path.is_file():
        raise UserError(f'{path.name} is not an exported file that can be run here: {", ".join(_RUNTIMES)} are.')
    place = 'cpu' if device is None else str(device).lower()
    if place != 'cpu' and path.suffix != '.onnx':
        raise UserError(f'{path.name} runs on the CPU here, not on {device}: leave the device out.')
    runtime, load = _RUNTIMES[path.suffix]
    return ExportedBackend(path, runtime, load(path, place, threads), threads)
