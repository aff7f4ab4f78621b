"""One label file of everyday and sport photos, with what each person and keypoint counts in training.

    python scripts/weights/everyday_labels.py DATA OUT [--sport people_clean.json] [--seen seen.json ...]

DATA holds `everyday/` and `people/`, see their README files there. OUT gets `train.json`, whose photos are named from
DATA, and `kept_out.json`: one in twenty of the photos with human labels, which scores are calibrated on. Fields of the
annotations: `share`, how often a person comes (`data.sample_weights`), and `weights`, what each keypoint counts
(`data.keypoint_weights`): a human's more than the teachers', where all teachers agree more than where one alone is
sure. What is in doubt is left out. An unlabelled keypoint with a weight is known to be nowhere in the photo.

`--sport` takes the sport labels from a file of `clean_labels.py`. `--seen` adds what a model saw, a file of
`label_people.py`: of joints in doubt, and of people who have a box only, the keypoints on which its views agree.
"""

import argparse
import collections
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from widehrnet_zoo.files import write_whole

SMALLEST = 24
"""Pixels of a box's longer side below which nothing is to be learnt from a person."""

KEPT_OUT = 20
SEEN_AGREE, SEEN_SCORE = 0.9, 0.45
HUMAN, AGREED, ALONE, SEEN = 1.0, 0.7, 0.3, 0.4
SPORT = {0: 0.0, 1: 1.0, 2: 0.8, 3: 0.6, 4: 0.0}
"""Weight by `label_kind` of the sport labels: none, agreed, a human only, the teacher only, in doubt."""

Points = npt.NDArray[np.float64]
Counted = tuple[float, Points, Points] | None
"""A person's share, keypoints (K, 3) and their weights (K,)."""


def everyday(person: dict[str, Any], image: dict[str, Any], seen: dict[str, Any] | None) -> Counted:
    """What an everyday person counts; `None` for one to leave out."""
    if person.get('iscrowd') or max(person['bbox'][2:]) < SMALLEST:
        return None
    keypoints = np.array(person['keypoints'], float).reshape(-1, 3)
    labelled = int((keypoints[:, 2] > 0).sum())
    if person['labels'] == 'human' and labelled:
        share = 0.35 if labelled < 3 else 1.0 if max(person['bbox'][2:]) >= 50 else 0.6
        # what COCO's annotators left out is out of the photo or hidden beyond guessing (`target.absent`)
        return share, keypoints, np.where((keypoints[:, 2] > 0) | (labelled >= 4), HUMAN, 0.0)
    agreed = keypoints[:, 2] == 2
    sure = person.get('agreement', 0) >= 0.5
    weights = np.where(agreed, AGREED, np.where((keypoints[:, 2] == 1) & sure, ALONE, 0.0))
    if seen is not None:
        found = np.array(seen['keypoints'], float).reshape(-1, 3)
        trusted = (np.array(seen['agree']) >= SEEN_AGREE) & (found[:, 2] >= SEEN_SCORE)
        new = trusted & (weights < SEEN)
        keypoints[new, :2], keypoints[new, 2], weights[new] = found[new, :2], 1, SEEN
        # the teachers and the model land far apart: one of them is wrong
        apart = ~new & (weights > 0) & trusted
        apart &= np.linalg.norm(found[:, :2] - keypoints[:, :2], axis=1) > 0.15 * np.sqrt(np.prod(person['bbox'][2:]))
        weights[apart] = 0
    keypoints[weights == 0, 2] = 0
    counted = int((weights > 0).sum())
    if counted < 5:
        return None
    share = 0.35 + 0.25 * (counted >= 9)
    # squeezed photos whose proportions are a guess
    return share * (0.7 if image.get('aspect_sure', 1) < 0.5 else 1.0), keypoints, weights


def sport(person: dict[str, Any], image: dict[str, Any], seen: dict[str, Any] | None) -> Counted:
    """What a person of the sport and fashion photos counts."""
    keypoints = np.array(person['keypoints'], float).reshape(-1, 3)
    weights = np.where(keypoints[:, 2] > 0, [SPORT[kind] for kind in person['label_kind']], 0.0)
    return 0.15 if image['source'] == 'ccp' else 0.5 * person.get('share', 1.0), keypoints, weights


def collect(data: Path, sport_labels: Path, seen: dict[int, dict[str, Any]]) -> tuple[dict, dict]:
    """The training labels and those that are kept out, in COCO's form."""
    parts: tuple[dict[str, list], dict[str, list]] = tuple({'images': [], 'annotations': []} for _ in range(2))
    categories: list[dict[str, Any]] = []
    for labels, folder, count in (
        (data / 'everyday/train.json', 'everyday/images', everyday),
        (sport_labels, 'people/images', sport),
    ):
        content = json.loads(labels.read_text())
        categories = categories or content['categories']
        images = {image['id']: image for image in content['images']}
        ids: dict[Any, int] = {}
        for person in content['annotations']:
            image = images[person['image_id']]
            counted = count(person, image, seen.get(person['id']) if count is everyday else None)
            held = image['source'].startswith('coco') and image['id'] % KEPT_OUT == 7
            # of a photo that is kept out nobody is learnt from
            if counted is None or (held and person.get('labels') != 'human'):
                continue
            share, keypoints, weights = counted
            part = parts[held]
            if image['id'] not in ids:
                ids[image['id']] = len(ids) + (1_000_000 if count is sport else 1)
                part['images'].append({**image, 'id': ids[image['id']], 'file_name': f'{folder}/{image["file_name"]}'})
            part['annotations'].append(
                {
                    'id': len(parts[0]['annotations']) + len(parts[1]['annotations']) + 1,
                    'image_id': ids[image['id']],
                    'category_id': categories[0]['id'],
                    'iscrowd': 0,
                    'bbox': person['bbox'],
                    'area': person['area'],
                    'keypoints': np.round(keypoints, 2).ravel().tolist(),
                    'num_keypoints': int((keypoints[:, 2] > 0).sum()),
                    'share': round(share, 3),
                    'weights': weights.tolist(),
                    'source': image['source'],
                    'labels': person.get('labels', 'sport'),
                }
            )
    train, kept_out = ({**part, 'categories': categories} for part in parts)
    return train, kept_out


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data', type=Path)
    parser.add_argument('out', type=Path)
    parser.add_argument('--sport', type=Path, help='cleaned sport labels (default: DATA/people/train.json)')
    parser.add_argument('--seen', type=Path, nargs='+', default=[], help='files of label_people.py on everyday photos')
    parser.add_argument(
        '--times',
        nargs='+',
        default=[],
        metavar='SOURCE=FACTOR',
        help='more or less of a source',
    )
    args = parser.parse_args()
    times = {source: float(factor) for source, factor in (entry.split('=') for entry in args.times)}
    seen = {entry['id']: entry for file in args.seen for entry in json.loads(file.read_text())}
    train, kept_out = collect(args.data, args.sport or args.data / 'people/train.json', seen)
    args.out.mkdir(parents=True, exist_ok=True)
    for name, part in (('train', train), ('kept_out', kept_out)):
        for person in part['annotations']:
            person['share'] = round(person['share'] * times.get(person['source'], 1.0), 4)
        write_whole(args.out / f'{name}.json', json.dumps(part))
        counts: collections.Counter = collections.Counter()
        for person in part['annotations']:
            counts[person['source'], person['labels'], 'people'] += 1
            counts[person['source'], person['labels'], 'share'] += person['share']
        sys.stdout.write(f'{name}.json: {len(part["annotations"])} people in {len(part["images"])} photos\n')
        for (source, kind, what), number in sorted(counts.items()):
            sys.stdout.write(f'  {source} {kind} {what} {number:.0f}\n')


if __name__ == '__main__':
    main()
