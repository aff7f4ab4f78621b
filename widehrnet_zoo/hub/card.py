"""The model card: what the Hub shows of a model and finds it by."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError
from ..models.configs import PAPER, REPOSITORY
from ..models.widehrnet import WideHRNet
from ..pose.skeletons import Skeleton, is_human
from ..weights.licenses import NOT_STATED

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCard

TASK = 'keypoint-detection'
"""The Hub's id of the task."""

_POSE_USAGE = """```python
from widehrnet_zoo import PoseEstimator

result = PoseEstimator('{source}')('photo.jpg')
print(result.named(0))
```

or as a plain timm model, images (B, {in_chans}, {height}, {width}) to heatmaps (B, {num_classes}, {out_h}, {out_w}):

"""

_TIMM_USAGE = """```python
import timm
import widehrnet_zoo  # registers the architecture

model = timm.create_model('{source}', pretrained=True).eval()
```
"""


def model_card(
    model: WideHRNet,
    config_file: Path,
    skeleton: Skeleton | None,
    name: str,
    license: str | None,
    results: 'Sequence[EvalResult]' = (),
) -> 'ModelCard':
    """A card with the Hub's metadata and what a user needs to know.

    Args:
        model: The network.
        config_file: Its `config.json`.
        skeleton: Its keypoints; `None` for a classifier or a backbone.
        name: `org/name`, `name` or `local-dir:FOLDER`.
        license: Of the weights, a Hub licence id; `None` or `'unknown'` writes that none is stated.
        results: Metrics.

    Raises:
        UserError: If a metric is for another task.
    """
    from huggingface_hub import ModelCard, ModelCardData

    task = TASK if skeleton else 'image-classification' if model.num_classes else 'image-feature-extraction'
    for result in results:
        if result.task_type != task:
            raise UserError(f'A metric has task_type={result.task_type!r}, expected {task!r}.')
    config = json.loads(config_file.read_text())
    height, width = config['pretrained_cfg']['input_size'][1:]
    title = Path(name.removeprefix('local-dir:')).name
    source = name if name.startswith('local-dir:') else f'hf-hub:{name}'
    human = skeleton is not None and is_human(skeleton)
    known = license not in (None, NOT_STATED)
    data = ModelCardData(
        license=license if known else None,
        library_name='timm',
        pipeline_tag=task,
        tags=[task, 'timm', 'widehrnet', *(['pose-estimation', 'human-pose'] if human else [])],
        metrics=sorted({r.metric_type for r in results}) or None,
        model_name=title,
        eval_results=list(results) or None,
    )
    parameters = sum(p.numel() for p in model.parameters())
    facts = [
        f'- Architecture: `{config["architecture"]}`, {parameters / 1e6:.2f} M parameters',
        f'- Input: {height}x{width} (height x width), {model.in_chans} channels, mean '
        f'{_numbers(config["pretrained_cfg"]["mean"])}, std {_numbers(config["pretrained_cfg"]["std"])}',
        f'- Paper: {PAPER}',
        f'- Official code: {REPOSITORY}',
        f'- Licence of the weights: {license if known else "none is stated"}',
    ]
    usage = (_POSE_USAGE if skeleton else '') + _TIMM_USAGE
    parts = [
        f'---\n{data.to_yaml()}\n---',
        f'# {title}',
        f'A WideHRNet for {task.replace("-", " ")}, saved by `widehrnet_zoo`.',
        '\n'.join(facts),
        '## Usage',
        usage.format(
            source=source,
            in_chans=model.in_chans,
            height=height,
            width=width,
            num_classes=model.num_classes,
            out_h=height // 4,
            out_w=width // 4,
        ).rstrip(),
    ]
    if results:
        rows = [f'| {r.dataset_name} | {r.metric_name or r.metric_type} | {r.metric_value} |' for r in results]
        parts += ['## Results', '| data | metric | value |\n|---|---|---|\n' + '\n'.join(rows)]
    if skeleton:
        rows = [f'| {i} | {k} |' for i, k in enumerate(skeleton.keypoints)]
        parts += [f'## Keypoints ({skeleton.name})', '| index | name |\n|---|---|\n' + '\n'.join(rows)]
    return ModelCard('\n\n'.join(parts) + '\n')


def _numbers(values: Sequence[float]) -> str:
    return '(' + ', '.join(f'{v:g}' for v in values) + ')'
