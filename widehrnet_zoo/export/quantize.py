"""Static int8 quantisation, calibrated on crops."""

from typing import Any

import numpy as np
import numpy.typing as npt

from ..engines.metadata import ExportMetadata
from ..errors import UserError
from ..extras import require
from ..pose.crops import normalise

ENOUGH = 100


def _inputs(metadata: ExportMetadata, crops: npt.NDArray[np.uint8]) -> list[npt.NDArray[Any]]:
    if len(crops) < ENOUGH:
        raise UserError(f'int8 needs {ENOUGH} or more crops of people to calibrate on, not {len(crops)}.')
    if metadata.pipeline:
        return [crop[None] for crop in crops]
    return [normalise(crop[None], metadata.mean, metadata.std) for crop in crops]


def quantize_openvino(model: Any, metadata: ExportMetadata, crops: npt.NDArray[np.uint8]) -> Any:
    """Quantise with NNCF's post-training algorithm, mixed preset.

    Args:
        model: `openvino.Model`.
        metadata: What it takes.
        crops: uint8 (N, H, W, 3) of people.
    """
    inputs = _inputs(metadata, crops)
    nncf = require('nncf', 'export')
    return nncf.quantize(
        model,
        nncf.Dataset(inputs),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(inputs),
    )
