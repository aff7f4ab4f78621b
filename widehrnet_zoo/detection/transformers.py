"""Object detectors of the transformers library as detectors of people."""

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..errors import UserError
from ..extras import require


class TransformersDetector:
    """A `transformers` object-detection pipeline.

    Args:
        model: A Hub id or a folder, which the pipeline opens (fetching weights at first use with a progress bar), or a
            pipeline that is there.
        device: As the pipeline takes it.
        min_score: Lower boxes are left out.
        label: What the model calls people, in any case.
        **options: Further arguments of `transformers.pipeline`, such as `revision`.

    Raises:
        UserError: If the model cannot be had, or does not know the label.
        ImportError: If transformers is not installed.
    """

    def __init__(self, model: Any, device: Any = None, min_score: float = 0.5, label: str = 'person', **options: Any):
        if isinstance(model, str):
            pipeline = require('transformers', 'detect').pipeline
            try:
                self.pipeline = pipeline('object-detection', model=model, device=device, **options)
            except (OSError, ValueError) as error:
                reason = str(error).strip().splitlines()[0]
                raise UserError(f'transformers cannot open {model!r} as an object detector: {reason}') from error
        else:
            self.pipeline = model
        self.min_score = min_score
        self.label = label.lower()
        names = getattr(self.pipeline.model.config, 'id2label', None) or {}
        if names and self.label not in {str(name).lower() for name in names.values()}:
            some = ', '.join(sorted(str(name) for name in names.values())[:10])
            raise UserError(f'The detector has no class {label!r} among its {len(names)}; some are {some}.')

    def __call__(self, image: npt.NDArray[np.uint8], /) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Find people; see `Detector`."""
        found = self.pipeline(Image.fromarray(image), threshold=self.min_score)
        people = [f for f in found if str(f['label']).lower() == self.label]
        boxes = [[f['box'][side] for side in ('xmin', 'ymin', 'xmax', 'ymax')] for f in people]
        return np.array(boxes, np.float32).reshape(-1, 4), np.array([f['score'] for f in people], np.float32)
