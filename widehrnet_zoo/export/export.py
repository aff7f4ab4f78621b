"""Write a deployed network to a file of another runtime, and check it there."""

import contextlib
import io
import os
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from timm.data import resolve_model_data_config
from torch import Tensor, nn

from ..deployment.graph import GraphNetwork
from ..deployment.network import DeployedWideHRNet, deploy
from ..engines.exported import open_backend
from ..engines.metadata import KEY, ExportMetadata
from ..errors import UserError
from ..extras import require
from ..files import check_folder
from ..kernels.record import record
from ..kernels.saved import write_program
from ..pose.box_maps import gives_boxes
from ..pose.crops import STRIDE, box_views, check_input_size, crop_people, padding_of
from ..pose.images import read_image
from ..pose.score_map import score_map_of
from ..pose.skeletons import Skeleton, skeleton_of
from .boxes import box_difference, write_boxes
from .onnx_graph import PoseWriter
from .pipelines import BoxPipeline, PosePipeline

FORMATS = {
    'onnx': '.onnx',
    'openvino': '.xml',
    'kernels': '.kernels',
    'torch-export': '.pt2',
    'torchscript': '.torchscript',
}
"""Formats and the extensions of their files."""

TOLERANCE = {'f32': 1e-3, 'bf16': 0.1, 'int8': 0.5}
"""Largest difference of a heatmap from PyTorch's, in parts of the largest value, that a check lets pass."""


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A name in a temporary folder beside `path`; what was written there is moved into place at the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=path.parent, prefix=f'.{path.name}.'))
    try:
        yield folder / path.name
        # the weights beside a graph first: the graph is what is looked for
        for part in sorted(folder.iterdir(), key=lambda p: p.name == path.name):
            os.replace(part, path.parent / part.name)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def onnx_model(network: GraphNetwork, metadata: ExportMetadata, orders_are_products: bool = False) -> Any:
    """The network as an ONNX model with dynamic batch, height and width.

    Args:
        network: The deployed network as a graph.
        metadata: What the model says about itself, and whether pre- and post-processing are in it.
        orders_are_products: See `NetworkWriter`.

    Raises:
        UserError: If a layer has no form in ONNX here.
        ImportError: If onnx is not installed.
    """
    onnx = require('onnx', 'export')
    types, helper = onnx.TensorProto, onnx.helper
    writer = PoseWriter(orders_are_products)
    count = metadata.skeleton.num_keypoints
    shape = ['batch', count, 'heatmap_height', 'heatmap_width']
    heatmaps = helper.make_tensor_value_info('heatmaps', types.FLOAT, shape)
    if metadata.pipeline and gives_boxes(metadata.skeleton):
        given = helper.make_tensor_value_info('images', types.UINT8, ['batch', 'height', 'width', 3])
        x = writer.normalise('images', metadata.mean, metadata.std)
        writer.rename(write_boxes(writer, writer.network(network, x)), 'boxes')
        result = helper.make_tensor_value_info('boxes', types.FLOAT, ['found', 6])
    elif metadata.pipeline:
        given = helper.make_tensor_value_info('crops', types.UINT8, ['batch', 'height', 'width', 3])
        x = writer.normalise('crops', metadata.mean, metadata.std)
        writer.rename(writer.network(network, x), 'heatmaps')
        writer.rename(writer.decode('heatmaps'), 'keypoints')
        result = helper.make_tensor_value_info('keypoints', types.FLOAT, ['batch', count, 3])
    else:
        given = helper.make_tensor_value_info('images', types.FLOAT, ['batch', 3, 'height', 'width'])
        writer.rename(writer.network(network, 'images'), 'heatmaps')
        result = heatmaps
    # PoseEstimator decodes them by itself, since it has other decoders and the mirrored crop
    results = [result, heatmaps] if result.name == 'keypoints' else [result]
    return writer.model(metadata, [given], results)


def _write(deployed: DeployedWideHRNet, metadata: ExportMetadata, fmt: str, file: Path, crops: Any) -> None:
    network = GraphNetwork(deployed)
    height, width = metadata.size
    module: nn.Module = network
    example = torch.zeros(2, 3, height, width)
    if metadata.pipeline:
        pipeline = BoxPipeline if gives_boxes(metadata.skeleton) else PosePipeline
        module = pipeline(network, metadata.mean, metadata.std).eval()
        example = torch.zeros(2, height, width, 3, dtype=torch.uint8)
    if fmt == 'kernels':
        write_program(record(deployed), metadata.to_json(), file)
    elif fmt == 'onnx':
        file.write_bytes(onnx_model(network, metadata).SerializeToString())
    elif fmt == 'openvino':
        ov = require('openvino', 'export')
        source = file.with_suffix('.source.onnx')
        # the product with ones and zeros would lose something in int8
        graph = onnx_model(network, metadata, orders_are_products=metadata.precision != 'int8')
        source.write_bytes(graph.SerializeToString())
        model = ov.convert_model(str(source))
        if metadata.precision == 'int8':
            from .quantize import quantize_openvino

            model = quantize_openvino(model, metadata, crops)
        model.set_rt_info(metadata.to_json(), KEY)
        ov.save_model(model, str(file), compress_to_fp16=False)
        source.unlink()
    elif fmt == 'torchscript':
        with torch.no_grad(), warnings.catch_warnings():
            # sizes that are taken for constants are those of the input, which is of one size for what they are used in
            warnings.simplefilter('ignore', torch.jit.TracerWarning)
            # whoever asks for TorchScript has a runtime that takes nothing else
            warnings.filterwarnings('ignore', r'.*torch\.jit\.', FutureWarning)
            scripted = torch.jit.freeze(torch.jit.trace(module, example))
            written = io.BytesIO()
            torch.jit.save(scripted, written, _extra_files={KEY: metadata.to_json()})
        # .debug_pkl has the lines of source behind each operation, and the folders of whoever exports
        with zipfile.ZipFile(written) as parts, zipfile.ZipFile(file, 'w') as kept:
            for part in parts.infolist():
                if not part.filename.endswith('.debug_pkl'):
                    kept.writestr(part, parts.read(part))
    else:
        program = torch.export.export(module, (example,), dynamic_shapes=({0: torch.export.Dim('batch')},))
        for node in program.graph.nodes:
            node.meta.pop('stack_trace', None)  # it names the folders of whoever exports
        torch.export.save(program, str(file), extra_files={KEY: metadata.to_json()})


def export(
    model: nn.Module,
    path: str | Path,
    fmt: str | None = None,
    *,
    size: tuple[int, int] | None = None,
    skeleton: Skeleton | None = None,
    pipeline: bool | None = None,
    precision: str = 'f32',
    crops: npt.NDArray[np.uint8] | None = None,
    finder: nn.Module | None = None,
) -> float:
    """Write a network for another runtime and check it there against PyTorch.

    Args:
        model: A `WideHRNet` with heatmaps, on the CPU.
        path: The file; written whole or not at all, and only if the check passed.
        fmt: `'onnx'`, `'openvino'`, `'kernels'` (this package's own, for CPUs), `'torch-export'` or `'torchscript'`; by
            default what the extension says.
        size: Height and width, multiples of 32; by default the model's own. ONNX and TorchScript files also run at
            others, torch-export has a dynamic batch only.
        skeleton: What the keypoints are; by default what the model says.
        pipeline: Take uint8 crops (B, H, W, 3) and give keypoints (B, K, 3): normalisation and decoding in the file. In
            ONNX and OpenVINO heatmaps are a second output, which `PoseEstimator` decodes. A person finder takes uint8
            photos and gives (N, 6), see `BoxPipeline`, with the suppression of doubles in the file; for it this is the
            default.
        precision: `'f32'`; for OpenVINO `'bf16'`, computed where the processor can, or `'int8'`, static quantisation
            calibrated on `crops` (in ONNX Runtime the same costs more than 0.01 PCK, so it is not offered); for the
            kernels `'bf16'` or `'int8'`, which they refuse to open where the processor cannot.
        crops: uint8 (N, H, W, 3), real crops to check on, and to calibrate on for int8, where it takes 100 or more;
            by default the photo that comes with this package.
        finder: A person finder, written beside the file as `NAME.finder.onnx`, ..., which then names it:
            `PoseEstimator` on the file takes it for photos without boxes.

    Returns:
        The largest difference of a heatmap, or of a keypoint or the side of a box in pixels for a pipeline, found in
        the check; of heatmaps in parts of the largest value.

    Raises:
        UserError: If options do not fit each other, the model cannot be exported, or the file gives other results
            than PyTorch.
        ImportError: If a package of the extra `export` is missing.
    """
    path = Path(path)
    fmt = fmt or next((f for f, suffix in FORMATS.items() if suffix == path.suffix), None)
    if fmt not in FORMATS:
        raise UserError(f'{path.suffix or path.name!r} is not a format: choose {", ".join(FORMATS)}.')
    if path.suffix != FORMATS[fmt]:
        raise UserError(f'A file of the format {fmt} ends in {FORMATS[fmt]}, not in {path.suffix or path.name!r}.')
    check_folder(path.parent)
    allowed = {'f32', 'bf16', 'int8'} if fmt in ('openvino', 'kernels') else {'f32'}
    if precision not in allowed:
        raise UserError(f'{fmt} is exported in {", ".join(sorted(allowed))}, not in {precision}.')
    if getattr(getattr(model, 'global_pool', None), 'pool_type', ''):
        raise UserError("Only networks with heatmaps are exported: create the model with global_pool=''.")
    config = resolve_model_data_config(model)
    height, width = check_input_size(size or config['input_size'][1:])
    known: Any = getattr(model, 'pretrained_cfg', None) or {}
    skeleton = skeleton or skeleton_of(model)
    if pipeline is None:
        pipeline = gives_boxes(skeleton) and fmt not in ('torch-export', 'kernels')
    elif pipeline and fmt == 'kernels':
        raise UserError('Files for the kernels hold the network alone, this package does the rest: leave pipeline out.')
    elif pipeline and gives_boxes(skeleton) and fmt == 'torch-export':
        raise UserError(
            'torch-export files hold operators of PyTorch alone, and the suppression of doubles is not one: leave the '
            'pipeline out, and PersonFinder does it, or choose another format.'
        )
    metadata = ExportMetadata(
        name=known.get('architecture') or type(model).__name__,
        skeleton=skeleton,
        size=(height, width),
        mean=tuple(config['mean']),
        std=tuple(config['std']),
        pipeline=pipeline,
        precision=precision,
        padding=padding_of(model),
        score_map=score_map_of(model),
        finder=None if finder is None else path.with_suffix(f'.finder{path.suffix}').name,
    )
    deployed = deploy(model).cpu()
    crops = sample_crops(metadata.size) if crops is None else crops
    if crops.dtype != np.uint8 or crops.shape[1:] != (height, width, 3) or not len(crops):
        raise UserError(f'Crops must be uint8 (N, {height}, {width}, 3), not {crops.dtype} {crops.shape}.')
    if metadata.finder is not None:
        assert finder is not None
        if gives_boxes(skeleton) or not gives_boxes(skeleton_of(finder)):
            raise UserError('finder is a person finder beside a model that finds keypoints.')
    with _whole(path) as file:
        _write(deployed, metadata, fmt, file, crops)
        difference = check(file, deployed, metadata, crops[:8])
        if finder is not None and metadata.finder is not None:
            # before the file that names it has its name, and not at all where that file fails
            beside = precision if precision in allowed - {'int8'} else 'f32'
            export(finder, path.with_name(metadata.finder), fmt, precision=beside)
    return difference


def check(file: Path, network: nn.Module, metadata: ExportMetadata, crops: npt.NDArray[np.uint8]) -> float:
    """Run a written file on crops, one and all at once, and compare with PyTorch.

    Args:
        file: The exported file.
        network: The deployed network.
        metadata: What the file should say.
        crops: uint8 (N, H, W, 3).

    Returns:
        The largest difference, as `export` says.

    Raises:
        UserError: If it is too large, or the file says something else about itself.
    """
    backend = open_backend(file)
    if backend.metadata != metadata:
        raise UserError(f'{file.name} came back with other metadata than was written.')
    if metadata.pipeline and gives_boxes(metadata.skeleton):
        boxes = BoxPipeline(network, metadata.mean, metadata.std)(torch.from_numpy(crops))
        return box_difference(torch.from_numpy(backend.run(crops)), boxes, max(0.02, TOLERANCE[metadata.precision]))
    pipeline = PosePipeline(network, metadata.mean, metadata.std)
    heatmaps = network((torch.from_numpy(crops).permute(0, 3, 1, 2).float() - pipeline.mean) / pipeline.std)

    def run(runner: Callable[[Any], npt.NDArray[Any]], given: npt.NDArray[Any]) -> Tensor:
        parts = [given[:1], given[1:]] if len(given) > 1 else [given]
        return torch.from_numpy(np.concatenate([runner(part) for part in parts]))

    tolerance = TOLERANCE[metadata.precision]
    if backend.gives_heatmaps:
        found = run(partial(backend.from_crops, mean=metadata.mean, std=metadata.std), crops)
        difference = float((found - heatmaps).abs().max() / heatmaps.abs().max())
        if not difference <= tolerance:
            raise UserError(
                f'The exported file gives heatmaps that differ by {difference:.2g} of the largest value from '
                f'PyTorch; at most {tolerance:g} was expected. Nothing was written.'
            )
        if not metadata.pipeline:
            return difference
    # two pixels that are equal within rounding may change places, so keypoints are compared where the maximum is clear
    got, expected = run(backend.run, crops), pipeline(torch.from_numpy(crops))
    score = (got[..., 2] - expected[..., 2]).abs().max() / heatmaps.abs().max()
    top = heatmaps.flatten(2).topk(2).values
    clear = (top[..., 0] - top[..., 1]) > 2 * tolerance * heatmaps.abs().max()
    moved = (got[..., :2] - expected[..., :2]).abs().amax(2)[clear]
    difference = float(moved.max()) if len(moved) else 0.0
    if not (float(score) <= tolerance and difference <= STRIDE / 2):
        raise UserError(
            f'The exported file gives keypoints that are {difference:.2g} pixels and scores that are {score:.2g} of '
            'the largest value away from PyTorch. Nothing was written.'
        )
    return difference


def sample_crops(size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Crops from the photo that comes with this package."""
    image = read_image(Path(__file__).parents[1] / 'samples' / 'astronaut.jpg')
    height, width = image.shape[:2]
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 0.4, (8, 2)) * (width, height)
    boxes = np.concatenate((low, low + rng.uniform(0.4, 0.6, (8, 2)) * (width, height)), 1)
    return crop_people(image, box_views(boxes, size), size)
