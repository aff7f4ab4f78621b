"""The MPII protocol: PCKh on the validation split, as HRNet and mmpose 0.24 count it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import UserError
from ..extras import require
from ..files import read_json
from ..formats.coco import are_numbers
from ..formats.samples import Samples
from ..pose.skeletons import SKELETONS
from .bootstrap import rows_by_image

NUM_JOINTS = 16
LEFT_OUT = (6, 7)
"""Pelvis and thorax do not count in the mean."""
HEAD_BIAS = 0.6
"""Head size over the diagonal of the head box."""
GROUPS = {
    'Head': (9,),
    'Shoulder': (12, 13),
    'Elbow': (11, 14),
    'Wrist': (10, 15),
    'Hip': (2, 3),
    'Knee': (1, 4),
    'Ankle': (0, 5),
}
"""The published columns: each is the mean of a joint's right and left PCKh, not weighted."""


@dataclass(frozen=True)
class MpiiTruth:
    """Ground truth of a split, 1-based pixel coordinates as in MATLAB.

    Attributes:
        joints: (N, 16, 2).
        labelled: (N, 16) booleans.
        head_boxes: (N, 2, 2), two opposite corners of each head box.
    """

    joints: npt.NDArray[np.float64]
    labelled: npt.NDArray[np.bool_]
    head_boxes: npt.NDArray[np.float64]

    @property
    def head_sizes(self) -> npt.NDArray[np.float64]:
        """(N,) 0.6 times the diagonal of the head box, in pixels."""
        return HEAD_BIAS * np.linalg.norm(self.head_boxes[:, 1] - self.head_boxes[:, 0], axis=-1)


def read_annotations(path: str | Path, images: str | Path) -> Samples:
    """The views of MPII's usual JSON annotations (HRNet's `valid.json`, mmpose's `mpii_val.json`).

    Source of the steps: HRNet's MPII loader, kept by mmpose 0.24. `center` is moved down by 15 times `scale` and
    `scale` grows by 1.25, so that no limb is cut off (not where `center` is -1, which is "unknown"); then the centre
    goes from 1-based to 0-based. The view is 200 * scale pixels wide.

    Args:
        path: A list of objects with `image`, `center` (x, y), `scale`; `joints` and `joints_vis` may stand beside.
        images: Folder of the images.

    Returns:
        One sample per entry, in the file's order, with ids 0, 1, ...; `boxes` are the whole views, so their padding
        is 1.

    Raises:
        UserError: If the file has another form.
    """
    entries = read_json(path)
    if (
        not isinstance(entries, list)
        or not entries
        or not all(
            isinstance(e, dict)
            and isinstance(e.get('image'), str)
            and are_numbers([e.get('scale')])
            and are_numbers(e.get('center'))
            and len(e['center']) == 2
            for e in entries
        )
    ):
        raise UserError(
            f'{path} is not an MPII annotation file: expected a list of objects with "image", "center" '
            'and "scale". For a COCO-keypoints file choose --protocol coco.'
        )
    centres = np.array([e['center'] for e in entries], float)
    scales = np.array([e['scale'] for e in entries], float)
    known = centres[:, 0] != -1
    centres[:, 1] += np.where(known, 15 * scales, 0)
    side = 200 * scales * np.where(known, 1.25, 1)
    if not (side > 0).all():
        raise UserError(f'{path}: entry {int(np.argmin(side > 0))} has a scale of {scales.min():g}; expected above 0.')
    centres -= 1
    boxes = np.concatenate([centres - side[:, None] / 2, centres + side[:, None] / 2], axis=1)
    count = len(entries)
    return Samples(
        tuple(Path(images) / e['image'] for e in entries),
        tuple(e['image'] for e in entries),
        tuple(range(count)),
        boxes,
        np.ones(count),
        padding=1.0,
    )


def read_ground_truth(path: str | Path) -> MpiiTruth:
    """Read `mpii_gt_val.mat`.

    Args:
        path: A MATLAB file with `pos_gt_src` (16, 2, N), `jnt_missing` (16, N) and `headboxes_src` (2, 2, N: corner,
            x or y), 1-based.

    Raises:
        UserError: If the file cannot be read, or lacks one of them or has another shape.
        ImportError: If scipy is not installed.
    """
    loadmat = require('scipy.io', 'eval').loadmat
    try:
        content = loadmat(str(path))
    except Exception as error:  # scipy raises whatever its parser stumbles over
        raise UserError(f'{path} cannot be read as a MATLAB file: {error}.') from error
    expected = {'pos_gt_src': (NUM_JOINTS, 2), 'jnt_missing': (NUM_JOINTS,), 'headboxes_src': (2, 2)}
    for name, shape in expected.items():
        if name not in content:
            raise UserError(f'{path} has no variable {name}; expected the layout of mpii_gt_val.mat.')
        if content[name].shape[:-1] != shape:
            raise UserError(f'{path}: {name} is {content[name].shape}; expected {(*shape, "N")}.')
    return MpiiTruth(
        joints=content['pos_gt_src'].astype(float).transpose(2, 0, 1),
        labelled=content['jnt_missing'].T == 0,
        head_boxes=content['headboxes_src'].astype(float).transpose(2, 0, 1),
    )


class MpiiScore:
    """PCKh of predictions.

    `PCKh@t = share of labelled joints with |predicted + 1 - labelled| <= t * head size`. Source: Andriluka et al.,
    "2D human pose estimation: new benchmark and state of the art analysis", CVPR 2014, in the form of HRNet's and
    mmpose 0.24's evaluation.

    Args:
        keypoints: (N, 16, 2) or (N, 16, 3), 0-based image pixels.
        truth: The ground truth of the same people in the same order.
        image_ids: (N,) the photo of each person, for the bootstrap.

    Raises:
        UserError: If the numbers do not fit.
    """

    def __init__(self, keypoints: npt.ArrayLike, truth: MpiiTruth, image_ids: tuple[int | str, ...]):
        keypoints = np.asarray(keypoints, float)
        if keypoints.shape[1] != NUM_JOINTS:
            raise UserError(
                f'MPII has {NUM_JOINTS} joints, the predictions have {keypoints.shape[1]}: the model is '
                'not one for MPII.'
            )
        if not len(keypoints) == len(truth.joints) == len(image_ids):
            raise UserError(
                f'{len(keypoints)} predictions and {len(truth.joints)} people in the ground truth: the '
                'annotations and the .mat file are not of the same split.'
            )
        distance = np.linalg.norm(keypoints[..., :2] + 1 - truth.joints, axis=-1)
        self.errors = distance / truth.head_sizes[:, None]
        self.labelled = truth.labelled
        self._rows = list(rows_by_image(image_ids).values())

    @property
    def num_images(self) -> int:
        """Number of photos."""
        return len(self._rows)

    def by_joint(self, threshold: float = 0.5, rows: npt.ArrayLike | None = None) -> npt.NDArray[np.float64]:
        """PCKh of each joint.

        Args:
            threshold: In head sizes.
            rows: People to count; `None` counts all.

        Returns:
            (16,) fractions in 0..1; NaN for a joint that nobody has labelled.
        """
        chosen = slice(None) if rows is None else np.asarray(rows)
        errors, labelled = self.errors[chosen], self.labelled[chosen]
        with np.errstate(invalid='ignore'):
            return ((errors <= threshold) & labelled).sum(0) / labelled.sum(0)

    def mean(self, threshold: float = 0.5, rows: npt.ArrayLike | None = None) -> float:
        """Mean PCKh: joints weighted by how often they are labelled, pelvis and thorax left out.

        Args:
            threshold: In head sizes.
            rows: People to count; `None` counts all.

        Returns:
            A fraction in 0..1.
        """
        chosen = slice(None) if rows is None else np.asarray(rows)
        counted = [j for j in range(NUM_JOINTS) if j not in LEFT_OUT]
        weights = self.labelled[chosen][:, counted].sum(0)
        values = np.nan_to_num(self.by_joint(threshold, rows)[counted])
        return float((values * weights).sum() / weights.sum()) if weights.sum() else float('nan')

    def figures(self, images: npt.NDArray[np.intp] | None = None, by_joint: bool = False) -> dict[str, float]:
        """The published columns and the means at 0.5 and 0.1, fractions in 0..1.

        HRNet's own script prints as "Mean@0.1" what it counts at 0.11 (index 11 of thresholds from 0 in steps of
        0.01); mmpose 0.24 and this function count at 0.1.

        Args:
            images: Indices of photos, repetitions allowed; `None` counts each once.
            by_joint: Each of the 16 joints too, as `PCKh@0.5: left_knee`.
        """
        rows = None if images is None else np.concatenate([self._rows[i] for i in images])
        joints = self.by_joint(0.5, rows)
        columns = {name: float(joints[list(group)].mean()) for name, group in GROUPS.items()}
        figures = {**columns, 'PCKh@0.5': self.mean(0.5, rows), 'PCKh@0.1': self.mean(0.1, rows)}
        if by_joint:
            for threshold in (0.5, 0.1):
                values = self.by_joint(threshold, rows)
                for joint, value in zip(SKELETONS['mpii'].keypoints, values, strict=True):
                    figures[f'PCKh@{threshold}: {joint}'] = float(value)
        return figures
