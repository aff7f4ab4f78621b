"""Write the model card of keypoint weights from their evaluations and the facts of their training.

    python scripts/weights/ship_weights.py ema.safetensors NAME --data DATA ... --report runs/card
    python scripts/weights/model_card.py NAME runs/card --data DATA

The evaluations in `runs/card` are `everyday/` and `people/`, with flip test, and `once/`, everyday photos without it.
The facts are in `scripts/weights/cards/NAME.json`: see `FACTS` for its fields. Photos are never drawn, since they may
not be passed on: the grids show predicted and labelled skeletons on a plain background.
"""

import argparse
import itertools
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from card_text import listed, new_axes, read_facts, rows, save, with_interval
from PIL import Image, ImageDraw

from widehrnet_zoo.errors import UserError
from widehrnet_zoo.files import write_whole
from widehrnet_zoo.formats.coco import CocoLabels, read_labels
from widehrnet_zoo.metrics.bootstrap import bootstrap, rows_by_image
from widehrnet_zoo.metrics.calibration import calibration_bins, expected_calibration_error, keypoint_hits
from widehrnet_zoo.metrics.coco import read_results
from widehrnet_zoo.metrics.oks import keypoint_similarity
from widehrnet_zoo.metrics.people import match_results
from widehrnet_zoo.models.registry import list_models
from widehrnet_zoo.pose.drawing import draw_poses
from widehrnet_zoo.pose.score_map import ScoreMap
from widehrnet_zoo.pose.skeletons import SKELETONS
from widehrnet_zoo.weights.shipped import shipped_entry

ROOT = Path(__file__).resolve().parents[2]
COCO = SKELETONS['coco']
SIGMAS = np.array(COCO.sigmas)
FACTS = {
    'data': 'rows of [photos, people, where from, labels, licence]',
    'license': 'licence of the weights',
    'commercial': 'one sentence on commercial use',
    'recipe': 'rows of [input, samples, peak learning rate, hours, what is special]',
    'machine': 'what it ran on',
    'reproduce': 'the one command that trains it again',
    'tried': 'a list of sentences: what else was tried, with its figure',
    'limits': 'a list of sentences',
}

CELL, COLUMNS, ROWS = 180, 6, 3
BACKGROUND, LABEL = (206, 211, 220), (96, 104, 120)
HEIGHTS = (0, 60, 120, 240, math.inf)
"""Limits between the rows of people by the height of their box, in pixels."""

PAGE = """\
<!-- written by scripts/weights/model_card.py: change it there, or in scripts/weights/cards -->
# {name}

```python
import widehrnet_zoo

estimator = widehrnet_zoo.PoseEstimator({name!r})
result = estimator('photo.jpg')
```

## Data

| photos | people | where from | labels | licence |
|---:|---:|---|---|---|
{data}

Licence of the weights: {license}. {commercial} No photo is in this package or its documentation.

## Recipe

| input | samples | peak learning rate | hours | |
|---|---:|---:|---:|---|
{recipe}

{machine}. Train it again: `{reproduce}`.

## Figures

On photos that were not trained on, from the annotated boxes grown {padding} times, which these weights like best and
which is their default; with flip test; 95 % intervals by resampling the photos. *Everyday*: {everyday_people} people
with human labels in {everyday_images} photos of COCO. *People*: {people_people} people in sport and street fashion.

| figure | value [95 %] |
|---|---|
{figures}

By joint, on everyday photos: the share of labelled keypoints within OKS 0.5 of their label.

| joint | share [95 %] | labels |
|---|---|---:|
{joints}

By person, on everyday photos:

| people | count | mean OKS | OKS of 0.5 or more |
|---|---:|---:|---:|
{groups}

*Whole*: a labelled ankle and a labelled keypoint of the head. *Head and shoulders*: nothing labelled below the elbows.
*Cut off or hidden*: all others.

## Scores

{calibration}

![Scores and the share of right keypoints](../images/weights/{name}.scores.png)

## What it gets right and wrong

Everyday photos, labels in grey, predictions in colour (left blue, right orange), drawn by chance from the {successes}
people of eight or more labelled keypoints with an OKS of 0.85 or more:

![Skeletons of people who were found](../images/weights/{name}.successes.png)

and from the {failures} below 0.5:

![Skeletons of people who were not found](../images/weights/{name}.failures.png)

The photos may not be passed on, so they are not shown.

## Tried

{tried}

## Limits

{limits}
"""


class People:
    """Labelled people and what was predicted for them.

    Args:
        labels: COCO-format labels of COCO's 17 keypoints.
        results: Predictions in COCO's results format.

    Attributes:
        truth: (N, 17, 3) labels.
        found: (N, 17, 3) predictions, NaN where there is none.
        similarity: (N, 17) `exp(-d^2 / (2 * area * (2 * sigma)^2))`, NaN without a label.
        oks: (N,) its mean over a person's labels.

    Raises:
        UserError: If labels and results do not fit together.
    """

    def __init__(self, labels: CocoLabels, results: list[dict[str, Any]]):
        if labels.names not in ((), COCO.keypoints):
            raise UserError('The card is written for the 17 keypoints of COCO.')
        self.people = [person for person in labels.people if any(person['keypoints'][2::3])]
        self.truth = np.array([person['keypoints'] for person in self.people], float).reshape(-1, 17, 3)
        self.found = match_results(self.people, results, COCO.num_keypoints)
        area = [person['area'] for person in self.people]
        similarity = keypoint_similarity(self.found, self.truth, area, COCO.sigmas)
        self.similarity = np.where(self.truth[..., 2] > 0, np.nan_to_num(similarity), np.nan)
        self.oks = np.nanmean(self.similarity, 1)
        self._members = list(rows_by_image(person['image_id'] for person in self.people).values())

    @property
    def num_images(self) -> int:
        """Photos with labelled people."""
        return len(self._members)

    def by_joint(self, images: npt.NDArray[np.intp] | None = None) -> dict[str, float]:
        """Share of labelled keypoints within OKS 0.5, over photos drawn with repetition or over all once."""
        drawn = range(self.num_images) if images is None else images
        similarity = self.similarity[np.concatenate([self._members[i] for i in drawn])]
        labelled = ~np.isnan(similarity)
        right = (np.nan_to_num(similarity) >= 0.5).sum(0) / np.maximum(labelled.sum(0), 1)
        return {name: float(right[k]) for k, name in enumerate(COCO.keypoints) if labelled[:, k].any()}

    def groups(self) -> dict[str, npt.NDArray[np.bool_]]:
        """People by the height of their box and by how much of them is in the photo."""
        height = np.array([person['bbox'][3] for person in self.people], float)
        labelled = self.truth[..., 2] > 0
        head, low = labelled[:, :5].any(1), labelled[:, 9:].any(1)
        whole = head & labelled[:, 15:].any(1)
        sizes = {}
        for least, most in itertools.pairwise(HEIGHTS):
            name = f'{least:g} pixels high or more' if most == math.inf else f'{least:g} to {most:g} pixels high'
            sizes[name] = (height >= least) & (height < most)
        return {**sizes, 'whole': whole, 'head and shoulders': ~low, 'cut off or hidden': low & ~whole}


def chosen(candidates: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """As many people as the grid holds, drawn by chance and not by hand."""
    count = min(len(candidates), COLUMNS * ROWS)
    return np.sort(np.random.default_rng(0).choice(candidates, count, replace=False))


def grid(seen: People, people: npt.NDArray[np.intp]) -> Image.Image:
    """Skeletons of people: labels in grey, predictions in colour, on a plain background."""
    rows = max(1, math.ceil(len(people) / COLUMNS))
    picture = Image.new('RGB', (COLUMNS * CELL, rows * CELL), (255, 255, 255))
    for place, person in enumerate(people):
        x, y = place % COLUMNS * CELL, place // COLUMNS * CELL
        picture.paste(_skeletons(seen.truth[person], seen.found[person], CELL - 4), (x + 2, y + 2))
    return picture


def _skeletons(truth: npt.NDArray[np.float64], found: npt.NDArray[np.float64], size: int) -> Image.Image:
    scale = 3
    labelled = truth[:, 2] > 0
    seen = np.concatenate([truth[labelled, :2], found[np.isfinite(found[:, 0]), :2]])
    low, high = seen.min(0), seen.max(0)
    zoom = 0.84 * size * scale / max(float((high - low).max()), 1.0)
    centre = (low + high) / 2
    canvas = Image.new('RGB', (size * scale, size * scale), BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    points = (truth[:, :2] - centre) * zoom + size * scale / 2
    for a, b in COCO.bones:
        if labelled[a] and labelled[b]:
            draw.line((*points[a], *points[b]), LABEL, 5 * scale)
    for x, y in points[labelled]:
        draw.ellipse((x - 4 * scale, y - 4 * scale, x + 4 * scale, y + 4 * scale), LABEL)
    if np.isfinite(found[:, 0]).all():
        places = (found[None, :, :2] - centre) * zoom + size * scale / 2
        canvas = draw_poses(canvas, places, np.ones((1, COCO.num_keypoints)), COCO, line_width=2.2 * scale)
    return canvas.resize((size, size), Image.Resampling.LANCZOS)


def calibration(run: Path, labels: Path, score_map: ScoreMap, picture: Path) -> str:
    """Draw how often keypoints are right by their score, before the score map and after it.

    Args:
        run: Evaluation without flip test.
        labels: What it was measured on.
        score_map: Of the weights.
        picture: File to write.

    Returns:
        The sentence for the card.
    """
    peaks, hits = keypoint_hits(
        read_labels(labels), read_results(run / 'results.json', COCO.num_keypoints), SIGMAS.tolist()
    )
    axes = new_axes(4.2, 3.8)
    axes.plot([0, 1], [0, 1], color='#aaaaaa', linewidth=0.8)
    for scores, name, colour in ((peaks, 'heatmap peak', '#999999'), (score_map(peaks), 'score', '#2471a3')):
        means, shares, counts = calibration_bins(scores, hits)
        filled = counts >= 20
        axes.plot(means[filled], shares[filled], 'o-', label=name, color=colour, markersize=4)
    axes.set(xlabel='score', ylabel='share of keypoints within OKS 0.5')
    save(axes, picture)
    before, after = (expected_calibration_error(scores, hits) for scores in (peaks, score_map(peaks)))
    return (
        'A score is the chance that the keypoint lies within OKS 0.5 of its label. The map from heatmap peaks to '
        f'chances was fitted to people who were kept out of the training; on the {len(hits)} labelled keypoints of the '
        f'everyday validation photos, without flip test, its expected calibration error is {after:.3f} (peaks: '
        f'{before:.3f}).'
    )


def read_report(run: Path, variant: str) -> dict[str, Any]:
    """The report of an evaluation.

    Raises:
        UserError: If it is of another variant.
    """
    report: dict[str, Any] = json.loads((run / 'report.json').read_text(encoding='utf-8'))
    measured = report['subject'].get('model', '').partition(',')[0].partition('.')[0]
    if measured in list_models() and measured != variant:
        raise UserError(f'{run} measured {report["subject"]["model"]}, not {variant}.')
    return report


def write_card(name: str, run: Path, data: Path, facts: dict[str, Any], docs: Path, draws: int = 1000) -> Path:
    """Write the card and its pictures.

    Args:
        name: `variant.tag`.
        run: Folder with the evaluations `everyday`, `people` and `once`.
        data: Folder with the labels they were measured on.
        facts: As `FACTS`.
        docs: Folder of the documentation.
        draws: Resamplings for the intervals by joint.

    Returns:
        The card's file.

    Raises:
        UserError: If the run is of another variant.
    """
    reports = {folder: read_report(run / folder, name.partition('.')[0]) for folder in ('everyday', 'people')}
    labels = data / 'everyday' / 'val.json'
    seen = People(read_labels(labels), read_results(run / 'everyday' / 'results.json', COCO.num_keypoints))
    values, intervals = seen.by_joint(), bootstrap(seen.by_joint, seen.num_images, draws)
    many = (seen.truth[..., 2] > 0).sum(1) >= 8
    kinds = {
        'successes': np.flatnonzero(many & (seen.oks >= 0.85)),
        'failures': np.flatnonzero(many & (seen.oks < 0.5)),
    }
    pictures = docs / 'images' / 'weights'
    pictures.mkdir(parents=True, exist_ok=True)
    for kind, people in kinds.items():
        grid(seen, chosen(people)).quantize(64).save(pictures / f'{name}.{kind}.png', optimize=True)
    entry = shipped_entry(name)
    score_map = ScoreMap.from_config(entry['score_map'])
    page = PAGE.format(
        name=name,
        data=rows(facts['data']),
        license=facts['license'],
        commercial=facts['commercial'],
        recipe=rows(facts['recipe']),
        machine=facts['machine'],
        reproduce=facts['reproduce'],
        padding=f'{entry["padding"]:g}',
        everyday_people=len(seen.people),
        everyday_images=seen.num_images,
        people_people=len(read_labels(data / 'people' / 'val.json').people),
        figures=rows(
            [
                [f'{folder} {figure}', with_interval(value, report['intervals'].get(figure))]
                for folder, report in reports.items()
                for figure, value in report['figures'].items()
                if value is not None and value >= 0 and ': ' not in figure
            ]
        ),
        joints=rows(
            [
                [joint, with_interval(value, intervals[joint]), int((seen.truth[:, k, 2] > 0).sum())]
                for k, joint in enumerate(COCO.keypoints)
                if (value := values.get(joint)) is not None
            ]
        ),
        groups=rows(
            [
                [group, int(who.sum()), f'{seen.oks[who].mean():.3f}', f'{(seen.oks[who] >= 0.5).mean():.3f}']
                for group, who in seen.groups().items()
                if who.any()
            ]
        ),
        calibration=calibration(run / 'once', labels, score_map, pictures / f'{name}.scores.png'),
        successes=len(kinds['successes']),
        failures=len(kinds['failures']),
        tried=listed(facts['tried']),
        limits=listed(facts['limits']),
    )
    file = docs / 'weights' / f'{name}.md'
    write_whole(file, page)
    return file


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('name', help='variant.tag')
    parser.add_argument('run', type=Path, help='folder with the evaluations everyday, people and once')
    parser.add_argument('--data', type=Path, required=True, help='folder with everyday/ and people/')
    parser.add_argument('--facts', type=Path, help='default: scripts/weights/cards/NAME.json')
    parser.add_argument('--draws', type=int, default=1000)
    args = parser.parse_args()
    try:
        facts = read_facts(args.facts, args.name, FACTS)
        print(write_card(args.name, args.run, args.data, facts, ROOT / 'docs', args.draws))
    except (UserError, OSError) as error:
        sys.exit(str(error))


if __name__ == '__main__':
    main()
