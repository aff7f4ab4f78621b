"""Static int8 quantisation, calibrated on crops."""

from typing import Any

import numpy as np
import numpy.typing as npt

from ..engines.metadata import ExportMetadata
from ..errors import UserError
from ..extras import require
from ..pose.crops import normalise

ENOUGH = 100


def quantize_openvino(model: Any, metadata: ExportMetadata, crops: npt.NDArray[np.uint8]) -> Any:
    """Quantise with NNCF's post-training algorithm, mixed preset.

    Args:
        model: `openvino.Model`.
        metadata: What it takes.
        crops: uint8 (N, H, W, 3) of people.
    """
    if len(crops) < ENOUGH:
        raise UserError(f'int8 needs {ENOUGH} or more crops of people to calibrate on, not {len(crops)}.')
    inputs = [crop[None] if metadata.pipeline else normalise(crop[None], metadata.mean, metadata.std) for crop in crops]
    nncf = require('nncf', 'export')
    return nncf.quantize(
        model,
        nncf.Dataset(inputs),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(inputs),
    )
