"""Skeletons: what the keypoints of a data set are called and how they hang together."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from operator import index
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..files import read_json, read_settings
from .oks_sigmas import COCO_SIGMAS
from .sides import find_flip_pairs, find_sides


@dataclass(frozen=True, repr=False)
class Skeleton:
    """Names and structure of a set of keypoints.

    Attributes:
        name: Name of the data set or of your own set.
        keypoints: A name for each keypoint, in the order of the heatmaps.
        flip_pairs: Index pairs that change places when an image is mirrored.
        bones: Index pairs to draw a line between.
        sigmas: Per-keypoint constants of OKS, or None where the data set has none.

    Raises:
        UserError: If names repeat, or an index or the number of sigmas does not fit.
    """

    name: str
    keypoints: tuple[str, ...]
    flip_pairs: tuple[tuple[int, int], ...] = ()
    bones: tuple[tuple[int, int], ...] = ()
    sigmas: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        # plain types, whatever was given: a skeleton has a hash and is written as JSON
        for what in ('keypoints', 'flip_pairs', 'bones', 'sigmas'):
            given = getattr(self, what)
            if isinstance(given, np.ndarray):
                given = given.tolist()
            if isinstance(given, (list, tuple)):
                plain = (tuple(v) if isinstance(v, (list, tuple)) else v for v in given)
                object.__setattr__(self, what, tuple(_plain(v) for v in plain))
        count = len(self.keypoints)
        if not count or len(set(self.keypoints)) != count:
            raise UserError(f'Skeleton {self.name!r} needs at least one keypoint and no name twice.')
        for what, pairs in (('flip_pairs', self.flip_pairs), ('bones', self.bones)):
            if any(len(pair) != 2 or not all(0 <= i < count for i in pair) for pair in pairs):
                raise UserError(f'Skeleton {self.name!r}: {what} must be pairs of indices below {count}.')
        flipped = [i for pair in self.flip_pairs for i in pair]
        if len(set(flipped)) != len(flipped):
            raise UserError(f'Skeleton {self.name!r}: a keypoint stands in more than one flip pair.')
        if self.sigmas is not None and (len(self.sigmas) != count or any(not 0 < s < math.inf for s in self.sigmas)):
            raise UserError(f'Skeleton {self.name!r} needs one positive sigma for each of its {count} keypoints.')

    def __repr__(self) -> str:
        return f'Skeleton({self.name!r}, {len(self.keypoints)} keypoints: {", ".join(self.keypoints):.80})'

    @property
    def num_keypoints(self) -> int:
        """Number of keypoints."""
        return len(self.keypoints)

    @cached_property
    def flip_order(self) -> list[int]:
        """Index of the keypoint that takes each place when an image is mirrored."""
        order = list(range(self.num_keypoints))
        for a, b in self.flip_pairs:
            order[a], order[b] = b, a
        return order

    @cached_property
    def sides(self) -> tuple[str, ...]:
        """`'left'`, `'right'` or `'centre'` for each keypoint, from its name."""
        return find_sides(self.keypoints)

    def to_dict(self) -> dict[str, Any]:
        """As plain lists and numbers, for JSON."""
        return {k: v for k, v in asdict(self).items() if v is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> 'Skeleton':
        """The reverse of `to_dict`.

        Without `flip_pairs` they are found by the names, as by `skeleton_from_names`; an empty list is none.

        Raises:
            UserError: If a field is missing, unknown or of the wrong type.
        """
        if not isinstance(values, Mapping):
            raise UserError(f'A skeleton is given by its fields, not by {values!r:.200}.')
        unknown = set(values) - {'name', 'keypoints', 'flip_pairs', 'bones', 'sigmas'}
        if unknown or 'keypoints' not in values:
            raise UserError(
                'A skeleton has the fields name, keypoints, flip_pairs, bones and sigmas; '
                f'{"unknown: " + ", ".join(sorted(map(str, unknown))) if unknown else "keypoints is missing"}.'
            )
        names = values['keypoints']
        # whole numbers are names that YAML took for numbers
        if not isinstance(names, (list, tuple)) or not all(
            isinstance(name, (str, int)) and not isinstance(name, bool) for name in names
        ):
            raise UserError(f'keypoints must be a list of names, not {names!r:.200}.')
        try:
            sigmas = values.get('sigmas')
            return cls(
                name=str(values.get('name', 'custom')),
                keypoints=tuple(map(str, names)),
                flip_pairs=find_flip_pairs(tuple(map(str, names)))
                if values.get('flip_pairs') is None
                else tuple((index(a), index(b)) for a, b in values['flip_pairs']),
                bones=tuple((index(a), index(b)) for a, b in values.get('bones') or ()),
                sigmas=None if sigmas is None else tuple(float(s) for s in sigmas),
            )
        except (TypeError, ValueError, OverflowError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f'The skeleton cannot be read: {error}.') from error


def _plain(value: Any) -> Any:
    """A value without NumPy's types."""
    if isinstance(value, tuple):
        return tuple(map(_plain, value))
    return value.item() if isinstance(value, np.generic) else value


def skeleton_from_names(keypoints: Sequence[str], name: str = 'custom') -> Skeleton:
    """A skeleton from names alone; two names that differ in left and right are a flip pair, there are no bones.

    Left and right are found as words (`left_eye`, `L_Eye`, `eye.L`, `eye_l`), in words (`lefteye`, `left1`) and as the
    first or last letter (`LEye`, `LX`, `eyeL`).

    Args:
        keypoints: Names of the keypoints, in the order of the heatmaps.
        name: Name of the set.

    Raises:
        UserError: If a name comes twice, or is not text.
    """
    if not all(isinstance(k, str) for k in keypoints):
        raise UserError(f'The names of keypoints must be texts, not {list(keypoints)!r:.200}.')
    return Skeleton(name, tuple(keypoints), find_flip_pairs(keypoints))


# Names, order and skeleton: the categories of COCO's person_keypoints annotation files (there counted from 1).
_COCO = Skeleton(
    name='coco',
    keypoints=(
        'nose',
        'left_eye',
        'right_eye',
        'left_ear',
        'right_ear',
        'left_shoulder',
        'right_shoulder',
        'left_elbow',
        'right_elbow',
        'left_wrist',
        'right_wrist',
        'left_hip',
        'right_hip',
        'left_knee',
        'right_knee',
        'left_ankle',
        'right_ankle',
    ),
    flip_pairs=((1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16)),
    bones=(
        (15, 13),
        (13, 11),
        (16, 14),
        (14, 12),
        (11, 12),
        (5, 11),
        (6, 12),
        (5, 6),
        (5, 7),
        (6, 8),
        (7, 9),
        (8, 10),
        (1, 2),
        (0, 1),
        (0, 2),
        (1, 3),
        (2, 4),
        (3, 5),
        (4, 6),
    ),
    sigmas=COCO_SIGMAS,
)

# Order of the joints: annotation README of the MPII Human Pose Dataset, http://human-pose.mpi-inf.mpg.de
_MPII = Skeleton(
    name='mpii',
    keypoints=(
        'right_ankle',
        'right_knee',
        'right_hip',
        'left_hip',
        'left_knee',
        'left_ankle',
        'pelvis',
        'thorax',
        'upper_neck',
        'head_top',
        'right_wrist',
        'right_elbow',
        'right_shoulder',
        'left_shoulder',
        'left_elbow',
        'left_wrist',
    ),
    flip_pairs=((0, 5), (1, 4), (2, 3), (10, 15), (11, 14), (12, 13)),
    bones=(
        (0, 1),
        (1, 2),
        (2, 6),
        (6, 3),
        (3, 4),
        (4, 5),
        (6, 7),
        (7, 8),
        (8, 9),
        (7, 12),
        (12, 11),
        (11, 10),
        (7, 13),
        (13, 14),
        (14, 15),
    ),
)

SKELETONS: dict[str, Skeleton] = {'coco': _COCO, 'mpii': _MPII}
"""Skeletons by data set."""


def read_skeleton(source: str | Mapping[str, Any]) -> Skeleton:
    """A skeleton from its data set's name, a file, or its fields.

    Args:
        source: A key of `SKELETONS`, a JSON file, a YAML or TOML file (extra `train`), or the fields of
            `Skeleton.from_dict`.

    Raises:
        UserError: If there is no such skeleton.
    """
    if isinstance(source, Mapping):
        return Skeleton.from_dict(source)
    if source in SKELETONS:
        return SKELETONS[source]
    path = Path(source)
    if not path.exists():
        raise UserError(f'There is no skeleton {source!r}: give {", ".join(SKELETONS)}, or a JSON or YAML file.')
    values = read_json(path) if path.suffix == '.json' else read_settings(path)
    if not isinstance(values, Mapping):
        raise UserError(f'{path} is not a skeleton: expected the fields name, keypoints, flip_pairs, bones, sigmas.')
    return Skeleton.from_dict(values)


def is_human(skeleton: Skeleton) -> bool:
    """Whether the keypoints are those of a person, as COCO or MPII have them, whom the person finder can find."""
    return any(skeleton.keypoints == SKELETONS[name].keypoints for name in ('coco', 'mpii'))


def skeleton_of(source: Any) -> Skeleton:
    """Skeleton of a model or of its pretrained config.

    Args:
        source: A model (its `skeleton`, if it has one, else its `pretrained_cfg`), or a config as a dict or
            `timm.models.PretrainedCfg`.

    Returns:
        The data set's skeleton where the label names are known, one made from the label names where they are
        not, and `keypoint_0`, `keypoint_1`, ... where their number does not fit the model's outputs.

    Raises:
        UserError: If the model has no keypoints.
    """
    if getattr(source, 'num_classes', None) != 0:
        own = getattr(source, 'skeleton', None)
        if isinstance(own, Skeleton):
            return own
    cfg = getattr(source, 'pretrained_cfg', source) or {}
    get = cfg.get if isinstance(cfg, Mapping) else lambda key: getattr(cfg, key, None)
    names = tuple(get('label_names') or ())
    num_classes = getattr(source, 'num_classes', None)
    count = num_classes if isinstance(num_classes, int) else get('num_classes')
    if count is None:
        raise UserError(f'This {type(source).__name__} does not say what its keypoints are: give the skeleton.')
    if not count:
        raise UserError('The model has no keypoint head (num_classes=0): give num_classes, or the skeleton.')
    if len(names) != count:
        return Skeleton('custom', tuple(f'keypoint_{i}' for i in range(count)))
    for skeleton in SKELETONS.values():
        if skeleton.keypoints == names:
            return skeleton
    return skeleton_from_names(names)
