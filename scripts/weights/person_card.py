"""Write the card of a person finder from its evaluations and the facts of its training.

    widehrnet eval --protocol boxes --data val.json --images everyday --bootstrap 1000 --out runs/card
    widehrnet eval --protocol boxes --data nobody.json --images everyday --out runs/card/nobody
    python scripts/weights/person_card.py widehrnet_10_attn.person_320x320 runs/card --labels val.json

The label files are those of `person_labels.py`. The facts are in `scripts/weights/cards/NAME.json`: see `FACTS`. Times
are taken while this runs, by the default engine.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from card_text import listed, rows

from widehrnet_zoo import PoseEstimator
from widehrnet_zoo.detection import PersonFinder
from widehrnet_zoo.extras import require
from widehrnet_zoo.files import write_whole
from widehrnet_zoo.formats.coco import read_labels
from widehrnet_zoo.metrics.boxes import BoxScore, read_box_results
from widehrnet_zoo.pose.images import read_image

ROOT = Path(__file__).resolve().parents[2]
FACTS = {
    'data': 'rows of [photos, people, where from, licence]',
    'license': 'licence of the weights',
    'recipe': 'rows of [input, samples, batch, peak learning rate, what is special]',
    'machine': 'what it ran on, and how long',
    'reproduce': 'the one command that trains it again',
    'tried': 'a list of sentences: what else was tried, with its figure',
    'limits': 'a list of sentences',
}
SIZES = (256, 320, 416, 512)
ROUNDS = 9

PAGE = """\
<!-- written by scripts/weights/person_card.py: change it there, or in scripts/weights/cards -->
# {name}

Finds the people in a photo.

```py
from widehrnet_zoo.detection import PersonFinder

finder = PersonFinder({name!r})
boxes, scores = finder('photo.jpg')  # x1, y1, x2, y2 in pixels, the highest score first
```

## Data

| photos | people | where from | licence |
|---|---|---|---|
{data}

No photo is in this package or its documentation. Licence of the weights: {license}.

## Recipe

| input | samples | batch | peak learning rate | |
|---|---:|---:|---:|---|
{recipe}

{machine}. Again: `{reproduce}`.

## Figures

{count} photos that were not trained on. {subject}

| figure | value [95 %] |
|---|---:|
{figures}

`APs`, `APm` and `APl` are of boxes below 32x32 pixels, below 96x96 and larger. {nobody}

![Recall and precision by the threshold of the score](../images/weights/{name}.curve.png)

## Time

Of a photo, letterboxed, on the CPU by the default engine; three crops of `widehrnet_18_attn` at 256x192 took
{crops:.0f} ms in the same run.

| input | ms |
|---|---:|
{times}

## Tried

{tried}

## Limits

{limits}
"""


def milliseconds(work: Callable[[], Any]) -> float:
    """Median time of several rounds, after one to warm up."""
    work()
    taken = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return 1000 * float(np.median(taken))


def draw_curve(score: BoxScore, threshold: float, path: Path) -> None:
    """Recall and precision by the lowest score that counts."""
    recall, precision, scores = score.curve()
    seen = scores > 0
    figures: Any = require('matplotlib.figure', 'train')
    figure = figures.Figure(figsize=(5.5, 3.4), layout='constrained')
    axes = figure.subplots()
    axes.plot(scores[seen], recall[seen], label='recall', color='#2471a3')
    axes.plot(scores[seen], precision[seen], label='precision', color='#c0392b')
    axes.axvline(threshold, color='#888888', linewidth=0.8, linestyle='--', label=f'default, {threshold:g}')
    axes.set(xlabel='lowest score that counts', xlim=(0, 1), ylim=(0, 1))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> int:
    """Write the card and its plot.

    Returns:
        0.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('name', help='variant.tag of the finder')
    parser.add_argument('evaluation', type=Path, help='--out of the evaluation; nobody/ in it is optional')
    parser.add_argument('--labels', type=Path, required=True)
    parser.add_argument('--model', help='weights that are not shipped yet, such as a folder (default: the name)')
    parser.add_argument('--docs', type=Path, default=ROOT / 'docs')
    parser.add_argument('--facts', type=Path, help='default: scripts/weights/cards/NAME.json')
    args = parser.parse_args()

    facts = json.loads((args.facts or Path(__file__).with_name('cards') / f'{args.name}.json').read_text())
    if missing := [f'{key} ({what})' for key, what in FACTS.items() if key not in facts]:
        sys.exit(f'The facts lack {", ".join(missing)}.')
    report = json.loads((args.evaluation / 'report.json').read_text())
    labels = read_labels(args.labels, keypoints=False)
    score = BoxScore(labels, read_box_results(args.evaluation / 'results.json'))
    model = args.model or args.name
    draw_curve(score, PersonFinder(model).min_score, args.docs / 'images/weights' / f'{args.name}.curve.png')

    image = read_image(ROOT / 'widehrnet_zoo/samples/astronaut.jpg')
    timed = []
    for side in SIZES:
        finder = PersonFinder(model, size=(side, side))
        timed.append([f'{side}x{side}', f'{milliseconds(partial(finder, image)):.0f}'])
    pose = PoseEstimator('widehrnet_18_attn')
    boxes = [[100, 20, 400, 500]] * 3
    figures = []
    for name, value in report['figures'].items():
        low_high = report['intervals'].get(name)
        shown = '-' if value is None or value < 0 else f'{value:.3f}'
        figures.append([name, f'{shown} [{low_high[0]:.3f}, {low_high[1]:.3f}]' if low_high else shown])
    nobody = args.evaluation / 'nobody/report.json'
    said = ''
    if nobody.exists():
        said = '; '.join(f'{k}: {v:.3f}' for k, v in json.loads(nobody.read_text())['figures'].items() if 'nobody' in k)
    page = PAGE.format(
        name=args.name,
        data=rows(facts['data']),
        license=facts['license'],
        recipe=rows(facts['recipe']),
        machine=facts['machine'],
        reproduce=facts['reproduce'],
        count=len(labels.images),
        subject='; '.join(f'{key}: {value}' for key, value in report['subject'].items()) + '.',
        figures=rows(figures),
        nobody=f'{said[0].upper()}{said[1:]}.' if said else '',
        crops=milliseconds(partial(pose, image, boxes=boxes)),
        times=rows(timed),
        tried=listed(facts['tried']),
        limits=listed(facts['limits']),
    )
    write_whole(args.docs / 'weights' / f'{args.name}.md', page)
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
