"""Exported files as backends of `PoseEstimator`: normalised crops in, heatmaps out."""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import UserError
from ..extras import require
from .metadata import KEY, ExportMetadata

__all__ = ['ExportedBackend', 'open_backend']

Array = npt.NDArray[Any]
Runner = Callable[[Array], Array]


class ExportedBackend:
    """An exported network.

    Attributes:
        path: The file.
        runtime: What runs it.
        metadata: What the file says about itself.
        skeleton: What the keypoints are.
        size: Height and width of the input.
        mean: Of the input, RGB in 0..1.
        std: Of the input.
        padding: Growth of a person's box to the network's view.
        score_map: From heatmap peaks to chances, or `None`.
    """

    def __init__(self, path: Path, runtime: str, metadata: ExportMetadata, runner: Runner, threads: int | None = None):
        self.path = path
        self._process, self._threads = os.getpid(), threads
        self.runtime = runtime
        self.metadata = metadata
        self.skeleton = metadata.skeleton
        self.size = metadata.size
        self.mean = metadata.mean
        self.std = metadata.std
        self.padding = metadata.padding
        self.score_map = metadata.score_map
        self.run = runner

    def __reduce__(self) -> tuple[Any, ...]:
        # a copy, also one in another process, opens the file anew
        return open_backend, (self.path.absolute(), None, self._threads)

    def __call__(self, images: npt.NDArray[np.float32], /) -> Array:
        """Normalised crops (B, 3, H, W) to heatmaps (B, K, H/4, W/4).

        Raises:
            UserError: If the file holds the whole pipeline, whose output is keypoints; or if this is another process,
                forked from the one that opened the file.
        """
        # PyTorch's own formats are PoseEstimator's to judge: they run in a forked process on one thread
        if os.getpid() != self._process and self.runtime in ('ONNX Runtime', 'OpenVINO'):
            raise UserError(
                f'{self.path.name} was opened before this process was forked, and {self.runtime} would wait here '
                "without end: open it in each worker, or start workers by multiprocessing's 'spawn'."
            )
        if self.metadata.pipeline:
            raise UserError(
                f'{self.path.name} takes uint8 crops and gives keypoints; PoseEstimator needs a file with heatmaps: '
                'export without --pipeline, or call backend.run(crops) yourself.'
            )
        try:
            return self.run(images)
        except Exception as error:  # each runtime has its own
            raise UserError(f'{self.path} cannot be run by {self.runtime}: {_reason(error)}') from error


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


def _onnx(path: Path, threads: int | None) -> tuple[ExportMetadata, Runner]:
    ort = require('onnxruntime', 'export')
    options = ort.SessionOptions()
    # what goes wrong is told by an exception
    options.log_severity_level = 4
    if threads:
        options.intra_op_num_threads = threads
    try:
        # its fallback would try the same again, and print that it does
        session = ort.InferenceSession(str(path), options, providers=['CPUExecutionProvider'], enable_fallback=0)
    except Exception as error:  # onnxruntime's errors have no common class of their own
        raise UserError(f'ONNX Runtime cannot open {path}: {_reason(error)}') from error
    try:
        text = session.get_modelmeta().custom_metadata_map.get(KEY)
    except UnicodeDecodeError:
        text = None
    metadata = ExportMetadata.from_json(text, path.name)
    if not session.get_inputs():
        raise UserError(f'{path} is a graph without an input: expected one that takes crops.')
    name = session.get_inputs()[0].name
    return metadata, lambda images: session.run(None, {name: images})[0]


def _openvino(path: Path, threads: int | None) -> tuple[ExportMetadata, Runner]:
    ov = require('openvino', 'export')
    core = ov.Core()
    try:
        model = core.read_model(str(path))
        text = str(model.get_rt_info(KEY).value) if model.has_rt_info(KEY) else None
    except (RuntimeError, UnicodeDecodeError) as error:  # its messages quote the file, whatever is in it
        raise UserError(f'OpenVINO cannot open {path}: {_reason(error)}') from error
    metadata = ExportMetadata.from_json(text, path.name)
    options: dict[str, Any] = {
        'PERFORMANCE_HINT': 'LATENCY',
        'INFERENCE_PRECISION_HINT': 'bf16' if metadata.precision == 'bf16' else 'f32',
    }
    if threads:
        options['INFERENCE_NUM_THREADS'] = threads
    height, width = metadata.size
    # by batch size, the network and its idle requests: a request serves one thread at a time
    compiled: dict[int, tuple[Any, list[Any]]] = {}
    lock = threading.Lock()

    def run(images: Array) -> Array:
        batch = len(images)
        with lock:
            if batch not in compiled:
                # fixed shapes are a good deal faster than dynamic ones
                fixed = model.clone()
                fixed.reshape([batch, height, width, 3] if metadata.pipeline else [batch, 3, height, width])
                compiled[batch] = core.compile_model(fixed, 'CPU', options), []
                while len(compiled) > 4:
                    compiled.pop(next(iter(compiled)))
            network, idle = compiled[batch]
            request = idle.pop() if idle else network.create_infer_request()
        try:
            return request.infer({0: images})[0].copy()
        finally:
            idle.append(request)

    return metadata, run


def _torchscript(path: Path, threads: int | None) -> tuple[ExportMetadata, Runner]:
    import torch
    import torchvision  # noqa: F401  its operators, which files of person finders hold

    files = {KEY: ''}
    try:
        module = torch.jit.load(str(path), map_location='cpu', _extra_files=files)
    except (RuntimeError, UnicodeDecodeError) as error:  # its messages quote the file, whatever is in it
        raise UserError(f'TorchScript cannot open {path}: {_reason(error)}') from error
    text: Any = files[KEY]
    said = text.decode(errors='replace') if isinstance(text, bytes) else text
    return ExportMetadata.from_json(said, path.name), _torch(module)


def _torch_export(path: Path, threads: int | None) -> tuple[ExportMetadata, Runner]:
    import torch

    from .program import check_program

    check_program(path)
    files = {KEY: ''}
    try:
        program = torch.export.load(str(path), extra_files=files)
    except Exception as error:  # torch raises what its unpacking happens to meet
        raise UserError(f'torch.export cannot open {path}: {_reason(error)}') from error
    return ExportMetadata.from_json(files[KEY], path.name), _torch(program.module())


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
}


def open_backend(path: str | Path, device: Any = None, threads: int | None = None) -> ExportedBackend:
    """Open an exported file.

    Args:
        path: `.onnx`, `.xml` (OpenVINO), `.torchscript` or `.pt2` (torch.export), as `widehrnet export` writes them.
        device: Only the CPU, by whatever name it is given.
        threads: Threads of ONNX Runtime or OpenVINO; by default theirs. The torch formats follow
            `torch.set_num_threads`.

    Returns:
        The backend.

    Raises:
        UserError: If the file is not there, broken, of another kind, or does not say what it is.
        ImportError: If its runtime is not installed.
    """
    path = Path(path)
    if path.is_dir():
        found = sorted(path.glob('*.xml'))
        if len(found) != 1:
            raise UserError(f'{path} holds {len(found)} OpenVINO models (.xml); name one file.')
        path = found[0]
    if path.suffix not in _RUNTIMES:
        raise UserError(f'{path.name} is not an exported file that can be run here: {", ".join(_RUNTIMES)} are.')
    if not path.is_file():
        raise UserError(f'There is no file {path}.')
    if device is not None and 'cpu' not in str(device).lower():
        raise UserError(f'Exported files run on the CPU here, not on {device}: leave the device out.')
    runtime, load = _RUNTIMES[path.suffix]
    metadata, runner = load(path, threads)
    return ExportedBackend(path, runtime, metadata, runner, threads)
