"""The recipe of a training run: its settings with their defaults."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from ..errors import UserError
from ..pose.crops import check_input_size, padding_of


@dataclass
class DataConfig:
    """What to learn from.

    Attributes:
        labels: COCO-keypoints JSON, or MPII annotations as JSON.
        images: Folder of its images.
        packs: Folder of packs, from `widehrnet pack`, instead of labels and images.
        val_labels: Labels to validate on; `None` to train without.
        val_images: Folder of their images; `None` for `images`.
        skeleton: `None` to take the keypoint names of the labels; or `coco`, `mpii`, a JSON or YAML file, or the
            fields of a `Skeleton`.
        sample_weights: Field of the annotations with how often each person is to come (COCO only): in a pass everybody
            with the largest number comes once, others in proportion.
        keypoint_weights: Field of the annotations with a weight in the loss for each keypoint, 0 or more (COCO only):
            what a human labelled may count more than what a teacher saw.
        cache: Folder of the decoded crops; `None` for `cache` in the run's folder.
        crop_size: Side of a stored crop in pixels; `None` stores the input's own resolution.
        margin: Side of a stored crop over the height of the box widened to the input's aspect and grown by 1.25: the
            room for rotation and shift.
        padding: Growth of a person's box to the view, in training, validation and, written into the trained model's
            config, wherever that model runs; `None` for that of the weights to start from, else 1.25.
        max_bad_images: Unreadable images to skip before giving up.
        workers: Threads that decode images; packs take all cores.
        resident: Keep all crops in the memory of an accelerator, where they fit.
    """

    labels: str | None = None
    images: str | None = None
    packs: str | None = None
    val_labels: str | None = None
    val_images: str | None = None
    skeleton: str | dict | None = None
    sample_weights: str | None = None
    keypoint_weights: str | None = None
    cache: str | None = None
    crop_size: int | None = None
    margin: float = 1.5
    padding: float | None = None
    max_bad_images: int = 20
    workers: int = 2
    resident: bool = True


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
        border_prob: How often the photo ends across a person, who is then looked at as one cut off by a real border:
            beyond it all is black and nothing is labelled, and the box is that of what is left.
        border_keep: Labelled keypoints that a border leaves at least; 4 leaves heads alone now and then.
        box_jitter: Largest move of each side of the box by itself, as a share of the box's side: boxes as a detector
            gives them, shifted, too tight or too wide.
        neighbour_prob: How often another person is laid over the crop, half off to a side; keypoints behind that
            person leave the loss.
        colour: Largest change of brightness, contrast and saturation.
        grey_prob: How often the colour is taken out.
        dark_prob: How often a sample is darkened.
        dark: Largest share of the light that is taken away then.
        noise_prob: How often noise is added.
        noise: Largest standard deviation of the noise, of 255.
        small_prob: How often a sample is shown as coarse as a small person.
        small: Smallest and largest height of such a person's box, in pixels of the photo.
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
    border_prob: float = 0.0
    border_keep: int = 4
    box_jitter: float = 0.0
    neighbour_prob: float = 0.0
    colour: float = 0.35
    grey_prob: float = 0.0
    dark_prob: float = 0.0
    dark: float = 0.5
    noise_prob: float = 0.0
    noise: float = 15.0
    small_prob: float = 0.0
    small: tuple[float, float] = (40.0, 100.0)
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
        absent: Weight of keypoints that are known to be out of the view, whose heatmaps should be empty: those beyond
            the view or a border that was drawn, and, with `data.keypoint_weights`, unlabelled ones with a weight. What
            cannot be seen then gets a low score. 0 leaves them out of the loss.
    """

    sigma: float | None = None
    unbiased: bool = True
    sharpness: float = 10.0
    keypoint_weights: dict[str, float] = field(default_factory=dict)
    ohkm: int = 0
    absent: float = 0.0


@dataclass
class BoxConfig:
    """A finder of people (`task: boxes`): its samples, and what an error costs; see `box_losses`.

    Attributes:
        mosaic_prob: Share of the samples that are four photos beside one another (Bochkovskiy et al., YOLOv4, 2020).
        zoom_in: Largest factor by which a photo is larger than its place, so that a part of it is seen.
        zoom_out: Largest factor by which it is smaller.
        stretch: Largest change of the proportions, as a factor.
        smallest: Boxes of fewer input pixels in height are left out of the loss.
        least_seen: Boxes of which a smaller share is in view are left out of the loss.
        top: Positions that stand for a person, at most.
        score: Weight of the scores' loss.
        box: Weight of the boxes' loss.
        bins: Weight of the distributions' loss.
    """

    mosaic_prob: float = 0.5
    zoom_in: float = 2.0
    zoom_out: float = 1.6
    stretch: float = 1.15
    smallest: float = 8.0
    least_seen: float = 0.2
    top: int = 13
    score: float = 1.0
    box: float = 2.0
    bins: float = 0.5


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
        out: Folder of the checkpoints, the log, the images and the trained model.
        task: What to learn: `keypoints`, or `boxes` for a person finder.
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
        boxes: Samples and loss of a person finder.
        teacher: Distillation.
        stages: Runs one after the other, each from the weights of the one before: what each has otherwise than this
            recipe, such as `{size: [128, 96], epochs: 20}`, and its `share` of `minutes` (1 beside the others').
    """

    out: str = 'runs/train'
    task: str = 'keypoints'
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
    boxes: BoxConfig = field(default_factory=BoxConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    stages: tuple[dict[str, Any], ...] = ()

    def __post_init__(self) -> None:
        check_input_size(self.size)
        for name in ('batch_size', 'epochs', 'lr', 'log_steps', 'eval_epochs'):
            if not getattr(self, name) > 0:
                raise UserError(f'{name} must be above 0, not {getattr(self, name)}.')
        if not 0 <= self.ema_decay < 1:
            raise UserError(f'ema_decay must be in 0..1, below 1, not {self.ema_decay}.')
        _one_of('task', self.task, ('keypoints', 'boxes'))
        for what, allowed in (('precision', ('float32', 'bf16')), ('compile', ('none', 'model', 'blocks'))):
            _one_of(what, getattr(self, what), allowed)
        padding_of(self.data)
        _one_of('model.init', self.model.init, ('kaiming', 'normal'))
        for name, value in vars(self.augment).items():
            if name.endswith('_prob') and not 0 <= value <= 1:
                raise UserError(f'augment.{name} must be in 0..1, not {value}.')
        if self.augment.scale < 1:
            raise UserError(f'augment.scale is the largest zoom, at least 1, not {self.augment.scale}.')
        for name in ('shift', 'colour', 'dark', 'noise', 'blur', 'cutout', 'border_keep', 'box_jitter'):
            if getattr(self.augment, name) < 0:
                raise UserError(f'augment.{name} must not be negative, not {getattr(self.augment, name)}.')
        if self.augment.dark > 1 or self.augment.box_jitter >= 0.5:
            raise UserError(
                'augment.dark is a share of the light, at most 1, and augment.box_jitter a share of the box, below 0.5.'
            )
        if not 0 < self.augment.small[0] <= self.augment.small[1]:
            raise UserError(f'augment.small is a smallest and a largest height above 0, not {self.augment.small}.')
        if self.teacher.model and self.teacher.keypoints:
            raise UserError('teacher.model and teacher.keypoints exclude each other: give one.')
        if not self.teacher.temperature > 0:
            raise UserError(f'teacher.temperature must be above 0, not {self.teacher.temperature}.')
        if self.fused and (self.compile != 'none' or self.grad_checkpointing):
            raise UserError('fused needs compile none and no grad_checkpointing.')
        if self.fused and self.sync_bn:
            raise UserError('Fused kernels know the batch of their own process only: leave sync_bn or fused out.')

    @property
    def sigma(self) -> float:
        """Standard deviation of the targets in heatmap pixels."""
        return self.target.sigma or max(1.0, self.size[0] / 128)

    def to_dict(self) -> dict[str, Any]:
        """As plain lists and numbers."""
        return asdict(self)


def _one_of(key: str, value: str, allowed: Iterable[str]) -> None:
    if value not in allowed:
        raise UserError(f'{key} must be one of {", ".join(allowed)}, not {value!r}.')
