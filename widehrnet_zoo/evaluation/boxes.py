"""A person finder, or boxes that are there already, measured on labelled photos."""

import contextlib
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from ..detection.finder import PersonFinder
from ..errors import UserError
from ..files import sha256
from ..formats.coco import CocoLabels, read_labels
from ..formats.fit import check_fit, labelled_size
from ..metrics.boxes import SMALLEST, SMALLEST_SHARE, BoxScore, read_box_results
from ..pose.images import read_image
from ..progress import begun_ahead
from .report import Report
from .subject import describe_backend, describe_data

_LEAST = 0.01


def _find(
    finder: PersonFinder, labels: CocoLabels, folder: Path, batch_size: int, workers: int, progress: bool
) -> list[dict[str, Any]]:
    """COCO results of all photos of a label file, which must have the sizes that the labels say."""
    results = []

    def read(image_id: int | str) -> npt.NDArray[np.uint8]:
        entry = labels.images[image_id]
        image = read_image(folder / entry['file_name'])
        check_fit(folder / entry['file_name'], (image.shape[1], image.shape[0]), labelled_size(entry))
        return image

    ids = iter(labels.images)
    with (
        contextlib.closing(begun_ahead(read, labels.images, workers, 2 * batch_size)) as reading,
        tqdm(total=len(labels.images), desc='photos', disable=not progress, unit='photo') as bar,
    ):
        while part := [get() for get in itertools.islice(reading, batch_size)]:
            for image_id, (boxes, scores) in zip(itertools.islice(ids, len(part)), finder.find(part), strict=True):
                for (x1, y1, x2, y2), score in zip(boxes.tolist(), scores.tolist(), strict=True):
                    box = [x1, y1, x2 - x1, y2 - y1]
                    entry = {'image_id': image_id, 'category_id': labels.category['id'], 'bbox': box, 'score': score}
                    results.append(entry)
            bar.update(len(part))
    return results


def evaluate_boxes(
    data: str | Path,
    images: str | Path | None = None,
    finder: PersonFinder | None = None,
    *,
    results: str | Path | None = None,
    out: str | Path | None = None,
    draws: int = 0,
    name: str | None = None,
    batch_size: int = 8,
    workers: int = 2,
    progress: bool = True,
) -> Report:
    """Measure a person finder, or boxes that are there already.

    All labelled people count, whether their keypoints are known or not; see `BoxScore` for who is left out. The
    finder's own threshold is put aside, since average precision is measured over all thresholds; it is what the share
    of the photos of nobody (without annotations) counts in which somebody is found.

    Args:
        data: COCO labels; boxes are enough.
        images: Folder of the photos; needed for a finder.
        finder: The finder.
        results: Score this file of COCO box results and find nothing.
        out: Folder for `results.json`, `report.json` and `report.md`.
        draws: Resamplings of the photos for 95 % intervals; 0 gives none.
        name: What the report calls the finder.
        batch_size: Photos that go through the network together.
        workers: Threads that read photos.
        progress: Show bars.

    Raises:
        UserError: If inputs are missing, broken or do not fit together.
    """
    if (finder is None) == (results is None):
        raise UserError('Give either a finder to measure or a file of results to score.')
    labels = read_labels(data, keypoints=False)
    if finder is not None:
        if images is None:
            raise UserError('A folder of images is needed to find people in.')
        before, finder.min_score = finder.min_score, _LEAST
        try:
            found = _find(finder, labels, Path(images), batch_size, workers, progress)
        finally:
            finder.min_score = before
        subject = describe_backend(finder.backend, name)
        switches = {'protocol': 'boxes', 'overlap': finder.overlap}
    else:
        assert results is not None
        found = read_box_results(results)
        subject = {'results': f'{Path(results).name}, sha256 {sha256(results)[:16]}'}
        switches = {'protocol': 'boxes'}
    switches.update(
        evaluator='pycocotools', ignored=f'below {SMALLEST_SHARE:.0%} of the height or {SMALLEST} pixels, crowds'
    )
    subject |= describe_data(data, None, sum(not a['iscrowd'] for a in labels.annotations))
    score = BoxScore(labels, found)
    report = Report.of(score.figures, score.num_images, switches, subject, draws, progress)
    empty = set(labels.images) - {a['image_id'] for a in labels.annotations}
    if finder is not None and empty:
        false = {r['image_id'] for r in found if r['score'] >= before} & empty
        report.figures[f'photos of nobody with a box of {before:g} or more'] = len(false) / len(empty)
    if out is not None:
        report.save(out, found)
    return report
