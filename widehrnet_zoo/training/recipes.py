"""Recipes from files and overrides; unknown keys are refused by name."""

import difflib
import math
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import load_yaml, read_settings
from .config import TrainConfig

CONFIGS = Path(__file__).parents[1] / 'configs'
"""Folder of the recipes that ship."""


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
        raise UserError(f'{prefix.rstrip(".") or "A recipe"} must be a mapping of settings, not {values!r}.')
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
        if not path.exists():
            raise UserError(f'There is no file {path}. Shipped recipes: {", ".join(shipped_configs())}.')
        loaded = read_settings(path)
        if not isinstance(loaded, Mapping):
            raise UserError(f'{path} is not a recipe: expected a mapping of settings.')
        _merge(values, loaded)
    for settings in [overrides] if isinstance(overrides, Mapping) else map(_override, overrides):
        _merge(values, settings)
    config = _build(TrainConfig, values)
    stage_configs(config)  # says what is wrong with them
    return config


def _override(text: str) -> Any:
    key, equals, raw = text.partition('=')
    if not equals:
        raise UserError(f'An override is written key=value, not {text!r}.')
    value = load_yaml(raw, f'The value of {key}, {raw[:80]!r},')
    for part in reversed(key.strip().split('.')):
        value = {part: value}
    return value


def stage_configs(config: TrainConfig) -> list[tuple[TrainConfig, float]]:
    """The recipes of the stages of a recipe, each with its share of the minutes; one, with all of them, without stages.

    Raises:
        UserError: If a stage has a setting that does not exist, or that is the whole run's.
    """
    if not config.stages:
        return [(config, 1.0)]
    found = []
    for number, stage in enumerate(config.stages, 1):
        values = {key: value for key, value in config.to_dict().items() if key != 'stages'}
        settings = dict(stage)
        share = _convert(settings.pop('share', 1.0), float, f'stages[{number}].share')
        if not share > 0:
            raise UserError(f'stages[{number}].share must be above 0, not {share}.')
        for key in ('out', 'minutes', 'stages', 'data', 'cpu'):
            if key in settings:
                raise UserError(f'stages[{number}].{key}: {key} is of the whole run, not of a stage.')
        _merge(values, settings, prefix=f'stages[{number}].')
        found.append((_build(TrainConfig, values), share))
    return found
