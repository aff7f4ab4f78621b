"""The recipe of a training run: defaults, files, overrides; unknown keys are refused by name."""

import difflib
import math
import re
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..extras import require

__all__ = [
    'CONFIGS',
    'AugmentConfig',
    'DataConfig',
    'ModelConfig',
    'TargetConfig',
    'TeacherConfig',
    'TrainConfig',
    'load_config',
    'shipped_configs',
]

CONFIGS = Path(__file__).parents[1] / 'configs'
"""Folder of the recipes that ship."""

_MOST_VALUES = 100_000
_DEEPEST = 100


@dataclass
class DataConfig:
    """What to learn from.

    Attributes:
        labels: COCO-keypoints JSON, or MPII annotations as JSON.
        images: Folder of its images.
        val_labels: Labels to validate on; `None` to train without.
        val_images: Folder of their images; `None` for `images`.
        skeleton: `None` to take the keypoint names of the labels; or `coco`, `mpii`, a JSON or YAML file, or the
            fields of a `Skeleton`.
        shares: Field of the annotations with how often each person is to come (COCO only): in a pass everybody with the
            largest number comes once, others in proportion.
        cache: Folder of the decoded crops; `None` for `cache` in the run's folder.
        crop_size: Side of a stored crop in pixels; `None` stores the input's own resolution.
        margin: Side of a stored crop over the height of the test-time view: the room for rotation and shift.
        max_bad_images: Unreadable images to skip before giving up.
        workers: Threads that decode images.
    """

    labels: str | None = None
    images: str | None = None
    val_labels: str | None = None
    val_images: str | None = None
    skeleton: str | dict | None = None
    shares: str | None = None
    cache: str | None = None
    crop_size: int | None = None
    margin: float = 1.5
    max_bad_images: int = 20
    workers: int = 2


@dataclass
class ModelConfig:
    """What to train.

    Attributes:
        name: A variant, `variant.tag`, `hf-hub:org/name` or `local-dir:FOLDER`.
        pretrained: Start from the weights that the name stands for.
        weights: Start from this file (safetensors, or an official checkpoint) instead.
        freeze: Module names that stay as they are (`stem`, `stages.0`, with wildcards); `backbone` for all but the
            head. Frozen norms keep their statistics.
        args: Arguments of `WideHRNet` beside the variant's own: `attn_layer`, `drop_path_rate`, ...
        init: Without weights, `kaiming` for the convolutions, or `normal`, std 0.001, as the authors do.
    """

    name: str = 'widehrnet_18_attn'
    pretrained: bool = False
    weights: str | None = None
    freeze: tuple[str, ...] = ()
    args: dict[str, Any] = field(default_factory=dict)
    init: str = 'kaiming'


@dataclass
class AugmentConfig:
    """Ranges of the augmentations; the defaults suit people in sport.

    Attributes:
        rotation: Half-width of the uniform rotation, in degrees; the standard deviation with `normal`.
        rotation_prob: How often a sample is rotated within `rotation`.
        any_rotation_prob: How often a sample is rotated by any angle.
        scale: Largest zoom; the factor is log-uniform in [1 / scale, scale]. With `normal`, scale - 1 is the
            standard deviation of the factor about 1.
        normal: Draw rotation (cut at two deviations) and scale (cut at one) from normal distributions.
        shift: Largest shift, as a share of the view's height.
        far_prob: How often a sample is seen from further away, and further off the centre, as the person is in a photo
            without a box.
        far: Largest additional factor of the view then.
        flip_prob: How often a sample is mirrored.
        half_body_prob: How often only the upper or the lower body is looked at, where more than eight keypoints
            are labelled.
        lower_body: Parts of names that mark the keypoints of the lower body.
        colour: Largest change of brightness, contrast and saturation.
        grey_prob: How often the colour is taken out.
        blur_prob: How often a sample is blurred.
        blur: Largest standard deviation of the blur, in input pixels.
        cutout_prob: How often a part is hidden.
        cutout: Largest side of the hidden part, as a share of the input's height.
        cutout_keypoint: How often the hidden part lies on a labelled keypoint instead of anywhere.
        occluder: How often the part is hidden by a piece of the same image instead of its mean colour.
    """

    rotation: float = 45.0
    rotation_prob: float = 0.7
    any_rotation_prob: float = 0.0
    scale: float = 1.3
    normal: bool = False
    shift: float = 0.06
    far_prob: float = 0.0
    far: float = 2.2
    flip_prob: float = 0.5
    half_body_prob: float = 0.0
    lower_body: tuple[str, ...] = ('hip', 'knee', 'ankle', 'pelvis', 'heel', 'foot', 'toe')
    colour: float = 0.35
    grey_prob: float = 0.0
    blur_prob: float = 0.0
    blur: float = 1.5
    cutout_prob: float = 0.2
    cutout: float = 0.28
    cutout_keypoint: float = 0.5
    occluder: float = 0.5


@dataclass
class TargetConfig:
    """What the heatmaps should be, and what an error costs.

    Attributes:
        sigma: Standard deviation of the Gaussians in heatmap pixels; `None` for the field's 2 at 256 rows and 3 at
            384, in proportion at other sizes (at least 1).
        unbiased: Sub-pixel centres; else each centre is rounded to a heatmap pixel, as the authors do.
        sharpness: Weight inside the cross-entropy over positions (see `keypoint_losses`); 0 for squared error alone.
        keypoint_weights: Loss weight by keypoint name; 1 where none is given.
        ohkm: Count only this many of the hardest keypoints of each sample; 0 for all.
    """

    sigma: float | None = None
    unbiased: bool = True
    sharpness: float = 10.0
    keypoint_weights: dict[str, float] = field(default_factory=dict)
    ohkm: int = 0


@dataclass
class TeacherConfig:
    """A second target. Give `model` or `keypoints`.

    Attributes:
        model: A model whose heatmaps are learnt, as in `ModelConfig.name`, with its weights.
        weights: A file of weights for it instead.
        keypoints: Field of the label file's annotations with predictions [x, y, score, ...] in COCO's order.
        weight: Weight of the second loss beside that of the labels.
        temperature: Divides both heatmaps before the softmax over positions (heatmaps only).
    """

    model: str | None = None
    weights: str | None = None
    keypoints: str | None = None
    weight: float = 1.0
    temperature: float = 1.0


@dataclass
class TrainConfig:
    """A training run.

    Attributes:
        out: Folder of the checkpoints, the log, the pictures and the trained model.
        size: Height and width of the input, multiples of 32.
        batch_size: Samples per step, over all processes together.
        epochs: Passes over the data; may be a fraction.
        minutes: Wall-clock budget; the schedule follows whichever of epochs and minutes is further on, so that a run
            on a slow machine still ends annealed.
        opt: Optimiser, by timm's name.
        lr: Peak learning rate.
        weight_decay: Weight decay; biases and norms have none.
        layer_decay: Factor on the learning rate from each layer to the one before it.
        clip_grad: Largest norm of the gradient.
        sched: Schedule, by timm's name: `cosine`, `multistep`, `constant`, ...
        milestones: Epochs at which `multistep` multiplies the learning rate by `decay_rate`.
        decay_rate: See `milestones`.
        min_lr: Learning rate at the end.
        warmup_steps: Steps of linear warm-up.
        warmup_lr: Learning rate before the first step.
        ema_decay: Decay of the exponential moving average of the weights, which is what is validated and kept; 0
            for none.
        precision: `float32` or `bf16`.
        channels_last: Memory format of the activations.
        grad_checkpointing: Recompute activations in the backward pass: less memory, more time.
        compile: `none`, `model` (one graph) or `blocks` (each repeated block, much quicker to compile).
        sync_bn: Batch-norm statistics over all processes, so that several are the same as one.
        cpu: Train on the CPU even where there is an accelerator.
        fused: Fused CPU kernels, the same function in less time; needs a C++ compiler.
        seed: Seed of the order, the augmentation and the new weights.
        log_steps: Steps between rows of the log.
        eval_epochs: Epochs between validations.
        eval_minutes: Minutes between validations, instead.
        save_minutes: Minutes between checkpoints.
        pck: Threshold of the PCK that is shown, in units of the torso, or of the box for other skeletons.
        tensorboard: Write TensorBoard's events as well.
        data: What to learn from.
        model: What to train.
        augment: Ranges of the augmentations.
        target: Heatmaps and loss.
        teacher: Distillation.
    """

    out: str = 'runs/train'
    size: tuple[int, int] = (256, 192)
    batch_size: int = 32
    epochs: float = 20.0
    minutes: float | None = None
    opt: str = 'adamw'
    lr: float = 2e-3
    weight_decay: float = 0.02
    layer_decay: float | None = None
    clip_grad: float | None = 5.0
    sched: str = 'cosine'
    milestones: tuple[float, ...] = ()
    decay_rate: float = 0.1
    min_lr: float = 0.0
    warmup_steps: int = 200
    warmup_lr: float = 0.0
    ema_decay: float = 0.998
    precision: str = 'float32'
    channels_last: bool = True
    grad_checkpointing: bool = False
    compile: str = 'none'
    sync_bn: bool = False
    cpu: bool = False
    fused: bool = False
    seed: int = 0
    log_steps: int = 20
    eval_epochs: float = 1.0
    eval_minutes: float | None = None
    save_minutes: float = 5.0
    pck: float = 0.2
    tensorboard: bool = False
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    target: TargetConfig = field(default_factory=TargetConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)

    def __post_init__(self) -> None:
        if min(self.size) < 32 or any(side % 32 for side in self.size):
            raise UserError(f'size is height and width, multiples of 32, not {self.size[0]}x{self.size[1]}.')
        for name in ('batch_size', 'epochs', 'lr', 'log_steps', 'eval_epochs'):
            if not getattr(self, name) > 0:
                raise UserError(f'{name} must be above 0, not {getattr(self, name)}.')
        if not 0 <= self.ema_decay < 1:
            raise UserError(f'ema_decay must be in 0..1, below 1, not {self.ema_decay}.')
        for what, allowed in (('precision', ('float32', 'bf16')), ('compile', ('none', 'model', 'blocks'))):
            _one_of(what, getattr(self, what), allowed)
        _one_of('model.init', self.model.init, ('kaiming', 'normal'))
        for name in _names(AugmentConfig):
            value = getattr(self.augment, name)
            if name.endswith('_prob') and not 0 <= value <= 1:
                raise UserError(f'augment.{name} must be in 0..1, not {value}.')
        if self.augment.scale < 1:
            raise UserError(f'augment.scale is the largest zoom, at least 1, not {self.augment.scale}.')
        if self.teacher.model and self.teacher.keypoints:
            raise UserError('teacher.model and teacher.keypoints exclude each other: give one.')
        if not self.teacher.temperature > 0:
            raise UserError(f'teacher.temperature must be above 0, not {self.teacher.temperature}.')
        if self.fused and (self.compile != 'none' or self.grad_checkpointing):
            raise UserError('fused needs compile none and no grad_checkpointing.')
        if self.fused and self.sync_bn:
            raise UserError('fused kernels know the batch of their own process only: leave sync_bn or fused out.')

    @property
    def sigma(self) -> float:
        """Standard deviation of the targets in heatmap pixels."""
        return self.target.sigma or max(1.0, self.size[0] / 128)

    def to_dict(self) -> dict[str, Any]:
        """As plain lists and numbers."""
        return asdict(self)


def _names(cls: type) -> list[str]:
    return [f.name for f in fields(cls)]


def _one_of(key: str, value: str, allowed: Iterable[str]) -> None:
    if value not in allowed:
        raise UserError(f'{key} must be one of {", ".join(allowed)}, not {value!r}.')


def _unknown(key: str, names: Iterable[str], prefix: str) -> UserError:
    names = list(names)
    near = difflib.get_close_matches(key, names, n=1)
    hint = f'did you mean {prefix}{near[0]}?' if near else f'there are {", ".join(names)}.'
    return UserError(f'There is no setting {prefix}{key}: {hint}')


def _convert(value: Any, hint: Any, key: str) -> Any:
    """A value of a file or of the command line as the type of its field."""
    if hint is Any:
        return value
    if is_dataclass(hint):
        return _build(hint, value, f'{key}.')
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in args:
            return None
        options = [a for a in args if a is not type(None)]
        if dict in options and isinstance(value, Mapping):
            return dict(value)
        return _convert(value, next(a for a in options if a is not dict), key)
    expected = {bool: 'true or false', int: 'a whole number', float: 'a number', str: 'a text'}.get(hint, 'a list')
    try:
        if origin is tuple:
            items = [value] if isinstance(value, (str, int, float)) else list(value)
            if Ellipsis not in args and len(items) != len(args):
                expected = f'{len(args)} values'
                raise ValueError
            item_hints = [args[0]] * len(items) if Ellipsis in args else args
            return tuple(_convert(v, h, key) for v, h in zip(items, item_hints, strict=True))
        if origin is dict:
            expected = 'names with values'
            return {str(k): _convert(v, args[1], f'{key}.{k}') for k, v in value.items()}
        if hint is bool:
            if isinstance(value, bool):
                return value
        elif hint is str:
            if isinstance(value, (str, Path)):
                return str(value)
        elif not isinstance(value, bool) and math.isfinite(float(value)) and (hint is float or float(value) % 1 == 0):
            return hint(float(value))
    except UserError:
        raise
    except (TypeError, ValueError, AttributeError, OverflowError):
        pass
    raise UserError(f'{key} must be {expected}, not {value!r}.')


def _build(cls: Any, values: Any, prefix: str = '') -> Any:
    if not isinstance(values, Mapping):
        raise UserError(f'{prefix.rstrip(".") or "A recipe"} must be settings with names, not {values!r}.')
    hints = typing.get_type_hints(cls)
    kwargs = {}
    for key, value in values.items():
        if key not in hints:
            raise _unknown(str(key), hints, prefix)
        kwargs[key] = _convert(value, hints[key], f'{prefix}{key}')
    return cls(**kwargs)


def _merge(base: dict[str, Any], over: Mapping[str, Any], cls: Any = TrainConfig, prefix: str = '') -> None:
    """Lay settings over others, section by section; entries of a free mapping (`keypoint_weights`) are added."""
    hints = typing.get_type_hints(cls)
    for key, value in over.items():
        if key not in hints:
            raise _unknown(str(key), hints, prefix)
        if is_dataclass(hints[key]) and (value is None or isinstance(value, Mapping)):
            # a section that is there but empty changes nothing
            _merge(base.setdefault(key, {}), value or {}, hints[key], f'{prefix}{key}.')
        elif typing.get_origin(hints[key]) is dict and isinstance(value, Mapping):
            base[key] = {**(base.get(key) or {}), **value}
        else:
            base[key] = value


def shipped_configs() -> list[str]:
    """Names of the recipes that ship."""
    return sorted(path.stem for path in CONFIGS.glob('*.yaml'))


def read_file(path: Path) -> Any:
    """Read YAML (JSON is YAML) or, by its ending, TOML.

    Raises:
        UserError: If it cannot be read.
    """
    try:
        text = path.read_text(encoding='utf-8')
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f'{path} cannot be read: {error}. Shipped recipes: {", ".join(shipped_configs())}.') from error
    if path.suffix == '.toml':
        try:
            import tomllib
        except ModuleNotFoundError as error:
            raise UserError(f'{path}: TOML needs Python 3.11 or later; write the recipe in YAML.') from error
        try:
            return tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise UserError(f'{path} is no TOML: {error}.') from error
    return _load_yaml(text, str(path)) or {}


def _load_yaml(text: str, name: str) -> Any:
    yaml: Any = require('yaml', 'train')
    # PyYAML takes seconds for a thousand open brackets before it gives up
    depth = 0
    for bracket in re.findall(r'[][{}]', text):
        depth += 1 if bracket in '[{' else -1
        if depth > _DEEPEST:
            raise UserError(f'{name} is nested too deep: {_DEEPEST} levels of brackets are the most.')
    try:
        value = yaml.safe_load(text)
    except Exception as error:  # PyYAML lets all kinds of errors out on what looks like a date or a number
        raise UserError(f'{name} is no YAML: {" ".join(str(error).split())[:300]}.') from error
    # aliases make a small file endless, or so large that no copy of it fits anywhere
    pending, count = [value], 0
    while pending:
        count += 1
        if count > _MOST_VALUES:
            raise UserError(f'{name} unfolds to more than {_MOST_VALUES} values: write it without aliases (*name).')
        item = pending.pop()
        pending.extend([*item, *item.values()] if isinstance(item, dict) else item if isinstance(item, list) else ())
    return value


def load_config(
    source: str | Path | Mapping[str, Any] | None = None,
    overrides: Iterable[str] | Mapping[str, Any] = (),
) -> TrainConfig:
    """A recipe from a file, with overrides.

    Args:
        source: A YAML, TOML or JSON file, the name of a recipe that ships, or its values; `None` for the defaults.
        overrides: `key=value` texts, dots for sections (`augment.rotation=30`), values in YAML; or a mapping like
            that of a file.

    Returns:
        The recipe.

    Raises:
        UserError: If a key is unknown, or a value has the wrong type or range.
    """
    values: dict[str, Any] = {}
    if isinstance(source, Mapping):
        _merge(values, source)
    elif source is not None:
        path = Path(source)
        if not path.suffix and not path.exists() and (CONFIGS / f'{source}.yaml').exists():
            path = CONFIGS / f'{source}.yaml'
        loaded = read_file(path)
        if not isinstance(loaded, Mapping):
            raise UserError(f'{path} is no recipe: expected settings with names.')
        _merge(values, loaded)
    if isinstance(overrides, Mapping):
        _merge(values, overrides)
        return _build(TrainConfig, values)
    for text in overrides:
        key, equals, raw = text.partition('=')
        if not equals:
            raise UserError(f'An override is written key=value, not {text!r}.')
        value = _load_yaml(raw, f'The value of {key}, {raw[:80]!r},')
        for part in reversed(key.strip().split('.')):
            value = {part: value}
        _merge(values, value)
    return _build(TrainConfig, values)
