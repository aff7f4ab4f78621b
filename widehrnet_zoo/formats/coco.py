"""COCO-keypoints label files, and files of boxes beside them."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import UserError
from ..files import read_json
from ..pose.crops import PADDING
from ..pose.skeletons import SKELETONS, Skeleton
from .samples import Samples

LARGEST = 1e12
"""Size of the largest number that is taken for a coordinate, an area or a score."""


@dataclass(frozen=True, repr=False)
class CocoLabels:
    """A COCO-keypoints file.

    Attributes:
        images: Image entries by id, in the file's order.
        annotations: The annotations of the keypoint category, crowds included.
        category: The category with keypoints.
    """

    images: dict[int | str, dict[str, Any]]
    annotations: list[dict[str, Any]]
    category: dict[str, Any]

    def __repr__(self) -> str:
        people = f'{len(self.annotations)} annotations of {self.category.get("name")!r}'
        return f'CocoLabels({len(self.images)} images, {people}, {self.num_keypoints} keypoints)'

    @property
    def names(self) -> tuple[str, ...]:
        """Keypoint names; empty if the file gives none."""
        return tuple(self.category.get('keypoints') or ())

    @property
    def people(self) -> list[dict[str, Any]]:
        """The annotations that are not crowds and have a labelled keypoint."""
        return [a for a in self.annotations if not a['iscrowd'] and a['num_keypoints'] > 0]

    @property
    def num_keypoints(self) -> int:
        """Keypoints of a person; 0 where neither a name nor a person tells."""
        return len(self.annotations[0]['keypoints']) // 3 if self.annotations else len(self.names)

    def keypoints(self, annotations: list[dict[str, Any]]) -> npt.NDArray[np.float64]:
        """Stacked keypoints of annotations, (N, K, 3): x, y in pixels and COCO's visibility."""
        return np.array([a['keypoints'] for a in annotations], float).reshape(len(annotations), self.num_keypoints, 3)

    def skeleton(self) -> Skeleton | None:
        """What the keypoints are, by the category.

        Its fields: `keypoints`, `skeleton` (bones, counted from 1), `flip_pairs` (counted from 0; found by the names
        where they are missing) and `sigmas` (of OKS).

        Returns:
            The skeleton; one of `SKELETONS` where the names and their order are its own, also for 17 keypoints
            without names; `None` for any others without names.

        Raises:
            UserError: If the category's lists are wrong.
        """
        category, names = self.category, self.names
        count = self.num_keypoints
        sigmas = category.get('sigmas')
        if sigmas is not None and not are_numbers(sigmas):
            raise UserError(f'"sigmas" of the category must be a number for each keypoint, not {sigmas!r:.80}.')
        for known in SKELETONS.values():
            if known.keypoints == names or (not names and known.name == 'coco' and count == known.num_keypoints):
                return known if sigmas is None else replace(known, sigmas=tuple(sigmas))
        try:
            bones = [[a - 1, b - 1] for a, b in category.get('skeleton') or ()]
        except (TypeError, ValueError) as error:
            raise UserError('"skeleton" of the category must be pairs of numbers counted from 1.') from error
        if not names:
            return None
        return Skeleton.from_dict(
            {
                'name': str(category.get('name', 'custom')),
                'keypoints': names,
                'flip_pairs': category.get('flip_pairs'),
                'bones': bones,
                'sigmas': sigmas,
            }
        )


def are_numbers(values: Any) -> bool:
    """Whether something from a JSON file is a list of finite numbers, none beyond 1e12, so that sums stay finite."""
    return isinstance(values, list) and all(
        isinstance(v, (int, float)) and not isinstance(v, bool) and -LARGEST <= v <= LARGEST for v in values
    )


def is_id(value: Any) -> bool:
    """Whether something from a JSON file can tell entries apart: a whole number or a text."""
    return (isinstance(value, (int, str)) and not isinstance(value, bool)) or (
        isinstance(value, float) and value.is_integer()
    )


def read_labels(path: str | Path, keypoints: bool = True, nobody: bool = False) -> CocoLabels:
    """Read and check a COCO-keypoints file, or a file of COCO boxes.

    Missing `iscrowd` counts as 0, missing `num_keypoints` is counted, an annotation without `keypoints` has none.

    Args:
        path: The JSON.
        keypoints: Whether keypoints are needed. Without, boxes are enough: those of the category with keypoints, else
            of the category `person`, else of the only one.
        nobody: Whether it is right that nobody is labelled in any photo.

    Raises:
        UserError: If the file is no COCO-keypoints file or an entry is broken; the message names the entry.
    """
    data = read_json(path)
    if (
        not isinstance(data, dict)
        or not isinstance(data.get('images'), list)
        or not isinstance(data.get('annotations'), list)
    ):
        raise UserError(
            f'{path} is not a COCO-keypoints file: expected an object with lists "images" and '
            '"annotations". For the MPII annotations choose --protocol mpii.'
        )
    category = _keypoint_category(data, path) if keypoints else _box_category(data, path)
    images: dict[int | str, dict[str, Any]] = {}
    for index, image in enumerate(data['images']):
        if not isinstance(image, dict) or not is_id(image.get('id')) or not isinstance(image.get('file_name'), str):
            raise UserError(
                f'{path}: image entry {index} needs an "id", a whole number or a text, and a "file_name", a text.'
            )
        if not are_numbers([image.get(side) or 0 for side in ('width', 'height')]):
            raise UserError(f'{path}: image {image["id"]} has a width or height that is not a number.')
        if image['id'] in images:
            raise UserError(f'{path}: two images have the id {image["id"]}.')
        images[image['id']] = image
    count = len(category.get('keypoints') or ()) or next(
        (
            len(a['keypoints']) // 3
            for a in data['annotations']
            if isinstance(a, dict) and isinstance(a.get('keypoints'), list) and a['keypoints']
        ),
        0,
    )
    annotations = []
    ids = set()
    for index, raw in enumerate(data['annotations']):
        if not isinstance(raw, dict):
            raise UserError(f'{path}: annotation entry {index} is {raw!r}; expected an object.')
        if raw.get('category_id', category['id']) != category['id']:
            continue
        entry = {'iscrowd': 0, 'keypoints': [0] * 3 * count, 'category_id': category['id'], **raw}
        entry.setdefault('id', index + 1)
        if not is_id(entry['id']):
            raise UserError(f'{path}: annotation entry {index} has no number or text as "id", but {entry["id"]!r}.')
        where = f'{path}: annotation {entry["id"]}'
        if entry['id'] in ids:
            of_place = '' if 'id' in raw else f': entry {index} has no "id", so it is counted; give all an id, or none'
            raise UserError(f'{where} is there twice{of_place}.')
        ids.add(entry['id'])
        if not is_id(entry.get('image_id')) or entry['image_id'] not in images:
            raise UserError(f'{where} is of image {entry.get("image_id")}, which is not among the images.')
        if not are_numbers(entry['keypoints']) or len(entry['keypoints']) != 3 * count:
            raise UserError(f'{where} has no "keypoints" of 3 x {count} finite numbers.')
        if not are_numbers(entry.get('bbox')) or len(entry['bbox']) != 4:
            raise UserError(f'{where} has no "bbox" of four finite numbers (x, y, width, height).')
        if not are_numbers([entry.get('area', 0)]):
            raise UserError(f'{where} has the area {entry["area"]!r}; expected a finite number.')
        entry.setdefault('num_keypoints', sum(v > 0 for v in entry['keypoints'][2::3]))
        if not are_numbers([entry['num_keypoints']]):
            raise UserError(f'{where} has {entry["num_keypoints"]!r} as "num_keypoints"; expected a number.')
        if not isinstance(entry['iscrowd'], int):
            raise UserError(f'{where} has {entry["iscrowd"]!r} as "iscrowd"; expected 0 or 1.')
        annotations.append(entry)
    labels = CocoLabels(images, annotations, category)
    if _are_corners(labels):
        raise UserError(
            f'{path}: most boxes reach out of their images, and all are within them when taken as x1, y1, x2, y2: the '
            '"bbox" of COCO is x, y, width, height.'
        )
    if not keypoints:
        if len(annotations) > 1 and max(max(a['bbox']) for a in annotations) <= 1:
            raise UserError(
                f'{path} has all boxes within one pixel: they are in pixels, not in fractions of the image.'
            )
        return labels
    if not labels.people and not nobody:
        raise UserError(f'{path} has no person with a labelled keypoint (crowds do not count).')
    points = labels.keypoints(labels.people)
    seen = points[points[..., 2] > 0]
    if len(seen) > 1 and 0 < seen[:, :2].max() <= 1:
        raise UserError(
            f'{path} has all keypoints within one pixel: they are in pixels, not in fractions of the image.'
        )
    return labels


def _are_corners(labels: CocoLabels) -> bool:
    """Whether the boxes of a file are x1, y1, x2, y2, as far as that can be told: not from one or two."""
    sizes = [[labels.images[a['image_id']].get(side) or 0 for side in ('width', 'height')] for a in labels.annotations]
    known = [i for i, size in enumerate(sizes) if min(size) > 0]
    if len(known) < 3:
        return False
    size = np.array([sizes[i] for i in known], float)
    boxes = np.array([labels.annotations[i]['bbox'] for i in known], float)
    first, second = boxes[:, :2], boxes[:, 2:]
    out = (first + second > 1.05 * size + 2).any(1)
    return bool(out.mean() > 0.5 and (first >= -1).all() and (second > first).all() and (second <= size + 1).all())


def _box_category(data: dict[str, Any], path: str | Path) -> dict[str, Any]:
    first = _keypoint_category(data, path)
    categories = data.get('categories') or [first]
    if first.get('keypoints') or len(categories) == 1:
        return first
    people = [c for c in categories if str(c.get('name')).lower() == 'person']
    if len(people) != 1:
        names = ', '.join(str(c.get('name')) for c in categories)
        raise UserError(f'{path} has the categories {names}; expected one only, or one that is called person.')
    return people[0]


def _keypoint_category(data: dict[str, Any], path: str | Path) -> dict[str, Any]:
    categories = data.get('categories') or [{'id': 1, 'name': 'person'}]
    if not isinstance(categories, list) or not all(isinstance(c, dict) and is_id(c.get('id')) for c in categories):
        raise UserError(f'{path}: "categories" is not a list of objects, each with an "id".')
    with_keypoints = [c for c in categories if c.get('keypoints')]
    for category in with_keypoints:
        names = category['keypoints']
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise UserError(f'{path}: the "keypoints" of category {category["id"]} are not a list of names.')
    if len(with_keypoints) > 1:
        raise UserError(
            f'{path} has keypoints for {len(with_keypoints)} categories '
            f'({", ".join(str(c.get("name")) for c in with_keypoints)}); expected one.'
        )
    return with_keypoints[0] if with_keypoints else categories[0]


def clip_box(box: npt.ArrayLike, width: int, height: int) -> tuple[float, float, float, float] | None:
    """An annotated box as mmpose 0.24 clips it to the image.

    The last pixel counts: x2 = min(width - 1, x1 + w - 1), so every box loses one pixel on its right and below.

    Args:
        box: x, y, width, height in pixels.
        width: Of the image.
        height: Of the image.

    Returns:
        x1, y1, x2, y2 in pixels, or `None` if nothing is left.
    """
    x, y, w, h = (float(v) for v in np.asarray(box))
    x1, y1 = max(0.0, x), max(0.0, y)
    x2, y2 = min(width - 1.0, x1 + max(0.0, w - 1)), min(height - 1.0, y1 + max(0.0, h - 1))
    return (x1, y1, x2, y2) if x2 > x1 and y2 > y1 else None


def labelled_boxes(labels: CocoLabels, images: str | Path, clip: bool = True, padding: float = PADDING) -> Samples:
    """The annotated box of every person with a labelled keypoint, image by image.

    Args:
        labels: The labels.
        images: Folder of the images.
        clip: Clip as mmpose 0.24 does (`clip_box`); else the boxes are taken as they are.
        padding: Growth of a box to the network's view.

    Returns:
        The samples; box scores are 1.

    Raises:
        UserError: If an image has no size, or a box none.
    """
    rows = []
    for person in labels.people:
        image = labels.images[person['image_id']]
        x, y, w, h = (float(v) for v in person['bbox'])
        box: tuple[float, float, float, float] | None = (x, y, x + w, y + h)
        if clip:
            if not image.get('width') or not image.get('height'):
                raise UserError(f'Image {image["id"]} has no width and height in the labels; clipping needs them.')
            box = clip_box(person['bbox'], image['width'], image['height'])
            if box is None or person.get('area', 1) <= 0:
                continue
        elif not (x + w > x and y + h > y):
            raise UserError(f'Annotation {person["id"]} has an empty bbox {person["bbox"]}.')
        rows.append((person['image_id'], person['id'], box, 1.0))
    if not rows:
        raise UserError('The labels leave no box to look at.')
    return _samples(labels, images, rows, padding)


def detected_boxes(
    labels: CocoLabels,
    images: str | Path,
    detections: str | Path,
    min_score: float = 0.0,
    padding: float = PADDING,
) -> Samples:
    """A detector's boxes, image by image.

    Args:
        labels: The labels.
        images: Folder of the images.
        detections: COCO detection results: a list of objects with `image_id`, `category_id`, `bbox` (x, y, width,
            height) and `score`. Other categories are left out; boxes are not clipped, as in mmpose 0.24.
        min_score: Lower boxes are left out.
        padding: Growth of a box to the network's view.

    Returns:
        The samples, each image's in the file's order.

    Raises:
        UserError: If the file has another form, or none of its boxes is of these images.
    """
    found = read_json(detections)
    if not isinstance(found, list) or not all(
        isinstance(d, dict)
        and is_id(d.get('image_id'))
        and are_numbers([d.get('score')])
        and are_numbers(d.get('bbox'))
        and len(d['bbox']) == 4
        for d in found
    ):
        raise UserError(
            f'{detections} is not a file of COCO detections: expected a list of objects with "image_id", '
            '"category_id", "bbox" (x, y, width, height) and "score".'
        )
    rows = []
    for detection in found:
        x, y, w, h = (float(v) for v in detection['bbox'])
        of_category = detection.get('category_id', labels.category['id']) == labels.category['id']
        if (
            detection['image_id'] in labels.images
            and of_category
            and detection['score'] >= min_score
            and x + w > x
            and y + h > y
        ):
            rows.append((detection['image_id'], None, (x, y, x + w, y + h), float(detection['score'])))
    if not found:
        return _samples(labels, images, [], padding)
    if not rows:
        raise UserError(
            f'None of the {len(found)} boxes of {detections} is of an image and of the category '
            f'{labels.category["id"]} of the labels, with a score of at least {min_score}.'
        )
    if max(max(row[2]) for row in rows) <= 1:
        raise UserError(
            f'{detections} has all boxes within one pixel: they are in pixels, not in fractions of the image.'
        )
    return _samples(labels, images, rows, padding)


def _samples(labels: CocoLabels, folder: str | Path, rows: list[tuple], padding: float) -> Samples:
    order = {image_id: index for index, image_id in enumerate(labels.images)}
    rows = sorted(rows, key=lambda row: order[row[0]])
    image_ids, annotation_ids, boxes, scores = zip(*rows, strict=True) if rows else ((),) * 4
    return Samples(
        tuple(Path(folder) / labels.images[i]['file_name'] for i in image_ids),
        image_ids,
        annotation_ids,
        np.array(boxes, float).reshape(-1, 4),
        np.array(scores, float),
        padding,
    )
