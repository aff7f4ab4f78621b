"""What a model sees of people whom nobody labelled whole: keypoints on which its views agree, to learn from.

    python scripts/weights/label_people.py everyday/train.json everyday/images seen.json --weights ema.safetensors
    python scripts/weights/everyday_labels.py . labels --seen seen.json

Each box is looked at six times: as it is, closer and wider, each with its mirror image. The file has an entry for each
annotation of some size that is neither a crowd nor labelled by a human: `id`, `keypoints` (17 of x, y and the mean
score of the views) and `agree` (17, the share of the views within OKS 0.5 of their median). Half an hour on one core
for the 12,000 people of `everyday/train.json`.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from widehrnet_zoo import PoseEstimator
from widehrnet_zoo.files import write_whole
from widehrnet_zoo.inference.photo import Photo
from widehrnet_zoo.metrics.oks import keypoint_similarity
from widehrnet_zoo.pose.images import read_image
from widehrnet_zoo.pose.results import PoseResult
from widehrnet_zoo.progress import begun_ahead

Array = npt.NDArray[np.float64]

VIEWS = (1.0, 0.87, 1.18)
"""Factors of the padding."""

SMALLEST = 72
"""Pixels of a box's longer side below which a person is left alone."""

BODY = 0.53
"""Area of a body in parts of its box, as pycocotools' area of COCO's people is on average."""


def look(estimator: PoseEstimator, image: npt.NDArray[np.uint8], boxes: Array, zoom: float) -> list[PoseResult]:
    """Keypoints in image pixels, as the boxes are and in the mirrored image."""
    width = image.shape[1]
    mirrored = boxes[:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [width, 0, width, 0]
    photos = Photo(image, boxes), Photo(image[:, ::-1], mirrored)
    options = {'padding': estimator.padding * zoom, 'peaks': True, 'inside': False, 'workers': 0}
    plain, back = (one.result for one in estimator.look(photos, **options))
    order = estimator.skeleton.flip_order
    keypoints = back.keypoints[:, order] * np.float32([-1, 1]) + np.float32([width - 1, 0])
    return [plain, replace(back, keypoints=keypoints, scores=back.scores[:, order])]


def agreement(points: Array, scores: Array, area: Array, sigmas: Array) -> tuple[Array, Array]:
    """One pose of the views of each person, and how far they agree.

    Args:
        points: (V, N, K, 2) in image pixels.
        scores: (V, N, K).
        area: (N,) of the bodies, in pixels.
        sigmas: (K,) OKS falloffs.

    Returns:
        (N, K, 3), the mean of the views within OKS 0.5 of the median, and the mean score of all views; and (N, K), the
        share of those views.
    """
    median = np.median(points, 0)
    near = keypoint_similarity(points, median, area, sigmas.tolist()) >= 0.5
    count = near.sum(0)
    mean = (points * near[..., None]).sum(0) / np.maximum(count, 1)[..., None]
    mean = np.where(count[..., None] > 0, mean, median)
    return np.concatenate((mean, scores.mean(0)[..., None]), 2), near.mean(0)


def label(estimator: PoseEstimator, labels: dict[str, Any], images: Path) -> list[dict[str, Any]]:
    """The entries of the file."""
    files = {image['id']: images / image['file_name'] for image in labels['images']}
    people: dict[Any, list[dict[str, Any]]] = {}
    for person in labels['annotations']:
        human = person.get('labels') == 'human' and any(person['keypoints'][2::3])
        sides = person['bbox'][2:]
        if not person.get('iscrowd') and not human and max(sides) >= SMALLEST and min(sides) >= 4:
            people.setdefault(person['image_id'], []).append(person)
    entries = []
    sigmas = np.array(estimator.skeleton.sigmas)
    total = sum(map(len, people.values()))
    reading = begun_ahead(lambda i: read_image(files[i]), people, 1, 4)
    with tqdm(total=total, unit='person', desc='label', mininterval=10) as bar:
        for get, found in zip(reading, people.values(), strict=True):
            image = get()
            boxes = np.array([person['bbox'] for person in found], float)
            boxes[:, 2:] += boxes[:, :2]
            seen = [result for zoom in VIEWS for result in look(estimator, image, boxes, zoom)]
            points, scores = (np.stack([getattr(one, what) for one in seen]) for what in ('keypoints', 'scores'))
            area = BODY * np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
            poses, agree = agreement(points, scores, area, sigmas)
            entries += [
                {'id': person['id'], 'keypoints': pose.round(2).ravel().tolist(), 'agree': share.round(2).tolist()}
                for person, pose, share in zip(found, poses, agree, strict=True)
            ]
            bar.update(len(found))
    return entries


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('labels', type=Path)
    parser.add_argument('images', type=Path)
    parser.add_argument('out', type=Path)
    parser.add_argument('--model', default='widehrnet_18_attn')
    parser.add_argument('--weights', help='a file, instead of the weights that ship')
    args = parser.parse_args()
    estimator = PoseEstimator(args.model, weights=args.weights, detector=None, bf16=True)
    entries = label(estimator, json.loads(args.labels.read_text()), args.images)
    write_whole(args.out, json.dumps(entries))


if __name__ == '__main__':
    main()
