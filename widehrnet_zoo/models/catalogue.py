"""What is known of the zoo's models: size, cost, weights and figures by tag."""

from dataclasses import asdict, dataclass
from typing import Any

from timm.models import PretrainedCfg, get_arch_pretrained_cfgs

from ..pose.box_maps import PERSON_BOXES, gives_boxes
from ..pose.skeletons import Skeleton, skeleton_of
from ..weights.licenses import NOT_STATED
from ..weights.shipped import shipped_entry
from .configs import REPOSITORY
from .macs import MacCount, count_parameters, measure_macs
from .registry import create_model, list_models

PUBLISHED: dict[str, dict[str, float]] = {
    'widehrnet_18.mpii_256x256': {'MPII val PCKh@0.5': 87.99},
    'widehrnet_18_attn.mpii_256x256': {'MPII val PCKh@0.5': 88.47},
    'widehrnet_18_attn.coco_256x192': {'COCO val2017 AP': 70.0, 'COCO val2017 AR': 75.8},
    'widehrnet_18_attn.coco_384x288': {'COCO val2017 AP': 70.1, 'COCO val2017 AR': 76.6},
    'widehrnet_30_attn.coco_256x192': {'COCO val2017 AP': 71.47, 'COCO val2017 AR': 77.14},
}
"""The authors' figures of their weights, in per cent (their README; COCO with boxes of a detector of 56 AP)."""


@dataclass(frozen=True)
class Entry:
    """A model of the zoo.

    Attributes:
        name: `variant.tag`.
        size: Height and width of the input.
        skeleton: Name of the keypoints' data set.
        num_keypoints: Number of keypoints; 0 for a person finder.
        parameters: Number of parameters.
        macs: Multiply-accumulates at this size.
        official_macs: The same as the authors' code computes it, which repeats a part; see `MacCount`.
        weights: `'shipped'`, `'hub'`, `'convert'` (official weights, to be converted by the user) or
            `'none'`.
        figures: Name to figure: the authors' for their weights, measured ones for shipped weights.
        license: Of the weights, `'unknown'` where none is stated; of the code where there are no weights.
        paper: Title.
        origin: Where official weights are.
    """

    name: str
    size: tuple[int, int]
    skeleton: str
    num_keypoints: int
    parameters: int
    macs: int
    official_macs: int
    weights: str
    figures: dict[str, float]
    license: str | None
    paper: str | None
    origin: str | None

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return {**asdict(self), 'size': list(self.size)}


def entries(filter: str | list[str] = '') -> list[Entry]:
    """All tags of the zoo's variants.

    Args:
        filter: Wildcards on the variant's name, as for `list_models`.
    """
    found = []
    for variant in list_models(filter):
        model: Any = create_model(variant)
        parameters = count_parameters(model) - count_parameters(model.classifier)
        counts: dict[int, MacCount] = {}
        for name, cfg in get_arch_pretrained_cfgs(variant).items():
            if cfg.num_classes != model.num_classes:
                model.reset_classifier(cfg.num_classes)
            if cfg.num_classes not in counts:
                counts[cfg.num_classes] = measure_macs(model, spoil=True)
            total = parameters + count_parameters(model.classifier)
            found.append(_entry(name, total, counts[cfg.num_classes], cfg, skeleton_of(cfg)))
    return found


def describe(model_name: str) -> tuple[Entry, Skeleton]:
    """One model of the zoo, a folder or the Hub.

    Args:
        model_name: As for `create_model`.

    Returns:
        What is known of it, and its skeleton.

    Raises:
        UserError: If there is no such model.
    """
    model = create_model(model_name)
    known: Any = model.pretrained_cfg
    cfg = PretrainedCfg(**known) if isinstance(known, dict) else known
    skeleton = skeleton_of(model)
    name = model_name
    if ':' not in name and '.' not in name and cfg.tag:
        name = f'{name}.{cfg.tag}'
    return _entry(name, count_parameters(model), measure_macs(model), cfg, skeleton), skeleton


def _entry(name: str, parameters: int, macs: MacCount, cfg: PretrainedCfg, skeleton: Skeleton) -> Entry:
    height, width = cfg.input_size[1:]
    finder = gives_boxes(skeleton)
    return Entry(
        name=name,
        size=(height, width),
        skeleton=PERSON_BOXES.name if finder else skeleton.name,
        num_keypoints=0 if finder else skeleton.num_keypoints,
        parameters=parameters,
        macs=macs.at((height, width)),
        official_macs=macs.at((height, width), official=True),
        weights=_weights(name, cfg),
        figures=PUBLISHED.get(name) or dict(shipped_entry(name).get('metrics', {})),
        license=cfg.license,
        paper=cfg.paper_name,
        origin=cfg.origin_url,
    )


def _weights(name: str, cfg: PretrainedCfg) -> str:
    if ':' in name:
        return name.partition(':')[0]
    if cfg.file:
        return 'shipped'
    if cfg.has_weights:
        return 'hub'
    return 'convert' if cfg.license == NOT_STATED and cfg.origin_url == REPOSITORY else 'none'
