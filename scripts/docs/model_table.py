"""Write docs/models.md from the registry.

Usage: python scripts/docs/model_table.py

Run it again when a variant, a tag, shipped weights or a model card has changed.
"""

from pathlib import Path

from widehrnet_zoo.files import write_whole
from widehrnet_zoo.models.catalogue import Entry, entries
from widehrnet_zoo.models.configs import REPOSITORY

DOCS = Path(__file__).resolve().parents[2] / 'docs'

# The commands that reproduce a figure, by tag, in docs/evaluation.md
ANCHORS = {
    'widehrnet_18.mpii_256x256': 'a-wide-hrnet-18-on-mpii',
    'widehrnet_18_attn.mpii_256x256': 'b-wide-hrnet-18-se-on-mpii',
    'widehrnet_18_attn.coco_256x192': 'c-wide-hrnet-18-se-on-coco-256x192',
    'widehrnet_18_attn.coco_384x288': 'd-wide-hrnet-18-se-on-coco-384x288',
    'widehrnet_30_attn.coco_256x192': 'e-wide-hrnet-30-se-on-coco-256x192',
}
WEIGHTS = {
    'shipped': 'in the package',
    'hub': 'on the Hub',
    'convert': '[convert](#official-weights)',
    'none': 'none yet',
}


PAGE = """\
<!-- written by scripts/docs/model_table.py: change it there -->
# Models

## Variants

Parameters and multiply-accumulates (MACs; most papers call them FLOPs) with 17 keypoints at 256x192 (height x width).
`_x2` and `_x6` are the expansions, `_attn` has squeeze-excitation. `widehrnet_10` is ours, the others are the authors'.
`widehrnet list` prints the same. The authors' code computes a doubled term of the
[fusion](concepts.md#the-official-sum) twice, so its count is about 6 % higher for the same result.

| variant | parameters | MACs |
|---|---:|---:|
{variants}

## Weights

`timm.create_model(NAME, pretrained=True)`, `PoseEstimator(NAME)` and `widehrnet predict --model NAME` take any name of
this table whose weights are there. A variant without a tag means its first one.

| name | keypoints | weights | figures | check |
|---|---|---|---|---|
{weights}

All other variants have the tag `untrained`: use `pretrained=False` and train them.

All figures are in per cent. Those of `coco` and `mpii` tags are the authors'; this project has not reproduced them yet,
since checkpoints and photos were not at hand. Those of `people` tags are measured by this project on 500 photos that
were not trained on, from the float16 file, with flip test.

### Official weights

The authors publish checkpoints behind the share links of [their README]({repository}) and state no licence for them,
so they are not passed on here. [Convert](convert.md) a file of theirs, and `local-dir:FOLDER` is their network.
"""


def page() -> str:
    """The page's Markdown."""
    tags = entries()
    variants: dict[str, Entry] = {}
    for tag in tags:
        if tag.size == (256, 192) and tag.num_keypoints == 17:
            variants.setdefault(tag.name.partition('.')[0], tag)
    return PAGE.format(
        variants='\n'.join(
            f'| `{name}` | {e.parameters / 1e6:.2f} M | {e.macs / 1e9:.3f} G |' for name, e in sorted(variants.items())
        ),
        weights='\n'.join(_row(tag) for tag in tags if tag.weights != 'none'),
        repository=REPOSITORY,
    )


def _row(tag: Entry) -> str:
    name = f'`{tag.name}`'
    figures = ', '.join(f'{figure} {value:g}' for figure, value in tag.figures.items()) or '-'
    anchor = 'weights-that-this-package-ships' if tag.weights == 'shipped' else ANCHORS.get(tag.name)
    check = f'[command](evaluation.md#{anchor})' if anchor else '-'
    if (DOCS / 'weights' / f'{tag.name}.md').exists():
        check = f'[card](weights/{tag.name}.md)'
    maps = f'{tag.num_keypoints} ({tag.skeleton})' if tag.num_keypoints else tag.skeleton
    return f'| {name} | {maps} | {WEIGHTS[tag.weights]} | {figures} | {check} |'


if __name__ == '__main__':
    write_whole(DOCS / 'models.md', page())
