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
from functools import partial
from pathlib import Path

from card_text import listed, new_axes, read_facts, rows, save, with_interval

from widehrnet_zoo import PoseEstimator
from widehrnet_zoo.bench.timing import interleave
from widehrnet_zoo.detection import PersonFinder
from widehrnet_zoo.errors import UserError
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

Of a photo in a square input, on the CPU by the default engine; three crops of `widehrnet_18_attn` at 256x192 took
{crops:.0f} ms in the same run.

| input | ms |
|---|---:|
{times}

## Tried

{tried}

## Limits

{limits}
"""


def draw_curve(score: BoxScore, threshold: float, path: Path) -> None:
    """Recall and precision by the lowest score that counts."""
    recall, precision, scores = score.curve()
    seen = scores > 0
    axes = new_axes(5.5, 3.4)
    axes.plot(scores[seen], recall[seen], label='recall', color='#2471a3')
    axes.plot(scores[seen], precision[seen], label='precision', color='#c0392b')
    axes.axvline(threshold, color='#888888', linewidth=0.8, linestyle='--', label=f'default, {threshold:g}')
    axes.set(xlabel='lowest score that counts')
    save(axes, path)


def main() -> None:
    """Write the card and its plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('name', help='variant.tag of the finder')
    parser.add_argument('evaluation', type=Path, help='--out of the evaluation; nobody/ in it is optional')
    parser.add_argument('--labels', type=Path, required=True)
    parser.add_argument('--model', help='weights that are not shipped yet, such as a folder (default: the name)')
    parser.add_argument('--docs', type=Path, default=ROOT / 'docs')
    parser.add_argument('--facts', type=Path, help='default: scripts/weights/cards/NAME.json')
    args = parser.parse_args()

    try:
        facts = read_facts(args.facts, args.name, FACTS)
    except UserError as error:
        sys.exit(str(error))
    report = json.loads((args.evaluation / 'report.json').read_text())
    labels = read_labels(args.labels, keypoints=False)
    score = BoxScore(labels, read_box_results(args.evaluation / 'results.json'))
    model = args.model or args.name
    draw_curve(score, PersonFinder(model).min_score, args.docs / 'images/weights' / f'{args.name}.curve.png')

    image = read_image(ROOT / 'widehrnet_zoo/samples/astronaut.jpg')
    calls = {f'{side}x{side}': partial(PersonFinder(model, size=(side, side)), image) for side in SIZES}
    calls['crops'] = partial(PoseEstimator('widehrnet_18_attn'), image, boxes=[[100, 20, 400, 500]] * 3)
    times = {name: timing.median for name, timing in interleave(calls, ROUNDS).items()}
    figures = [
        [name, '-' if value is None or value < 0 else with_interval(value, report['intervals'].get(name))]
        for name, value in report['figures'].items()
    ]
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
        crops=times.pop('crops'),
        times=rows([[name, f'{taken:.0f}'] for name, taken in times.items()]),
        tried=listed(facts['tried']),
        limits=listed(facts['limits']),
    )
    write_whole(args.docs / 'weights' / f'{args.name}.md', page)


if __name__ == '__main__':
    main()
