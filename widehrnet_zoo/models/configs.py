"""What timm knows of each variant's weights: where they are, what they find, and the input they learnt from."""

from typing import Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import generate_default_cfgs

from ..pose.box_maps import PERSON_BOXES
from ..pose.skeletons import SKELETONS
from ..weights import licenses
from ..weights.shipped import WEIGHTS

PAPER = (
    'WideHRNet: An Efficient Model for Human Pose Estimation Using Wide Channels in Lightweight High-Resolution Network'
)
REPOSITORY = 'https://github.com/IsraaSamkari/WideHRNet'


def _cfg(data: str = 'coco', input_size: tuple[int, int] = (256, 192), **kwargs: Any) -> dict[str, Any]:
    names = (PERSON_BOXES if data == 'person' else SKELETONS[data]).keypoints
    return {
        'url': '',
        'num_classes': len(names),
        'label_names': names,
        'input_size': (3, *input_size),
        'min_input_size': (3, 64, 64),
        'pool_size': (input_size[0] // 4, input_size[1] // 4),
        'interpolation': 'bilinear',
        'crop_pct': 1.0,
        'mean': IMAGENET_DEFAULT_MEAN,
        'std': IMAGENET_DEFAULT_STD,
        'first_conv': 'stem.conv.conv',
        'classifier': 'classifier',
        'license': licenses.OWN,
        'paper_name': PAPER,
        **kwargs,
    }


def _official(data: str, height: int, width: int) -> dict[str, Any]:
    return _cfg(data, (height, width), license=licenses.NOT_STATED, origin_url=REPOSITORY)


def _shipped(variant: str, height: int, width: int, tag: str = 'people') -> dict[str, Any]:
    file = WEIGHTS / f'{variant}.{tag}_{height}x{width}.safetensors'
    data = 'person' if tag == 'person' else 'coco'
    return _cfg(data, (height, width), file=str(file) if file.exists() else None)


default_cfgs = generate_default_cfgs(
    {
        'widehrnet_10.untrained': _cfg(),
        'widehrnet_10_attn.everyday_256x192': _shipped('widehrnet_10_attn', 256, 192, 'everyday'),
        'widehrnet_10_attn.people_256x192': _shipped('widehrnet_10_attn', 256, 192),
        # a person finder; a variant's first tag is its default, so it stands second
        'widehrnet_10_attn.person_320x320': _shipped('widehrnet_10_attn', 320, 320, 'person'),
        'widehrnet_18_x2.untrained': _cfg(),
        'widehrnet_18_x2_attn.untrained': _cfg(),
        'widehrnet_18.everyday_256x192': _shipped('widehrnet_18', 256, 192, 'everyday'),
        'widehrnet_18.coco_256x192': _official('coco', 256, 192),
        'widehrnet_18.coco_384x288': _official('coco', 384, 288),
        'widehrnet_18.mpii_256x256': _official('mpii', 256, 256),
        'widehrnet_18_attn.everyday_256x192': _shipped('widehrnet_18_attn', 256, 192, 'everyday'),
        'widehrnet_18_attn.people_256x192': _shipped('widehrnet_18_attn', 256, 192),
        'widehrnet_18_attn.person_320x320': _shipped('widehrnet_18_attn', 320, 320, 'person'),
        'widehrnet_18_attn.coco_256x192': _official('coco', 256, 192),
        'widehrnet_18_attn.coco_384x288': _official('coco', 384, 288),
        'widehrnet_18_attn.mpii_256x256': _official('mpii', 256, 256),
        'widehrnet_18_x6.untrained': _cfg(),
        'widehrnet_18_x6_attn.untrained': _cfg(),
        'widehrnet_30_x2.untrained': _cfg(),
        'widehrnet_30_x2_attn.untrained': _cfg(),
        'widehrnet_30.coco_256x192': _official('coco', 256, 192),
        'widehrnet_30.coco_384x288': _official('coco', 384, 288),
        'widehrnet_30.mpii_256x256': _official('mpii', 256, 256),
        'widehrnet_30_attn.everyday_256x192': _shipped('widehrnet_30_attn', 256, 192, 'everyday'),
        'widehrnet_30_attn.coco_256x192': _official('coco', 256, 192),
        'widehrnet_30_attn.coco_384x288': _official('coco', 384, 288),
        'widehrnet_30_attn.mpii_256x256': _official('mpii', 256, 256),
        'widehrnet_30_x6.untrained': _cfg(),
        'widehrnet_30_x6_attn.untrained': _cfg(),
    }
)
