"""Make `people/train.json` better to learn from by what a trained model sees: wrong labels go, easy people come less.

    widehrnet eval --protocol pck --flip-test --data people/train.json --images people/images --out runs/on_train
    python scripts/weights/clean_labels.py people/train.json runs/on_train/results.json clean.json
    widehrnet train people_256x192 --labels clean.json --images people/images --set data.sample_weights=share ...

Where annotators and MoveNet agreed (`label_kind` 1) and where the teacher stands alone (3), everything stays. A human
label on which the teacher was unsure (2) gets v = 0, so that it is out of the loss, unless the model sees the keypoint
within `--reach` of the torso's length (middle of the shoulders to middle of the hips). People without any keypoint left
keep what they had, so that the crops stay the same. The labels to measure by are never cleaned.

Then the field `share` of everybody says how often to come: `--easy` where the model finds all that is labelled, halfway
from there to 1 with one keypoint beyond reach, 1 with more. And the field `predicted` has what the model sees, for
`--set teacher.keypoints=predicted`: a smaller network learns from that besides.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from widehrnet_zoo.files import write_whole
from widehrnet_zoo.metrics.people import match_results
from widehrnet_zoo.pose.skeletons import SKELETONS

HUMAN_ONLY = 2
NAMES = SKELETONS['coco'].keypoints
SHOULDERS = [NAMES.index(f'{side}_shoulder') for side in ('left', 'right')]
HIPS = [NAMES.index(f'{side}_hip') for side in ('left', 'right')]
SMALLEST_TORSO = 0.15  # of the box's side: a torso seen from its end measures nothing


def beyond(annotation: dict[str, Any], seen: npt.NDArray[np.float64], reach: float) -> npt.NDArray[np.bool_]:
    """Labelled keypoints that the model sees elsewhere.

    Args:
        annotation: Of one person, in COCO's form with `label_kind`.
        seen: float (K, 2), the model's keypoints in image pixels.
        reach: Allowed distance in torsos.

    Returns:
        bool (K,).
    """
    labelled = np.array(annotation['keypoints'], np.float64).reshape(-1, 3)
    ends = SHOULDERS + HIPS
    by = labelled[:, :2] if (labelled[ends, 2] > 0).all() else seen
    torso = float(np.linalg.norm(by[SHOULDERS].mean(0) - by[HIPS].mean(0)))
    width, height = annotation['bbox'][2:]
    torso = max(torso, SMALLEST_TORSO * float(np.sqrt(width * height)))
    return (np.linalg.norm(seen - labelled[:, :2], axis=1) >= reach * torso) & (labelled[:, 2] > 0)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('labels', type=Path)
    parser.add_argument('results', type=Path, help="the model's keypoints on these labels, COCO results")
    parser.add_argument('out', type=Path)
    parser.add_argument('--easy', type=float, default=0.3, help='share of the easiest people (default: %(default)s)')
    parser.add_argument('--reach', type=float, default=0.25, help='in torsos (default: %(default)s)')
    args = parser.parse_args()
    labels = json.loads(args.labels.read_text())
    people = labels['annotations']
    found = match_results(people, json.loads(args.results.read_text()), len(NAMES))
    out = total = 0
    for annotation, seen in zip(people, found, strict=True):
        if np.isnan(seen).any():
            sys.exit(f'{args.results} says nothing of image {annotation["image_id"]}: run the model on {args.labels}.')
        labelled = sum(v > 0 for v in annotation['keypoints'][2::3])
        total += labelled
        missed = beyond(annotation, seen[:, :2], args.reach)
        gone = np.flatnonzero(missed & (np.array(annotation['label_kind']) == HUMAN_ONLY))
        left = labelled - len(gone)
        if left:
            for i in gone:
                annotation['keypoints'][3 * i + 2] = 0
            annotation['num_keypoints'] = left
            out += len(gone)
            missed[gone] = False
        annotation['predicted'] = [round(float(v), 3) for v in seen.ravel()]
        annotation['share'] = round(min(1.0, args.easy + (1 - args.easy) * int(missed.sum()) / 2), 3)
    write_whole(args.out, json.dumps(labels))
    sys.stdout.write(f'{args.out}: {out} of {total} keypoints taken out\n')


if __name__ == '__main__':
    main()
