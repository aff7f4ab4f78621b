"""Write the model card of trained weights from their evaluation and the facts of the run.

    widehrnet eval --protocol pck --flip-test --data people/val.json --images people/images \
        --model widehrnet_18_attn.people_256x192 --bootstrap 1000 --out runs/card
    python scripts/weights/model_card.py widehrnet_18_attn.people_256x192 runs/card --labels people/val.json

The facts are in `scripts/weights/cards/NAME.json`: see `FACTS` for its fields. Photos are never drawn, since they may
not be passed on: the grids show predicted and labelled skeletons on a plain background.
"""

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from widehrnet_zoo.errors import UserError
from widehrnet_zoo.files import write_whole
from widehrnet_zoo.formats.coco import CocoLabels, read_labels
from widehrnet_zoo.metrics.bootstrap import bootstrap
from widehrnet_zoo.metrics.coco import read_results
from widehrnet_zoo.metrics.pck import BODY, LSP, normalised_errors, pck, torso_size
from widehrnet_zoo.metrics.people import match_results
from widehrnet_zoo.models.registry import list_models
from widehrnet_zoo.pose.results import PoseResult
from widehrnet_zoo.pose.skeletons import SKELETONS

ROOT = Path(__file__).resolve().parents[2]
COCO = SKELETONS['coco']
FACTS = {
    'data': 'what it was trained on, and where that is from',
    'data_license': 'licence of the data, and what follows from it',
    'license': 'licence of the weights',
    'recipe': 'the recipe in a sentence or two',
    'hours': 'machine-hours of training, a number',
    'machine': 'what it ran on',
    'reproduce': 'the one command that trains it again',
    'measure': 'the one command that gives the figures',
    'limits': 'a list of sentences',
}

CELL, COLUMNS, ROWS = 180, 6, 3
BACKGROUND, LABEL = (206, 211, 220), (96, 104, 120)
THRESHOLD = 0.2


class Joints:
    """Which keypoints are right, by person: nearer to the label than 0.2 torsos.

    Args:
        labels: COCO-format labels of COCO's 17 keypoints.
        results: Predictions in COCO's results format.

    Raises:
        UserError: If labels and results do not fit together.
    """

    def __init__(self, labels: CocoLabels, results: list[dict[str, Any]]):
        if labels.names not in ((), COCO.keypoints):
            raise UserError('the card is written for the 17 keypoints of COCO.')
        self.people = labels.people
        self.truth = labels.keypoints(self.people)
        self.found = match_results(self.people, results, COCO.num_keypoints)
        self.fused = normalised_errors(self.found, self.truth, torso_size(self.truth, COCO.keypoints))
        human = np.array([a.get('lsp_keypoints', [0] * 3 * len(LSP)) for a in self.people], float)
        human = human.reshape(-1, len(LSP), 3)
        body = [COCO.keypoints.index(name) for name in BODY]
        self.human = normalised_errors(self.found[:, body], human[:, : len(BODY)], torso_size(human, LSP))
        ids = [a['image_id'] for a in self.people]
        order = {image_id: i for i, image_id in enumerate(dict.fromkeys(ids))}
        self.num_images = len(order)
        image_of = np.array([order[i] for i in ids])
        self._members = [np.flatnonzero(image_of == i) for i in range(self.num_images)]
        kinds = (('fused', COCO.keypoints, self.fused), ('human', BODY, self.human))
        self._labelled = [
            (f'{kind} {joint}', errors[:, k], counts[:, k])
            for kind, joints, (errors, counts) in kinds
            for k, joint in enumerate(joints)
            if counts[:, k].any()
        ]

    def figures(self, images: npt.NDArray[np.intp] | None = None) -> dict[str, float]:
        """PCK by joint, `fused NAME` and `human NAME`, over photos drawn with repetition or over all once."""
        everything = range(self.num_images) if images is None else images
        rows = np.concatenate([self._members[i] for i in everything])
        return {name: pck(errors[rows], counts[rows], THRESHOLD) for name, errors, counts in self._labelled}

    def shares(self) -> npt.NDArray[np.float64]:
        """(N,) share of right keypoints among a person's fused labels; NaN where fewer than eight count."""
        errors, counts = self.fused
        total = counts.sum(1)
        right = ((errors < THRESHOLD) & counts).sum(1)
        return np.where(total >= 8, right / np.maximum(total, 1), np.nan)


def chosen(candidates: npt.NDArray[np.intp], seed: int = 0) -> npt.NDArray[np.intp]:
    """As many people as the grid holds, drawn by chance and not by hand."""
    count = min(len(candidates), COLUMNS * ROWS)
    return np.sort(np.random.default_rng(seed).choice(candidates, count, replace=False))


def grid(joints: Joints, people: npt.NDArray[np.intp]) -> Image.Image:
    """Skeletons of people: labels in grey, predictions in colour, on a plain background."""
    rows = max(1, math.ceil(len(people) / COLUMNS))
    picture = Image.new('RGB', (COLUMNS * CELL, rows * CELL), (255, 255, 255))
    for place, person in enumerate(people):
        x, y = place % COLUMNS * CELL, place // COLUMNS * CELL
        picture.paste(_skeletons(joints.truth[person], joints.found[person], CELL - 4), (x + 2, y + 2))
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
        result = PoseResult(
            keypoints=((found[None, :, :2] - centre) * zoom + size * scale / 2).astype(np.float32),
            scores=np.ones((1, COCO.num_keypoints), np.float32),
            boxes=np.array([[0, 0, size * scale, size * scale]], np.float32),
            box_scores=np.ones(1, np.float32),
            skeleton=COCO,
            image_size=(size * scale, size * scale),
        )
        canvas = result.draw(canvas, line_width=2.2 * scale)
    return canvas.resize((size, size), Image.Resampling.LANCZOS)


def read_facts(path: Path) -> dict[str, Any]:
    """Facts of a run.

    Raises:
        UserError: If a field is missing, unknown or not filled in.
    """
    if not path.exists():
        raise UserError(f'{path} is missing; its fields are {", ".join(FACTS)}.')
    facts = json.loads(path.read_text(encoding='utf-8'))
    unknown = sorted(set(facts) - set(FACTS))
    empty = [key for key in FACTS if not facts.get(key)]
    if unknown or empty:
        raise UserError(
            f'{path}: '
            + '; '.join([f'{k} is missing ({FACTS[k]})' for k in empty] + [f'{k} is unknown' for k in unknown])
        )
    return facts


def card(
    name: str, report: dict[str, Any], joints: Joints, facts: dict[str, Any], draws: int, counts: dict[str, int]
) -> str:
    """The card's Markdown.

    Args:
        name: `variant.tag`.
        report: `report.json` of `widehrnet eval`.
        joints: What is right, by joint.
        facts: As `FACTS`.
        draws: Resamplings for the intervals by joint.
        counts: People of each grid's kind.
    """
    values, intervals = joints.figures(), bootstrap(joints.figures, joints.num_images, draws)

    def cell(key: str) -> str:
        value = values.get(key, math.nan)
        return '-' if math.isnan(value) else _with_interval(value, intervals[key])

    overall = [
        f'| {figure} | {_with_interval(value, report["intervals"].get(figure))} |'
        for figure, value in report['figures'].items()
        if value is not None and ': ' not in figure  # `--by-joint` figures have a table of their own
    ]
    by_joint = [
        f'| {name} | {cell(f"human {name}")} | {cell(f"fused {name}")} | {int(joints.fused[1][:, k].sum())} |'
        for k, name in enumerate(COCO.keypoints)
    ]
    subject, switches = report['subject'], report['switches']
    return f"""<!-- written by scripts/weights/model_card.py: change it there, or in scripts/weights/cards -->
# {name}

{facts['recipe']}

```python
import timm
import widehrnet_zoo

model = timm.create_model('{name}', pretrained=True)
```

| | |
|---|---|
| data | {facts['data']} |
| licence of the data | {facts['data_license']} |
| licence of the weights | {facts['license']} |
| training | {facts['hours']:g} machine-hours on {facts['machine']} |

## Figures

{len(joints.people)} people in {joints.num_images} photos that were not trained on; 95 % intervals by resampling the
photos. Measured: {subject.get('model', '-')}, {subject.get('weights', '-')}; {subject['labels']}; switches:
{', '.join(f'{key}={value}' for key, value in switches.items())}.

| figure | value [95 %] |
|---|---|
{chr(10).join(overall)}

### By joint

PCK@0.2: the share of keypoints nearer to their label than a fifth of the torso (right shoulder to left hip). *Human*:
labels by people. *Fused*: human labels checked against a teacher network's, which favours what both see.

| joint | human [95 %] | fused [95 %] | fused labels |
|---|---|---|---:|
{chr(10).join(by_joint)}

## What it gets right and wrong

Labels in grey, predictions in colour (left blue, right orange), drawn by chance from the {counts['successes']} people
with every keypoint right:

![Skeletons of people whose keypoints are all right](../images/weights/{name}.successes.png)

and from the {counts['failures']} with at most half of them right:

![Skeletons of people with at most half of the keypoints right](../images/weights/{name}.failures.png)

A limb taken for the other side's lies on a grey line too. The photos may not be passed on, so they are not shown.

## Limits

{chr(10).join(f'- {sentence}' for sentence in facts['limits'])}

## Again

Train:

```sh
{facts['reproduce']}
```

Measure:

```sh
{facts['measure']}
```
"""


def _with_interval(value: float, interval: tuple[float, float] | list[float] | None) -> str:
    return f'{value:.3f}' + (f' [{interval[0]:.3f}, {interval[1]:.3f}]' if interval else '')


def write_card(name: str, run: Path, labels: Path, facts: dict[str, Any], docs: Path, draws: int = 1000) -> Path:
    """Write the card and its pictures.

    Args:
        name: `variant.tag`.
        run: Folder with `report.json` and `results.json` of `widehrnet eval --protocol pck`.
        labels: What it was measured on.
        facts: As `FACTS`.
        docs: Folder of the documentation.
        draws: Resamplings for the intervals by joint.

    Returns:
        The card's file.

    Raises:
        UserError: If the run is of another variant, or not of this kind.
    """
    report = json.loads((run / 'report.json').read_text(encoding='utf-8'))
    variant = name.partition('.')[0]
    if report['switches'].get('protocol') != 'pck' or not report['intervals']:
        raise UserError(f'{run} must be a run of `widehrnet eval --protocol pck --bootstrap 1000`.')
    measured = report['subject'].get('model', '').partition(',')[0].partition('.')[0]
    if measured in list_models() and measured != variant:
        raise UserError(f'{run} measured {report["subject"]["model"]}, not {variant}.')
    joints = Joints(read_labels(labels), read_results(run / 'results.json', COCO.num_keypoints))
    shares = joints.shares()
    kinds = {'successes': np.flatnonzero(shares == 1), 'failures': np.flatnonzero(shares <= 0.5)}
    pictures = docs / 'images' / 'weights'
    pictures.mkdir(parents=True, exist_ok=True)
    for kind, people in kinds.items():
        grid(joints, chosen(people)).quantize(64).save(pictures / f'{name}.{kind}.png', optimize=True)
    file = docs / 'weights' / f'{name}.md'
    write_whole(file, card(name, report, joints, facts, draws, {kind: len(p) for kind, p in kinds.items()}))
    return file


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('name', help='variant.tag')
    parser.add_argument('run', type=Path, help='folder of `widehrnet eval`')
    parser.add_argument('--labels', type=Path, required=True)
    parser.add_argument('--facts', type=Path, help='default: scripts/weights/cards/NAME.json')
    parser.add_argument('--draws', type=int, default=1000)
    args = parser.parse_args()
    try:
        facts = read_facts(args.facts or ROOT / 'scripts' / 'weights' / 'cards' / f'{args.name}.json')
        print(write_card(args.name, args.run, args.labels, facts, ROOT / 'docs', args.draws))
    except (UserError, OSError) as error:
        sys.exit(str(error))


if __name__ == '__main__':
    main()
