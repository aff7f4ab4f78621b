"""What an exported file says about itself."""

import json
import math
import re
from dataclasses import dataclass
from operator import index
from types import SimpleNamespace
from typing import Any

from ..errors import UserError
from ..pose.crops import PADDING, STRIDE, padding_of
from ..pose.score_map import ScoreMap, score_map_of
from ..pose.skeletons import Skeleton

KEY = 'widehrnet_zoo'


@dataclass(frozen=True)
class ExportMetadata:
    """Kept in every exported file, as JSON under the key `widehrnet_zoo`.

    Attributes:
        name: Name of the model.
        skeleton: What the keypoints are.
        size: Height and width of the input.
        mean: Of the input, RGB in 0..1.
        std: Of the input.
        pipeline: Whether the file takes uint8 crops (B, H, W, 3) and gives keypoints (B, K, 3), x, y in crop pixels
            and score, and, in ONNX and OpenVINO, the heatmaps besides (a person finder: photos, and (N, 6) photo, x1,
            y1, x2, y2, score); otherwise it takes normalised float32 (B, 3, H, W) and gives heatmaps
            (B, K, H/4, W/4).
        precision: `'f32'`, `'bf16'` or `'int8'`.
        padding: Growth of a person's box to the crop.
        score_map: From heatmap peaks to chances, or `None`; for whoever reads the file's scores to apply.
        finder: Name of the file beside it that finds the people, if there is one.
    """

    name: str
    skeleton: Skeleton
    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pipeline: bool = False
    precision: str = 'f32'
    padding: float = PADDING
    score_map: ScoreMap | None = None
    finder: str | None = None

    def to_json(self) -> str:
        """As one line."""
        values = {
            'name': self.name,
            'skeleton': self.skeleton.to_dict(),
            'size': self.size,
            'mean': self.mean,
            'std': self.std,
            'stride': STRIDE,
            'pipeline': self.pipeline,
            'precision': self.precision,
            'padding': self.padding,
            'score_map': None if self.score_map is None else self.score_map.to_config(),
            'finder': self.finder,
        }
        return json.dumps(values)

    @classmethod
    def from_json(cls, text: str | None, file: str) -> 'ExportMetadata':
        """The reverse of `to_json`.

        Raises:
            UserError: If the file says nothing, or something else.
        """
        try:
            values: dict[str, Any] = json.loads(text or '')
            height, width = map(index, values['size'])
            (m0, m1, m2), (s0, s1, s2) = (map(float, values[key]) for key in ('mean', 'std'))
            said = cls(
                name=values['name'],
                skeleton=Skeleton.from_dict(values['skeleton']),
                size=(height, width),
                mean=(m0, m1, m2),
                std=(s0, s1, s2),
                pipeline=values['pipeline'],
                precision=values['precision'],
                # files written before there was a choice do not say it
                padding=padding_of(SimpleNamespace(padding=values.get('padding'))),
                score_map=score_map_of(SimpleNamespace(score_map=values.get('score_map'))),
                finder=values.get('finder'),
            )
            if not (
                isinstance(said.name, str)
                and isinstance(said.pipeline, bool)
                and said.precision in ('f32', 'bf16', 'int8')
                and all(map(math.isfinite, said.mean + said.std))
                # beside the file, and nowhere else
                and (said.finder is None or re.fullmatch(r'[^/\\:]*\w[^/\\:]*', said.finder))
            ):
                raise ValueError('a field has a value that it cannot have')
            return said
        except (ValueError, KeyError, TypeError, IndexError, OverflowError, RecursionError) as error:
            raise UserError(
                f'{file} does not say its skeleton, size, mean and std: it was not written by `widehrnet export`. '
                'Give PoseEstimator a callable as backend=, with size= and skeleton= beside it.'
            ) from error
