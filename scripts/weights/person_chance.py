"""Fit the chance that a pose is of somebody: `CHANCE` in widehrnet_zoo/inference/people.py.

    python scripts/weights/person_chance.py DATA

DATA has everyday/ with train.json, images/ and nobody/. The shipped finder and pose models look at photos to train on:
those of COCO, where everybody has a box, and photos of nobody. A pose within OKS 0.5 of a labelled person is right; one
that is near nobody labelled but in the box of somebody without keypoints says nothing. Prints the constants to copy.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from widehrnet_zoo import PoseEstimator
from widehrnet_zoo.inference import estimator as estimator_module
from widehrnet_zoo.inference.people import person_chances, person_figures
from widehrnet_zoo.inference.photo import Photo
from widehrnet_zoo.metrics.oks import oks
from widehrnet_zoo.pose.crops import overlaps
from widehrnet_zoo.pose.results import PoseResult

RIGHT = 0.5
"""OKS from which a pose is right."""

UNKNOWN = 0.4
"""IoU with the box of somebody without keypoints from which a wrong pose may be right after all."""


def judged(result: PoseResult, people: list[dict[str, Any]]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Which poses are right, and which can be judged, (N,) each."""
    right = np.zeros(len(result), bool)
    labelled = [p for p in people if p['num_keypoints'] and not p.get('iscrowd')]
    boxes = np.array([p['bbox'] for p in people if p not in labelled], float).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    for person in labelled:
        truth = np.array(person['keypoints'], float).reshape(-1, 3)
        near = oks(result.keypoints, truth[:, :2], person['area'], result.skeleton.sigmas, truth[:, 2] > 0)
        right |= near >= RIGHT
    unknown = [overlaps(box, boxes).max(initial=0) >= UNKNOWN for box in result.boxes.astype(float)]
    known = right | ~np.array(unknown, bool)
    return right, known


def main() -> None:
    """Look at the photos, fit, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data', type=Path)
    parser.add_argument('--photos', type=int, nargs=2, default=(420, 200), help='of COCO, of nobody')
    parser.add_argument('--models', nargs='+', default=['widehrnet_18_attn', 'widehrnet_10_attn'])
    args = parser.parse_args()
    everyday = args.data / 'everyday'
    labels = json.loads((everyday / 'train.json').read_text())
    people = defaultdict(list)
    for person in labels['annotations']:
        people[person['image_id']].append(person)
    of_coco = [image for image in labels['images'] if image.get('source') == 'coco']
    order = np.random.default_rng(0).permutation(len(of_coco))[: args.photos[0]]
    photos = [(everyday / 'images' / of_coco[i]['file_name'], people[of_coco[i]['id']]) for i in order]
    # those that the finder is measured on are the last of them
    photos += [(path, []) for path in sorted((everyday / 'nobody').iterdir())[: args.photos[1]]]

    figures: list[npt.NDArray[np.floating]] = []
    before: list[npt.NDArray[np.floating]] = []

    def note(result: PoseResult, limits: Any, chances: bool) -> PoseResult:
        figures.append(person_figures(result.scores, result.box_scores, result.boxes))
        before.append(person_chances(result.scores, result.box_scores, result.boxes))
        return result

    estimator_module.choose_people = note
    right, known = [], []
    for model in args.models:
        found = PoseEstimator(model).look(Photo(path) for path, _ in photos)
        for one in tqdm(found, desc=model, total=len(photos), unit='photo', mininterval=10):
            for part, more in zip((right, known), judged(one.result, photos[one.place][1]), strict=True):
                part.append(more)
    usable = np.concatenate(known)
    x = torch.from_numpy(np.concatenate(figures)[usable])
    y = torch.from_numpy(np.concatenate(right)[usable]).double()
    now = torch.from_numpy(np.concatenate(before)[usable]).double()
    weights = torch.zeros(x.shape[1] + 1, dtype=torch.double, requires_grad=True)
    optimiser = torch.optim.LBFGS([weights], max_iter=500, line_search_fn='strong_wolfe')

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        value = torch.nn.functional.binary_cross_entropy_with_logits(x @ weights[1:] + weights[0], y)
        value.backward()
        return value

    optimiser.step(loss)  # type: ignore[arg-type]
    entropy = torch.nn.functional.binary_cross_entropy(now, y)
    print(f'{len(y)} poses, {int(y.sum())} right; cross-entropy {entropy:.4f} -> {loss():.4f}')
    rounded = [round(float(w), 2) for w in weights.detach()]
    print(f'CHANCE = Chance({rounded[0]}, {tuple(rounded[1:])})')


if __name__ == '__main__':
    main()
