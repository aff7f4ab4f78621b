"""The detectors of an estimator: its own, and those that a call asks for."""

from typing import Any

import numpy as np
import numpy.typing as npt

from ..detection import Detector, find_people_in, finder_ships, open_detector
from ..errors import UserError
from ..pose.skeletons import Skeleton, is_human
from .people import Limits, choose_boxes
from .stream import Finder


class Detectors:
    """Detectors by name or callable, those with a name opened at their first use.

    Args:
        own: The estimator's own. `'auto'` is the finder that was exported with the model, if one was; else `'default'`
            where the keypoints are a human skeleton and the finder is in the installation; else none. A name is opened
            at once.
        backend: The estimator's, on whose device networks run.
        skeleton: What its keypoints are.
        engine: What runs a person finder.
        limits: For the threshold of the estimator's own.

    Raises:
        UserError: If there is no such detector, or it cannot be had.
    """

    def __init__(self, own: str | Detector | None, backend: Any, skeleton: Skeleton, engine: str, limits: Limits):
        self._backend, self._engine = backend, engine
        self._opened: dict[tuple[str, float | None], Detector] = {}
        self._own = own
        if not _is_auto(own):
            self.open('auto', limits)
            return
        exported = getattr(getattr(backend, 'metadata', None), 'finder', None)
        if exported is not None:
            self._own = f'finder:{backend.path.with_name(exported)}'
        else:
            self._own = 'default' if is_human(skeleton) and finder_ships() else None

    def open(self, detector: str | Detector | None, limits: Limits) -> Detector | None:
        """The detector for a name or a callable; `None` for none, `'auto'` for the estimator's own.

        Raises:
            UserError: If there is no such detector, or it cannot be had.
        """
        chosen = self._chosen(detector)
        if not isinstance(chosen, str):
            return chosen
        key = chosen, limits.box_threshold
        if key not in self._opened:
            device = getattr(self._backend, 'device', 'cpu')
            self._opened[key] = open_detector(chosen, device, limits.box_threshold, self._engine)
        return self._opened[key]

    def finder(self, detector: str | Detector | None, limits: Limits) -> Finder | None:
        """What the stream calls with photos that have no boxes: the detector, and of its boxes those within limits.

        Raises:
            UserError: As `open`, unless the detector is the estimator's own, which is opened when it is called.
        """
        if self._chosen(detector) is None:
            return None
        if not _is_auto(detector):
            self.open(detector, limits)  # a name that is wrong is said before any photo is read

        def find(
            images: list[npt.NDArray[np.uint8]], paths: list[str | None]
        ) -> list[tuple[npt.ArrayLike, npt.ArrayLike]]:
            opened = self.open(detector, limits)
            assert opened is not None
            chosen: list[tuple[npt.ArrayLike, npt.ArrayLike]] = []
            for boxes, scores in find_people_in(opened, images, paths, limits.box_threshold or 0.0):
                rows = choose_boxes(boxes, scores, limits)
                chosen.append((boxes[rows], scores[rows]))
            return chosen

        return find

    def _chosen(self, detector: str | Detector | None) -> str | Detector | None:
        chosen = self._own if _is_auto(detector) else detector
        if not (chosen is None or isinstance(chosen, str) or callable(chosen)):
            raise UserError(f'A detector is a name, a callable or None, not {type(chosen).__name__}.')
        return chosen


def _is_auto(detector: Any) -> bool:
    return isinstance(detector, str) and detector == 'auto'
