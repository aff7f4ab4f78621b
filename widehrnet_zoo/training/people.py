"""Label files as boxes and keypoints to learn from."""

from collections.abc import Mapping
from dataclasses import dataclass
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

        def of(values: npt.NDArray | None) -> Any:
            return None if values is None else values[rows]

        return People(
            self.skeleton,
            tuple(self.files[i] for i in rows),
            tuple(self.ids[i] for i in rows),
            self.boxes[rows],
            self.keypoints[rows],
            of(self.teacher),
            of(self.sample_weights),
            of(self.weights),
            None if self.sizes is None else tuple(self.sizes[i] for i in rows),
        )


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
    try:
        content = read_json(labels)
        if isinstance(content, list):
            settings = {
                'teacher.keypoints': teacher_field,
                'data.sample_weights': sample_field,
                'data.keypoint_weights': keypoint_field,
            }
            for setting, field in settings.items():
                if field:
                    raise UserError(f'{labels}: MPII annotations have no field for {setting}; use a COCO file.')
            return _read_mpii(labels, skeleton or SKELETONS['mpii'])
        _check_numbers(content, labels)
        coco = read_labels(labels)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f'{labels} is a broken label file: {type(error).__name__} {error}.') from error
    if skeleton is None:
        skeleton = coco.skeleton()
        if skeleton is None:
            count = len(coco.people[0]['keypoints']) // 3
            raise UserError(
                f'{labels} does not name its {count} keypoints: give the category a list "keypoints", or set '
                'data.skeleton.'
            )
    rows = []
    for person in coco.people:
        where = f'{labels}: annotation {person["id"]}'
        points = _numbers(person['keypoints'], where, 'keypoints')
        if len(points) != 3 * skeleton.num_keypoints:
            raise UserError(f'{where} has {len(points) // 3} keypoints; the skeleton has {skeleton.num_keypoints}.')
        x, y, w, h = _numbers(person['bbox'], where, 'bbox')
        if not (x + w > x and y + h > y):
            raise UserError(f'{where} has an empty bbox {person["bbox"]}; expected x, y, width, height.')
        file = coco.images[person['image_id']].get('file_name')
        if not isinstance(file, str):
            raise UserError(f'{labels}: image {person["image_id"]} has no "file_name".')
        seen = None
        if teacher_field:
            if teacher_field not in person:
                raise UserError(f'{where} has no field {teacher_field!r}, which teacher.keypoints asks for.')
            seen = _numbers(person[teacher_field], where, teacher_field)
            if len(seen) != len(points):
                raise UserError(f'{where} has {len(seen)} numbers in {teacher_field!r}; expected {len(points)}.')
        sample_weight: Any = person.get(sample_field) if sample_field else 1
        if not are_numbers([sample_weight]) or sample_weight <= 0:
            raise UserError(
                f'{where} has {sample_weight!r} in {sample_field!r}, which data.sample_weights asks for: a number '
                'above 0.'
            )
        counted: Any = person.get(keypoint_field) if keypoint_field else None
        if keypoint_field and not (are_numbers(counted) and 3 * len(counted) == len(points) and min(counted) >= 0):
            raise UserError(
                f'{where} has {str(counted)[:80]} in {keypoint_field!r}, which data.keypoint_weights asks for: '
                f'{skeleton.num_keypoints} numbers, 0 or more.'
            )
        size = labelled_size(coco.images[person['image_id']])
        rows.append((file, person['id'], (x, y, x + w, y + h), points, seen, sample_weight, counted, size))
    files, ids, boxes, keypoints, teacher, sample_weights, weights, sizes = zip(*rows, strict=True)
    shape = (len(rows), skeleton.num_keypoints, 3)
    return People(
        skeleton,
        files,
        ids,
        np.array(boxes, float),
        np.array(keypoints, np.float32).reshape(shape),
        np.array(teacher, np.float32).reshape(shape) if teacher_field else None,
        np.array(sample_weights, float) if sample_field else None,
        np.array(weights, np.float32) if keypoint_field else None,
        sizes,
    )


def _check_numbers(content: Any, path: str | Path) -> None:
    annotations = content.get('annotations') if isinstance(content, Mapping) else None
    for i, annotation in enumerate(annotations if isinstance(annotations, list) else ()):
        if not isinstance(annotation, Mapping):
            raise UserError(f'{path}: entry {i} of the annotations is not an object.')
        for what in ('keypoints', 'bbox'):
            if what in annotation:
                _numbers(annotation[what], f'{path}: annotation {annotation.get("id", i)}', what)


def _numbers(values: Any, where: str, what: str) -> npt.NDArray[np.float64]:
    if not are_numbers(values):
        raise UserError(f'{where}: {what} must be a flat list of finite numbers.')
    return np.array(values, float)


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
