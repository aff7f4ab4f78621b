"""The models that the page offers."""

import os
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import timm

from ..errors import UserError
from ..models.registry import DEFAULT_MODEL, LIGHT_MODEL, list_pretrained
from .pose import TimedEstimator

_KEPT = 2

VARIABLE = 'WIDEHRNET_DEMO_MODELS'
"""Environment variable with more models for the page, separated by commas: a variable of a Space can set it."""


class DemoModels:
    """Models by name, opened when they are first chosen; the last two stay open.

    Attributes:
        names: In the order of the list on the page.
        for_camera: The name that a camera begins with.

    Args:
        models: For each name what `PoseEstimator` opens, or a function that gives an estimator.
        device: Where they run; by default CUDA, MPS or the CPU, the first there is.
        engine: What runs them; see `PoseEstimator`.
        for_camera: One of these names; by default the first.
        **people: `detector` and limits of the estimators.

    Raises:
        UserError: If there are none.
    """

    def __init__(
        self,
        models: Mapping[str, str | Path | Callable[[], TimedEstimator]],
        device: str | None = None,
        engine: str = 'auto',
        for_camera: str | None = None,
        **people: Any,
    ):
        if not models:
            raise UserError('No weights ship with this installation: name a model, a folder or a file to show.')
        self.names = list(models)
        self.for_camera = for_camera or self.names[0]
        self._sources = dict(models)
        self._options: dict[str, Any] = {'device': device, 'engine': engine, **people}
        self._open: OrderedDict[str, TimedEstimator] = OrderedDict()

    @classmethod
    def find(
        cls, models: Sequence[str] = (), device: str | None = None, engine: str = 'auto', **people: Any
    ) -> 'DemoModels':
        """The models named, those of the environment, and those that ship.

        A camera begins with the first that is named, otherwise with the light one that ships.

        Args:
            models: Names, folders and files, as `PoseEstimator` opens them.
            device: Where they run.
            engine: What runs them; see `PoseEstimator`.
            **people: `detector` and limits of the estimators.

        Raises:
            UserError: If there are none, or a path does not exist.
        """
        named = [*models, *(name.strip() for name in os.environ.get(VARIABLE, '').split(',') if name.strip())]
        for name in named:
            if ('/' in name or os.sep in name) and ':' not in name and not Path(name).exists():
                raise UserError(f'There is no file or folder {name}.')
        # tags of person finders begin so
        poses = [name for name in list_pretrained() if not name.partition('.')[2].startswith('person_')]
        default, light = (_with_tag(name) for name in (DEFAULT_MODEL, LIGHT_MODEL))
        shipped = sorted(poses, key=lambda name: name != default)
        for_camera = light if light in poses and not named else None
        return cls({name: name for name in (*named, *shipped)}, device, engine, for_camera, **people)

    def get(self, name: str) -> TimedEstimator:
        """Open a model, or take the open one.

        Args:
            name: One of `names`.

        Raises:
            UserError: If there is no such name, or the model cannot be opened.
        """
        if name not in self._sources:
            raise UserError(f'There is no model {name!r:.80} here: choose {", ".join(self.names)}.')
        if name not in self._open:
            source = self._sources[name]
            estimator = source() if callable(source) else TimedEstimator(source, **self._options)
            estimator.warm_up()
            self._open[name] = estimator
            if len(self._open) > _KEPT:
                self._open.popitem(last=False)
        self._open.move_to_end(name)
        return self._open[name]


def _with_tag(name: str) -> str:
    """A variant's name with the tag of its default weights."""
    cfg = timm.get_pretrained_cfg(name)
    return f'{name}.{cfg.tag if cfg else ""}'
