"""Static int8 quantisation, calibrated on crops."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import UserError
from ..extras import require
from .metadata import ExportMetadata

ENOUGH = 100


def _inputs(metadata: ExportMetadata, crops: npt.NDArray[np.uint8]) -> list[npt.NDArray[Any]]:
    if len(crops) < ENOUGH:
        raise UserError(f'int8 needs {ENOUGH} or more crops of people to calibrate on, not {len(crops)}.')
    if metadata.pipeline:
        return [crop[None] for crop in crops]
    mean, std = (np.array(v, np.float32) * 255 for v in (metadata.mean, metadata.std))
    return [np.ascontiguousarray((((crop - mean) / std).transpose(2, 0, 1)[None]).astype(np.float32)) for crop in crops]


def quantize_onnx(model: Any, metadata: ExportMetadata, crops: npt.NDArray[np.uint8]) -> Any:
    """Quantise convolutions to int8, weights per channel, with quantise-dequantise nodes.

    The first and last convolutions and what is not a convolution stay in float32.

    Args:
        model: `onnx.ModelProto`.
        metadata: What it takes.
        crops: uint8 (N, H, W, 3) of people.

    Returns:
        The quantised model.
    """
    onnx = require('onnx', 'export')
    quantization = require('onnxruntime.quantization', 'export')
    shape_inference = require('onnxruntime.quantization.shape_inference', 'export')
    name = model.graph.input[0].name
    inputs = _inputs(metadata, crops)

    class Reader(quantization.CalibrationDataReader):  # type: ignore[name-defined]
        def __init__(self) -> None:
            self.values = iter(inputs)

        def get_next(self) -> dict[str, Any] | None:
            value = next(self.values, None)
            return None if value is None else {name: value}

    convs = [n.name for n in model.graph.node if n.op_type == 'Conv']
    with tempfile.TemporaryDirectory() as folder:
        source, prepared, target = (Path(folder) / f'{n}.onnx' for n in ('source', 'prepared', 'target'))
        onnx.save(model, str(source))
        shape_inference.quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        quantization.quantize_static(
            str(prepared),
            str(target),
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            op_types_to_quantize=['Conv', 'Add', 'Mul'],
            nodes_to_exclude=[convs[0], convs[-1]],
        )
        quantized = onnx.load(str(target))
    onnx.helper.set_model_props(quantized, {p.key: p.value for p in model.metadata_props})
    return quantized


def quantize_openvino(model: Any, metadata: ExportMetadata, crops: npt.NDArray[np.uint8]) -> Any:
    """Quantise with NNCF's post-training algorithm, mixed preset.

    Args:
        model: `openvino.Model`.
        metadata: What it takes.
        crops: uint8 (N, H, W, 3) of people.

    Returns:
        The quantised model.
    """
    nncf = require('nncf', 'export')
    inputs = _inputs(metadata, crops)
    return nncf.quantize(
        model,
        nncf.Dataset(inputs),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(inputs),
    )
