"""Label files as boxes and keypoints to learn from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import UserError
from ..files import read_json
from ..formats.coco import are_numbers, read_labels
from ..formats.fit import labelled_size
from ..metrics.mpii import read_annotations
from ..pose.crops import PADDING
from ..pose.skeletons import SKELETONS, Skeleton, read_skeleton


@dataclass(frozen=True)
class People:
    """Labelled people.

    Attributes:
        skeleton: What the keypoints are.
        files: Image file of each person, relative to the folder of the images.
        ids: What each person is called in messages: the annotation's id, or the entry's place.
        boxes: float64 (N, 4), x1, y1, x2, y2 in image pixels, without padding.
        keypoints: float32 (N, K, 3): x, y in image pixels and visibility, 0 where unlabelled.
        teacher: float32 (N, K, 3) predictions with their score, or `None`.
        sample_weights: float64 (N,), how often each is to come, beside the others; above 0. `None` for all alike.
        weights: float32 (N, K), what each keypoint counts in the loss, 0 or more. `None` for all alike.
        sizes: Width and height of each person's image as the labels say them, `None` where they do not.
    """

    skeleton: Skeleton
    files: tuple[str, ...]
    ids: tuple[int | str, ...]
    boxes: npt.NDArray[np.float64]
    keypoints: npt.NDArray[np.float32]
    teacher: npt.NDArray[np.float32] | None = None
    sample_weights: npt.NDArray[np.float64] | None = None
    weights: npt.NDArray[np.float32] | None = None
    sizes: tuple[tuple[int, int] | None, ...] | None = None

    def __len__(self) -> int:
        return len(self.files)

    def part(self, rows: npt.NDArray[np.intp]) -> 'People':
        """Some of them."""

        def of(values: Any) -> Any:
            return tuple(values[i] for i in rows) if isinstance(values, tuple) else values[rows]

        others = {field.name: getattr(self, field.name) for field in fields(self) if field.name != 'skeleton'}
        return replace(self, **{name: of(values) for name, values in others.items() if values is not None})


def read_people(
    labels: str | Path,
    skeleton: str | Mapping[str, Any] | Skeleton | None = None,
    teacher_field: str | None = None,
    sample_field: str | None = None,
    keypoint_field: str | None = None,
) -> People:
    """Read a label file.

    Args:
        labels: COCO-keypoints JSON, or the MPII annotations as JSON (a list).
        skeleton: What the keypoints are; `None` to take the names (`keypoints`), bones (`skeleton`, counted from 1)
            and, if given, `flip_pairs` (counted from 0) and `sigmas` of the file's category.
        teacher_field: Field of the annotations with a teacher's keypoints (COCO only).
        sample_field: Field of the annotations with a number above 0, how often a person is to come (COCO only).
        keypoint_field: Field of the annotations with what each keypoint counts in the loss (COCO only).

    Returns:
        The people that are not crowds, have a box and at least one labelled keypoint.

    Raises:
        UserError: If the file is broken, or does not fit the skeleton; the message names the entry.
    """
    if skeleton is not None and not isinstance(skeleton, Skeleton):
        skeleton = read_skeleton(skeleton)
    if isinstance(read_json(labels), list):
        settings = {
            'teacher.keypoints': teacher_field,
            'data.sample_weights': sample_field,
            'data.keypoint_weights': keypoint_field,
        }
        for setting, field in settings.items():
            if field:
                raise UserError(f'{labels}: MPII annotations have no field for {setting}; use a COCO file.')
        return _read_mpii(labels, skeleton or SKELETONS['mpii'])
    coco = read_labels(labels)
    people, count = coco.people, coco.num_keypoints
    skeleton = skeleton or coco.skeleton()
    if skeleton is None:
        raise UserError(
            f'{labels} does not name its {count} keypoints: give the category a list "keypoints", or set data.skeleton.'
        )
    if count != skeleton.num_keypoints:
        raise UserError(f'{labels} has people of {count} keypoints; the skeleton has {skeleton.num_keypoints}.')

    def field_of(field: str | None, setting: str, size: int, fits: Callable[[list], bool], expected: str) -> Any:
        """The numbers (N, size) of a field of everybody, if it is asked for."""
        if not field:
            return None
        rows: list[list] = []
        for person in people:
            row: Any = person.get(field)
            rows.append(row if isinstance(row, list) else [row])
            if not (are_numbers(rows[-1]) and len(rows[-1]) == size and fits(rows[-1])):
                raise UserError(
                    f'{labels}: annotation {person["id"]} has {str(row)[:80]} in {field!r}, which '
                    f'{setting} asks for: {expected}. Without such a field: --set {setting}=null.'
                )
        return np.array(rows, float)

    boxes = np.array([person['bbox'] for person in people], float)
    boxes[:, 2:] += boxes[:, :2]
    for person, box in zip(people, boxes, strict=True):
        if not (box[2:] > box[:2]).all():
            raise UserError(
                f'{labels}: annotation {person["id"]} has an empty bbox {person["bbox"]}; expected x, y, width, height.'
            )
    teacher = field_of(teacher_field, 'teacher.keypoints', 3 * count, lambda _: True, f'{3 * count} numbers')
    shares = field_of(sample_field, 'data.sample_weights', 1, lambda row: row[0] > 0, 'a number above 0')
    asked = f'{count} numbers, 0 or more'
    weights = field_of(keypoint_field, 'data.keypoint_weights', count, lambda row: min(row) >= 0, asked)
    images = [coco.images[person['image_id']] for person in people]
    return People(
        skeleton,
        tuple(image['file_name'] for image in images),
        tuple(person['id'] for person in people),
        boxes,
        coco.keypoints(people).astype(np.float32),
        None if teacher is None else teacher.reshape(-1, count, 3).astype(np.float32),
        None if shares is None else shares[:, 0],
        None if weights is None else weights.astype(np.float32),
        tuple(labelled_size(image) for image in images),
    )


def _read_mpii(path: str | Path, skeleton: Skeleton) -> People:
    samples = read_annotations(path, '')
    entries = read_json(path)
    keypoints = np.zeros((len(entries), skeleton.num_keypoints, 3), np.float32)
    for i, entry in enumerate(entries):
        where = f'{path}: entry {i}'
        given, seen = entry.get('joints'), entry.get('joints_vis')
        if not (are_numbers(seen) and isinstance(given, list) and all(are_numbers(joint) for joint in given)):
            raise UserError(f'{where} needs "joints" (x, y of each) and "joints_vis", finite numbers, to learn from.')
        try:
            joints, visible = np.array(given, float), np.array(seen, float)
        except ValueError as error:
            raise UserError(f'{where} has joints of different lengths; expected x, y of each.') from error
        if joints.shape != (skeleton.num_keypoints, 2) or visible.shape != joints.shape[:1]:
            raise UserError(f'{where} has joints of shape {joints.shape}; expected ({skeleton.num_keypoints}, 2).')
        # MATLAB counts pixels from 1
        keypoints[i, :, :2] = joints - 1
        keypoints[i, :, 2] = np.where(visible > 0, 2, 0)
    keep = (keypoints[..., 2] > 0).any(1) & (samples.boxes[:, 2] > samples.boxes[:, 0])
    if not keep.any():
        raise UserError(f'{path} has no person with a labelled joint.')
    # the samples' boxes are whole views, which the crops will pad again
    centre = (samples.boxes[:, :2] + samples.boxes[:, 2:]) / 2
    half = (samples.boxes[:, 2:] - samples.boxes[:, :2]) / 2 / PADDING
    boxes = np.concatenate((centre - half, centre + half), 1)
    picked = np.flatnonzero(keep)
    files = tuple(str(entries[i]['image']) for i in picked)
    return People(skeleton, files, tuple(picked.tolist()), boxes[keep], keypoints[keep])
