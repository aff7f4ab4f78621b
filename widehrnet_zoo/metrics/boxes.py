"""Person boxes by COCO's protocol: average precision, and the best trade of recall and precision."""

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import UserError
from ..formats.coco import CocoLabels, are_numbers
from .coco import CocoEvaluation, of_category, result_entries

SMALLEST_SHARE, SMALLEST = 0.08, 24
"""People of less than this share of the photo's height, or of fewer pixels, neither count nor are missed."""

SUMMARY = {'AP': 0, 'AP50': 1, 'AP75': 2, 'APs': 3, 'APm': 4, 'APl': 5, 'AR': 8}
"""Places in pycocotools' summary."""

AT = ('best F1', 'recall at best F1', 'precision at best F1', 'score at best F1')


def read_box_results(path: Any) -> list[dict[str, Any]]:
    """Read a file of boxes in COCO's results format.

    Raises:
        UserError: If it has another form; the message names the entry.
    """
    results = result_entries(path)
    for index, result in enumerate(results):
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
        super().__init__(replace(labels, annotations=annotations), of_category(results, labels), 'bbox')

    def figures(self, images: Any = None) -> dict[str, float]:
        """AP, AP50, AP75, AP of boxes below 32x32, below 96x96 and larger, the recall of 100 boxes, and the best F1.

        Args:
            images: Indices of images to count, repetitions allowed (for the bootstrap); `None` counts each once.

        Returns:
            Fractions in 0..1 by name, with the recall, the precision and the score of a box where F1 (at an IoU of 0.5)
            is best; -1, as in pycocotools, where nothing is labelled.
        """
        drawn = self.drawn(images)
        found = {name: float(drawn.stats[place]) for name, place in SUMMARY.items()}
        recall, precision, scores = _curve(drawn)
        if (precision < 0).any():
            return {**found, **dict.fromkeys(AT, -1.0)}
        f1 = 2 * precision * recall / (precision + recall + 1e-9)
        best = int(np.argmax(f1))
        return {**found, **dict(zip(AT, (float(v[best]) for v in (f1, recall, precision, scores)), strict=True))}

    def curve(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Recalls from 0 to 1, the precision at each at an IoU of 0.5, and the score from which on boxes count there.

        Precision and score are 0 where so many people are not found.
        """
        return _curve(self.drawn())


def _curve(drawn: Any) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    # IoU 0.5, the one category, all sizes, 100 boxes
    return drawn.params.recThrs, drawn.eval['precision'][0, :, 0, 0, 2], drawn.eval['scores'][0, :, 0, 0, 2]
