"""Person boxes by COCO's protocol: average precision, and the best trade of recall and precision."""

from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import UserError
from ..formats.coco import CocoLabels, are_numbers, is_id, read_json
from .coco import CocoEvaluation

SMALLEST_SHARE, SMALLEST = 0.08, 24
"""People of less than this share of the photo's height, or of fewer pixels, neither count nor are missed."""

AT = ('best F1', 'recall at best F1', 'precision at best F1', 'score at best F1')


def read_box_results(path: Any) -> list[dict[str, Any]]:
    """Read a file of boxes in COCO's results format.

    Args:
        path: The JSON.

    Returns:
        Its entries.

    Raises:
        UserError: If it has another form; the message names the entry.
    """
    results = read_json(path)
    if not isinstance(results, list):
        raise UserError(f'{path} is not a COCO results file: expected a list of objects.')
    for index, result in enumerate(results):
        if not isinstance(result, dict) or not is_id(result.get('image_id')):
            raise UserError(f'{path}: entry {index} lacks "image_id".')
        if not are_numbers(result.get('bbox')) or len(result['bbox']) != 4 or not are_numbers([result.get('score')]):
            raise UserError(f'{path}: entry {index} needs "bbox" (x, y, width, height) and "score", finite numbers.')
    return results


class BoxScore(CocoEvaluation):
    """Average precision of person boxes, by pycocotools (`COCOeval`, boxes).

    Crowds, and people below `SMALLEST_SHARE` or `SMALLEST`, are neither found nor missed.

    Args:
        labels: The labels.
        results: Boxes in COCO's results format.

    Raises:
        UserError: If labels and results do not fit together, or an image has no size.
        ImportError: If pycocotools is not installed.
    """

    def __init__(self, labels: CocoLabels, results: list[dict[str, Any]]):
        annotations = []
        for annotation in labels.annotations:
            height = labels.images[annotation['image_id']].get('height')
            if not height:
                raise UserError(f'Image {annotation["image_id"]!r} has no height in the labels; box sizes need it.')
            _, _, w, h = annotation['bbox']
            ignored = bool(annotation['iscrowd']) or h < SMALLEST_SHARE * height or h < SMALLEST
            annotations.append({**annotation, 'iscrowd': int(ignored), 'area': w * h})
        for result in results:
            if result['image_id'] not in labels.images:
                raise UserError(f'The results have image {result["image_id"]!r}, which is not in the labels.')
        category = labels.category['id']
        mine = [r for r in results if r.get('category_id', category) == category]
        if results and not mine:
            raise UserError(
                f'None of the {len(results)} results is of the category {category!r} of the labels; the first is of '
                f'{results[0]["category_id"]!r}.'
            )
        super().__init__(replace(labels, annotations=annotations), mine, 'bbox')

    def figures(self, images: Any = None) -> dict[str, float]:
        """AP, AP50, AP75, the average recall of 100 boxes, and the best F1 at an IoU of 0.5.

        Args:
            images: Indices of images to count, repetitions allowed (for the bootstrap); `None` counts each once.

        Returns:
            Fractions in 0..1 by name, with the recall, the precision and the score of a box where F1 is best; -1, as
            in pycocotools, where nothing is labelled.
        """
        drawn = self.drawn(images)
        ap, ap50, ap75, ar = (float(drawn.stats[i]) for i in (0, 1, 2, 8))
        return {'AP': ap, 'AP50': ap50, 'AP75': ap75, 'AR': ar, **dict(zip(AT, _best_f1(drawn), strict=True))}


def _best_f1(drawn: Any) -> tuple[float, float, float, float]:
    precision = drawn.eval['precision'][0, :, 0, 0, 2]
    if (precision < 0).any():
        return (-1.0,) * 4
    recall = drawn.params.recThrs
    f1 = 2 * precision * recall / (precision + recall + 1e-9)
    best = int(np.argmax(f1))
    return float(f1[best]), float(recall[best]), float(precision[best]), float(drawn.eval['scores'][0, best, 0, 0, 2])
