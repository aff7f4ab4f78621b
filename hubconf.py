"""Entry points for `torch.hub`: each variant of the registry, by its name.

>>> torch.hub.load('widehrnet-zoo/widehrnet_zoo', 'widehrnet_18_attn', pretrained=True)
"""

from collections.abc import Callable as _Callable
from typing import Any as _Any

dependencies = ['torch', 'timm', 'huggingface_hub', 'safetensors', 'numpy', 'PIL']


def _entry_points() -> dict[str, _Callable[..., _Any]]:
    # torch.hub lists every callable of this module, so all helpers stay inside
    from timm.models import model_entrypoint

    from widehrnet_zoo.models.registry import create_model, list_models

    def entry_point(name: str) -> _Callable[..., _Any]:
        def create(pretrained: bool = False, **kwargs: _Any) -> _Any:
            return create_model(name, pretrained=pretrained, **kwargs)

        create.__name__ = create.__qualname__ = name
        create.__doc__ = (
            f'{(model_entrypoint(name).__doc__ or name).strip()}\n\n'
            'Args:\n'
            '    pretrained: Load weights; the shipped ones where the variant has them.\n'
            '    **kwargs: As for `timm.create_model`: num_classes, in_chans, global_pool, features_only,\n'
            "        pretrained_cfg ('coco_256x192', ...), pretrained_cfg_overlay, cache_dir, ...\n\n"
            'Returns:\n'
            '    The network: images (B, in_chans, H, W) to heatmaps (B, num_classes, H/4, W/4).\n'
        )
        return create

    return {name: entry_point(name) for name in list_models()}


globals().update(_entry_points())
