"""What was found in an image."""

import json
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..errors import UserError
from ..files import naming, write_whole
from .drawing import draw_poses
from .images import ImageSource
from .skeletons import Skeleton


def rescore(
    keypoint_scores: npt.ArrayLike, box_scores: npt.ArrayLike, threshold: float = 0.2
) -> npt.NDArray[np.float64]:
    """Score of a person: the box's score times the mean of the keypoint scores above a threshold.

    Source: mmpose 0.24's COCO evaluation. With no keypoint above the threshold the score is 0.

    Args:
        keypoint_scores: (N, K).
        box_scores: (N,).
        threshold: Keypoint scores must be above it to count.

    Returns:
        (N,) scores.
    """
    scores = np.asarray(keypoint_scores, float)
    counted = scores > threshold
    return np.asarray(box_scores, float) * (scores * counted).sum(-1) / np.maximum(counted.sum(-1), 1)


def person_scores(keypoint_scores: npt.ArrayLike, box_scores: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Scores of people; see `PoseResult.person_scores`.

    Args:
        keypoint_scores: (N, K).
        box_scores: (N,).

    Returns:
        float32 (N,).
    """
    scores = np.maximum(np.asarray(keypoint_scores, float), 0)
    mean = (scores**2).sum(-1) / np.maximum(scores.sum(-1), np.finfo(float).tiny)
    return (np.sqrt(np.maximum(np.asarray(box_scores, float), 0)) * mean).astype(np.float32)


class Keypoint(NamedTuple):
    """A keypoint: x and y in image pixels, and the network's score, about 0..1."""

    x: float
    y: float
    score: float


@dataclass(frozen=True, eq=False, repr=False)
class PoseResult:
    """Keypoints of the N people of one image.

    Two results are equal if all their numbers are, NaN to NaN, and so are skeleton, size and path. It has no hash.

    Attributes:
        keypoints: float32 (N, K, 2), x and y in pixels of the upright image.
        scores: float32 (N, K), about 0..1: the maximum of each heatmap.
        boxes: float32 (N, 4), x1, y1, x2, y2 in image pixels, that the network looked at.
        box_scores: float32 (N,): of people whom a detector found, the chance that the pose is of somebody, as
            `widehrnet_zoo.inference.people` says; of boxes that are given, their score, or 1.
        skeleton: What the keypoints are.
        image_size: Width and height of the image.
        path: File of the image, if it came from one.

    Raises:
        UserError: If the shapes do not fit each other.
    """

    keypoints: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    boxes: npt.NDArray[np.float32]
    box_scores: npt.NDArray[np.float32]
    skeleton: Skeleton
    image_size: tuple[int, int]
    path: str | None = None

    def __post_init__(self) -> None:
        people, num = len(self.keypoints), self.skeleton.num_keypoints
        shapes = {'keypoints': (people, num, 2), 'scores': (people, num), 'boxes': (people, 4), 'box_scores': (people,)}
        for name, shape in shapes.items():
            value = np.asarray(getattr(self, name), np.float32)
            if value.shape != shape:
                raise UserError(f'{name} of {people} people with {num} keypoints must be {shape}, not {value.shape}.')
            object.__setattr__(self, name, value)
        width, height = self.image_size
        object.__setattr__(self, 'image_size', (int(width), int(height)))
        if isinstance(self.path, (bytes, os.PathLike)):
            object.__setattr__(self, 'path', os.fsdecode(self.path))
        elif isinstance(self.path, np.generic):  # the id of a photo, which JSON must take
            object.__setattr__(self, 'path', self.path.item())

    def __len__(self) -> int:
        return len(self.keypoints)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PoseResult):
            return NotImplemented
        arrays = ('keypoints', 'scores', 'boxes', 'box_scores')
        return (self.skeleton, self.image_size, self.path) == (other.skeleton, other.image_size, other.path) and all(
            np.array_equal(getattr(self, name), getattr(other, name), equal_nan=True) for name in arrays
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        width, height = self.image_size
        return (
            f'PoseResult({len(self)} people, {self.skeleton.num_keypoints} keypoints of {self.skeleton.name!r}, '
            f'{width}x{height}, path={self.path!r})'
        )

    @property
    def person_scores(self) -> npt.NDArray[np.float32]:
        """float32 (N,): root of the box's score times the mean of the keypoint scores, each weighted by itself.

        So keypoints that are hidden or outside the photo, whose scores are low, hardly count, and the keypoints say
        more than the box. This ranks poses better than mmpose's rule (`rescore`), which the published protocol keeps.
        """
        return person_scores(self.scores, self.box_scores)

    def named(self, index: int) -> dict[str, Keypoint]:
        """Keypoints of one person by name.

        Args:
            index: Which person, from 0.

        Raises:
            IndexError: If there are fewer people.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f'There is no person {index}: {len(self)} were found in this image.')
        return {
            name: Keypoint(float(x), float(y), float(score))
            for name, (x, y), score in zip(
                self.skeleton.keypoints, self.keypoints[index], self.scores[index], strict=True
            )
        }

    def to_coco(self, image_id: int | str, category_id: int = 1) -> list[dict[str, Any]]:
        """Entries of COCO's keypoint results format, as pycocotools' `loadRes` takes them.

        Args:
            image_id: Id of the image in the labels.
            category_id: 1 is COCO's person.

        Returns:
            One dict per person: `keypoints` flat x, y, score; `score` as `person_scores`; `bbox` x, y, width, height.
        """
        # JSON knows none of NumPy's types
        ids = [v.item() if isinstance(v, np.generic) else v for v in (image_id, category_id)]
        rows = np.concatenate([self.keypoints, self.scores[..., None]], -1)
        rows = rows.reshape(len(self), 3 * self.skeleton.num_keypoints)
        sizes = np.concatenate([self.boxes[:, :2], self.boxes[:, 2:] - self.boxes[:, :2]], -1)
        return [
            {
                'image_id': ids[0],
                'category_id': ids[1],
                'keypoints': row.tolist(),
                'score': float(score),
                'bbox': size.tolist(),
            }
            for row, score, size in zip(rows, self.person_scores, sizes, strict=True)
        ]

    def to_dict(self) -> dict[str, Any]:
        """As plain lists, numbers and names, for JSON.

        Returns:
            `path`; `image_size` {width, height}; `skeleton` as `Skeleton.to_dict`; `people`, a list of {`score`,
            `box` [x1, y1, x2, y2], `box_score`, `keypoints`}, where `keypoints` is a list of {`name`, `x`, `y`,
            `score`} in the skeleton's order. A number that is not finite is None.
        """
        return {
            'path': self.path,
            'image_size': {'width': int(self.image_size[0]), 'height': int(self.image_size[1])},
            'skeleton': self.skeleton.to_dict(),
            'people': [
                {
                    'score': _finite(self.person_scores[i]),
                    'box': [_finite(v) for v in self.boxes[i]],
                    'box_score': _finite(self.box_scores[i]),
                    'keypoints': [
                        {'name': name, 'x': _finite(p.x), 'y': _finite(p.y), 'score': _finite(p.score)}
                        for name, p in self.named(i).items()
                    ],
                }
                for i in range(len(self))
            ],
        }

    def to_json(self, indent: int | None = 1) -> str:
        """`to_dict` as JSON text (RFC 8259: no NaN).

        Args:
            indent: Spaces per level; None for one line.
        """
        return json_text(self.to_dict(), indent)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> 'PoseResult':
        """The reverse of `to_dict`.

        Args:
            values: What `to_dict` gave; None in it becomes NaN.

        Raises:
            UserError: If it is something else.
        """
        try:
            skeleton = Skeleton.from_dict(values['skeleton'])
            people = values['people']
            if not isinstance(values.get('path'), (str, type(None))):
                raise TypeError('path is not text')
            rows = [[(k['x'], k['y'], k['score']) for k in person['keypoints']] for person in people]
            width, height = (values['image_size'][side] for side in ('width', 'height'))
            if not all(isinstance(side, (int, float)) and side >= 0 and side == int(side) for side in (width, height)):
                raise ValueError(f'The size of the image is {width!r:.40} x {height!r:.40}')
            points = np.array(rows, np.float32).reshape(len(people), skeleton.num_keypoints, 3)
            return cls(
                keypoints=points[..., :2].copy(),
                scores=points[..., 2].copy(),
                boxes=np.array([p['box'] for p in people], np.float32).reshape(-1, 4),
                box_scores=np.array([p['box_score'] for p in people], np.float32),
                skeleton=skeleton,
                image_size=(int(width), int(height)),
                path=values.get('path'),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f'This is not a result of PoseResult.to_dict: {type(error).__name__}: {error}.') from error

    def save_json(self, path: str | Path) -> None:
        """Write `to_json` to a file, whole or not at all.

        Args:
            path: The file.

        Raises:
            UserError: If it cannot be written.
        """
        content = self.to_json() + '\n'
        with naming(path):
            write_whole(path, content)

    def draw(
        self, image: ImageSource, *, threshold: float = 0.2, boxes: bool = False, line_width: float | None = None
    ) -> Image.Image:
        """Draw the people on their image, by `draw_poses`.

        Args:
            image: The image, as `read_image` takes it.
            threshold: Keypoints with a lower score, and their bones, are left out.
            boxes: Draw the boxes too.
            line_width: Width of a bone in pixels; by default it follows the size of the person and of the image.

        Returns:
            A new image of the same size.
        """
        found = self.boxes if boxes else None
        return draw_poses(
            image, self.keypoints, self.scores, self.skeleton, boxes=found, threshold=threshold, line_width=line_width
        )


def json_text(values: Any, indent: int | None = 1) -> str:
    """JSON for files (RFC 8259: no NaN), readable and in UTF-8."""
    text = json.dumps(values, indent=indent, ensure_ascii=False, allow_nan=False)
    # a name of a file that is no Unicode comes as lone surrogates, which JSON can hold as escapes only
    return re.sub('[\ud800-\udfff]', lambda found: f'\\u{ord(found[0]):04x}', text)


def _finite(value: float) -> float | None:
    # the shortest decimal number that is this float32, instead of all digits of the double beside it
    return float(str(np.float32(value))) if math.isfinite(value) else None
