"""The models of the zoo by name, on top of timm's registry."""

import difflib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import timm
from torch import nn

from ..errors import UserError
from ..pose.crops import padding_of
from ..pose.score_map import score_map_of
from ..pose.skeletons import Skeleton
from . import widehrnet

DEFAULT_MODEL = 'widehrnet_18_attn'
"""The variant that is taken where none is named."""

LIGHT_MODEL = 'widehrnet_10_attn'
"""The variant that is taken where none is named and time is short: for a camera, in a browser."""

# what timm and torch raise on arguments of the wrong type or size, which may be those of a stranger's config.json
_UNBUILDABLE = (
    TypeError, ValueError, AttributeError, LookupError, ArithmeticError, AssertionError, RuntimeError, MemoryError
)  # fmt: skip

# larger than any network here by far; a config.json beyond it would fill the memory
_LARGEST, _DEEPEST = 8192, 100

_MODULE = widehrnet.__name__.rpartition('.')[2]


def list_models(filter: str | list[str] = '') -> list[str]:
    """Names of the zoo's variants, sorted.

    Args:
        filter: Wildcards as in `timm.list_models`; empty for all.
    """
    return timm.list_models(filter, module=_MODULE)


def list_pretrained(filter: str | list[str] = '') -> list[str]:
    """Names with tag, `variant.tag`, of all weights that are there to load.

    Args:
        filter: Wildcards; empty for all.
    """
    return timm.list_models(filter, module=_MODULE, pretrained=True)


def create_model(model_name: str, pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Create a model of the zoo; `timm.create_model` with errors that say what to do.

    Args:
        model_name: A variant, `variant.tag`, `hf-hub:org/name[@revision]` or `local-dir:FOLDER`.
        pretrained: Load the tag's weights; the shipped ones where a variant has them.
        **kwargs: As for `timm.create_model`: `num_classes`, `in_chans`, `global_pool`, `features_only`,
            `cache_dir`, `pretrained_cfg_overlay`, ... and the arguments of `WideHRNet`.

    Returns:
        The model. One that was saved with a skeleton or a padding of its own has it as `skeleton`, `padding`.

    Raises:
        UserError: If the name is unknown, the weights do not exist or cannot be had, or they do not fit.
    """
    if ':' not in model_name:
        variant = model_name.partition('.')[0]
        if variant not in list_models():
            near = difflib.get_close_matches(variant, list_models(), n=3, cutoff=0.7)
            if '/' in model_name:
                raise UserError(
                    f'There is no folder {model_name}, and no model of that name in the zoo: for one of the Hub write '
                    f"'hf-hub:{model_name}'."
                )
            hint = f'did you mean {" or ".join(near)}?' if near else f'the zoo has {", ".join(list_models())}.'
            raise UserError(f'There is no model {variant!r}: {hint}')
        return timm.create_model(model_name, pretrained=pretrained, **kwargs)

    from ..weights.errors import hub_errors

    try:
        with hub_errors(model_name):
            config = _saved_config(model_name, kwargs.get('cache_dir'))
            skeleton = None if config.get('skeleton') is None else Skeleton.from_dict(config['skeleton'])
            padding = padding_of(SimpleNamespace(padding=config.get('padding')))
            score_map = score_map_of(SimpleNamespace(score_map=config.get('score_map')))
            model = timm.create_model(model_name, pretrained=pretrained, **kwargs)
    except UserError:
        raise
    except _UNBUILDABLE as error:
        raise UserError(
            f'{model_name}: its config.json, or the call, describes no network that can be built '
            f'({" ".join(str(error).split())[:200] or type(error).__name__}).'
        ) from error
    if skeleton is not None and skeleton.num_keypoints == getattr(model, 'num_classes', None):
        model.skeleton = skeleton  # type: ignore[assignment]
    if config.get('padding') is not None:
        model.padding = padding  # type: ignore[assignment]
    if score_map is not None:
        model.score_map = score_map  # type: ignore[assignment]
    return model


def _saved_config(model_name: str, cache_dir: str | Path | None) -> dict[str, Any]:
    """A saved model's config, which is checked on the way."""
    from timm.models import parse_model_name

    scheme, place = parse_model_name(model_name)
    if scheme == 'local-dir':
        file = Path(place) / 'config.json'
        if not file.is_file():
            raise FileNotFoundError(f'There is no {file}')
    else:
        from ..weights.download import fetch

        file = fetch(place, 'config.json', cache_dir)
    config = json.loads(file.read_text(encoding='utf-8'))
    if not isinstance(config, dict) or 'architecture' not in config:
        raise UserError(f'The config.json of {place} has no architecture, so it is not of a timm model.')
    _check_size(config, place)
    return config


def _check_size(config: dict[str, Any], place: str) -> None:
    args = config.get('model_args')
    values = [('num_classes', config.get('num_classes')), *(args.items() if isinstance(args, dict) else ())]
    for key, value in values:
        limit = _DEEPEST if key in ('num_modules', 'num_blocks') else _LARGEST
        items = value if isinstance(value, list) else [value]
        if any(isinstance(v, (int, float)) and not abs(v) <= limit for v in items) or len(items) > _DEEPEST:
            raise UserError(f'The config.json of {place} has {key}={str(value)[:80]}: no network is that large.')
