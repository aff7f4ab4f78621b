"""Measure and draw what keeps the people of a crowd apart: the table and picture of docs/video.md.

    python scripts/docs/crowds.py DATA

DATA has everyday/ with val.json and images/. The photos' licences do not let them ship, so the picture shows the poses
alone, with the boxes of the labels behind them.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from widehrnet_zoo import PoseEstimator
from widehrnet_zoo.evaluation.everyone import everyone_results, look_at_photos
from widehrnet_zoo.formats.coco import CocoLabels, read_labels
from widehrnet_zoo.metrics.coco import CocoScore
from widehrnet_zoo.metrics.everyone import EveryoneScore
from widehrnet_zoo.metrics.oks import oks
from widehrnet_zoo.pose.drawing import draw_poses
from widehrnet_zoo.pose.results import PoseResult

OUT = Path(__file__).resolve().parents[2] / 'docs/images/crowds.png'
PHOTOS, HEIGHT = 4, 220
"""Photos of the picture, and their height there."""


def twice(labels: CocoLabels, found: dict[Any, PoseResult]) -> int:
    """Labelled people who have more than one pose with an OKS of 0.5."""
    count = 0
    for person in labels.annotations:
        result, truth = found[person['image_id']], np.reshape(person['keypoints'], (-1, 3)).astype(float)
        if person['num_keypoints']:
            near = oks(result.keypoints, truth[:, :2], person['area'], result.skeleton.sigmas, truth[:, 2] > 0)
            count += bool((near >= 0.5).sum() > 1)
    return count


def row(name: str, labels: CocoLabels, found: dict[Any, PoseResult]) -> str:
    """A line of the table."""
    results = everyone_results(found, labels.category['id'])
    sigmas = next(iter(found.values())).skeleton.sigmas
    everyone, coco = EveryoneScore(labels, results, sigmas).figures(), CocoScore(labels, results, sigmas).figures(None)
    shares = f'{100 * everyone["people found"]:.1f} % | {100 * everyone["false poses"]:.1f} %'
    return f'| {name} | {twice(labels, found)} | {shares} | {coco["AP"]:.3f} |'


def drawn(result: PoseResult, boxes: list[list[float]]) -> Image.Image:
    """The poses of a photo, without the photo."""
    canvas = Image.new('RGB', result.image_size, (32, 34, 40))
    pen = ImageDraw.Draw(canvas)
    for x, y, width, height in boxes:
        pen.rectangle((x, y, x + width, y + height), outline=(110, 114, 124))
    picture = draw_poses(np.asarray(canvas), result.keypoints, result.scores, result.skeleton)
    width, height = result.image_size
    return picture.resize((round(width * HEIGHT / height), HEIGHT), Image.Resampling.LANCZOS)


def main(data: Path) -> None:
    """Print the table and write the picture."""
    labels, images = read_labels(data / 'everyday/val.json', nobody=True), data / 'everyday/images'
    now, all_poses = (look_at_photos(PoseEstimator(**limits), labels, images) for limits in ({}, {'same_person': 1}))
    print('| | people drawn twice | people found | false poses | OKS AP |\n|---|---:|---:|---:|---:|')
    print(row('as it is', labels, now))
    print(row('two poses of one person both stay (`same_person=1`)', labels, all_poses))

    crowded = sorted(now, key=lambda image: len(now[image]) - len(all_poses[image]))[:PHOTOS]
    boxes = {image: [a['bbox'] for a in labels.annotations if a['image_id'] == image] for image in crowded}
    pictures = [[drawn(found[image], boxes[image]) for image in crowded] for found in (all_poses, now)]
    width = sum(picture.width + 6 for picture in pictures[0]) - 6
    sheet = Image.new('RGB', (width, 2 * HEIGHT + 6), 'white')
    for line, top in zip(pictures, (0, HEIGHT + 6), strict=True):
        left = 0
        for picture in line:
            sheet.paste(picture, (left, top))
            left += picture.width + 6
    sheet.quantize(128).save(OUT, optimize=True)


if __name__ == '__main__':
    main(Path(sys.argv[1]))
