"""The COCO keypoint protocol: rescoring, suppression, and average precision by pycocotools."""

import contextlib
import copy
import io
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import UserError
from ..extras import require
from ..files import read_json
from ..formats.coco import CocoLabels, are_numbers, is_id
from ..formats.samples import Samples
from ..pose.crops import PADDING
from ..pose.results import rescore
from .oks import oks_nms

FIGURES = ('AP', 'AP50', 'AP75', 'APm', 'APl', 'AR', 'AR50', 'AR75', 'ARm', 'ARl')
"""What pycocotools summarises for keypoints, in its order."""


def view_areas(boxes: npt.ArrayLike, size: tuple[int, int], padding: float = PADDING) -> npt.NDArray[np.float64]:
    """Areas of the boxes' views, which mmpose 0.24 uses in the suppression.

    Args:
        boxes: (N, 4) x1, y1, x2, y2 in pixels.
        size: Height and width of the network's input.
        padding: Growth of a box to the view.

    Returns:
        (N,) in square image pixels.
    """
    boxes, aspect = np.asarray(boxes, float), size[1] / size[0]
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    width = np.maximum(width, height * aspect)
    return width * width / aspect * padding**2


def to_results(
    samples: Samples,
    keypoints: npt.ArrayLike,
    sigmas: Sequence[float] | None,
    size: tuple[int, int],
    category_id: int = 1,
    rescoring: float | None = 0.2,
    nms: float | None = 0.9,
) -> list[dict[str, Any]]:
    """Predictions in COCO's results format.

    Args:
        samples: What was predicted on.
        keypoints: (N, K, 3) x, y in image pixels and score.
        sigmas: (K,) falloffs; needed for the suppression.
        size: Height and width of the network's input.
        category_id: Category of the results.
        rescoring: Threshold of `rescore`; `None` keeps the boxes' scores.
        nms: OKS above which the lower score of an image goes; `None` keeps all.

    Returns:
        One dict per kept person: `image_id`, `category_id`, `keypoints` (3 K numbers), `score`, and, where the box
        is an annotated one, its annotation's id as `ann` (the COCO API ignores it).
    """
    keypoints = np.asarray(keypoints, float)
    scores = samples.box_scores if rescoring is None else rescore(keypoints[..., 2], samples.box_scores, rescoring)
    by_image = defaultdict(list)
    for row, image_id in enumerate(samples.image_ids):
        by_image[image_id].append(row)
    if nms is not None and sigmas is None:
        raise UserError('The suppression of double predictions needs OKS sigmas, and this skeleton has none.')
    areas = view_areas(samples.boxes, size, samples.padding)
    results = []
    for image_id, rows in by_image.items():
        if nms is not None and sigmas is not None:
            rows = [rows[i] for i in oks_nms(keypoints[rows], scores[rows], areas[rows], sigmas, nms)]
        for row in rows:
            result = {
                'image_id': image_id,
                'category_id': category_id,
                'keypoints': keypoints[row].ravel().tolist(),
                'score': float(scores[row]),
            }
            if samples.annotation_ids[row] is not None:
                result['ann'] = samples.annotation_ids[row]
            results.append(result)
    return results


def result_entries(path: str | Path) -> list[dict[str, Any]]:
    """The entries of a file in COCO's results format, each with an `image_id`.

    Returns:
        Its entries, whose other fields were not looked at.

    Raises:
        UserError: If it is not a list of objects with `image_id`; the message names the entry.
    """
    results = read_json(path)
    if not isinstance(results, list):
        raise UserError(f'{path} is not a COCO results file: expected a list of objects.')
    for index, result in enumerate(results):
        if not isinstance(result, dict) or not is_id(result.get('image_id')) or not is_id(result.get('ann', 0)):
            raise UserError(f'{path}: entry {index} needs "image_id", and "ann" if it is there, as a number or a text.')
    return results


def read_results(path: str | Path, num_keypoints: int | None = None) -> list[dict[str, Any]]:
    """Read a file in COCO's results format.

    Raises:
        UserError: If it has another form; the message names the entry.
    """
    results = result_entries(path)
    for index, result in enumerate(results):
        if not {'keypoints', 'score'} <= result.keys():
            raise UserError(f'{path}: entry {index} lacks "keypoints" or "score".')
        if not are_numbers(result['keypoints']) or not are_numbers([result['score']]):
            raise UserError(f'{path}: entry {index} has keypoints or a score that are not finite numbers.')
        count = len(result['keypoints'])
        if count % 3 or num_keypoints not in (None, count // 3):
            raise UserError(f'{path}: entry {index} has {count} keypoint numbers; expected 3 x {num_keypoints or "K"}.')
    return results


def of_category(results: list[dict[str, Any]], labels: CocoLabels) -> list[dict[str, Any]]:
    """The results of the labels' category.

    Raises:
        UserError: If there is none, or one is of none of the labels' images.
    """
    category = labels.category['id']
    mine = [r for r in results if r.get('category_id', category) == category]
    if results and not mine:
        raise UserError(
            f'None of the {len(results)} results is of the category {category!r} of the labels; the first is of '
            f'{results[0]["category_id"]!r}.'
        )
    for result in mine:
        if result['image_id'] not in labels.images:
            raise UserError(f'The results have image {result["image_id"]!r}, which is not in the labels.')
    return mine


class CocoEvaluation:
    """An evaluation by pycocotools (`COCOeval`) that can count its photos anew.

    Args:
        labels: The labels.
        results: Predictions in COCO's results format, of the labels' images and category.
        kind: `'keypoints'` or `'bbox'`.
        sigmas: (K,) OKS falloffs, for keypoints.
    """

    def __init__(
        self, labels: CocoLabels, results: list[dict[str, Any]], kind: str, sigmas: Sequence[float] | None = None
    ):
        coco, cocoeval = require('pycocotools.coco', 'eval'), require('pycocotools.cocoeval', 'eval')
        # pycocotools takes an annotation's id 0 for none found, and ids that are texts or fractions not at all
        order = list(labels.images)
        with contextlib.suppress(TypeError):  # numbers and texts have no order among each other
            order.sort()
        self._places = {image_id: place for place, image_id in enumerate(order, 1)}
        with contextlib.redirect_stdout(io.StringIO()):
            truth = coco.COCO()
            truth.dataset = {
                'images': [{**labels.images[image_id], 'id': place} for image_id, place in self._places.items()],
                'annotations': [
                    {**a, 'id': number, 'image_id': self._places[a['image_id']], 'category_id': 1}
                    for number, a in enumerate(labels.annotations, 1)
                ],
                'categories': [{**labels.category, 'id': 1}],
            }
            truth.createIndex()
            if results:
                # boxes of results are areas to pycocotools, if the first result has one
                with_box = all(are_numbers(r.get('bbox')) and len(r['bbox']) == 4 for r in results)
                kept = ['score', *(['bbox'] if with_box else []), *(['keypoints'] if kind == 'keypoints' else [])]
                found = truth.loadRes(
                    [
                        {'image_id': self._places[r['image_id']], 'category_id': 1, **{key: r[key] for key in kept}}
                        for r in results
                    ]
                )
            else:
                found = coco.COCO()
                found.dataset = {**truth.dataset, 'annotations': []}
                found.createIndex()
            self._eval = cocoeval.COCOeval(truth, found, kind)
            self._eval.params.catIds = [1]
            if sigmas is not None:
                self._eval.params.kpt_oks_sigmas = np.asarray(sigmas, float)
            self._eval.evaluate()

    @property
    def num_images(self) -> int:
        """Number of images."""
        return len(self._eval.params.imgIds)

    def positions(self, image_ids: Sequence[int | str]) -> list[int]:
        """Indices of photos in the evaluator's own order.

        Returns:
            What `figures` takes.
        """
        return [self._places[image_id] - 1 for image_id in image_ids]

    def drawn(self, images: Sequence[int] | None = None) -> Any:
        """The evaluation summed up.

        Args:
            images: Indices of images to count, repetitions allowed (for the bootstrap); `None` counts each once.

        Returns:
            A `COCOeval` after `accumulate()` and `summarize()`.
        """
        chosen = range(self.num_images) if images is None else images
        drawn = copy.copy(self._eval)
        drawn.params = copy.copy(self._eval.params)
        drawn.params.imgIds = list(range(len(chosen)))
        drawn._paramsEval = drawn.params
        per_range = [
            self._eval.evalImgs[start : start + self.num_images]
            for start in range(0, len(self._eval.evalImgs), self.num_images)
        ]
        drawn.evalImgs = [block[i] for block in per_range for i in chosen]
        with contextlib.redirect_stdout(io.StringIO()):
            drawn.accumulate()
            drawn.summarize()
        return drawn


class CocoScore(CocoEvaluation):
    """Average precision of results, by pycocotools (`COCOeval`, keypoints).

    Args:
        labels: The labels.
        results: Predictions in COCO's results format.
        sigmas: (K,) OKS falloffs.

    Raises:
        UserError: If labels and results do not fit together.
    """

    def __init__(self, labels: CocoLabels, results: list[dict[str, Any]], sigmas: Sequence[float]):
        num = labels.num_keypoints or len(sigmas)
        if num != len(sigmas):
            raise UserError(f'The labels have {num} keypoints and the skeleton has {len(sigmas)}.')
        for annotation in labels.annotations:
            if 'area' not in annotation:
                raise UserError(f'Annotation {annotation["id"]} has no "area", which OKS is measured in.')
        mine = of_category(results, labels)
        for result in mine:
            if len(result['keypoints']) != 3 * num:
                raise UserError(f'The results have {len(result["keypoints"]) / 3:g} keypoints, the labels {num}.')
        super().__init__(labels, mine, 'keypoints', sigmas)

    def figures(self, images: Sequence[int] | None = None) -> dict[str, float]:
        """The ten figures of the COCO summary.

        Args:
            images: Indices of images to count, repetitions allowed (for the bootstrap); `None` counts each once.

        Returns:
            `FIGURES` by name, fractions in 0..1; -1, as in pycocotools, where nothing is labelled.
        """
        return dict(zip(FIGURES, (float(v) for v in self.drawn(images).stats), strict=True))
