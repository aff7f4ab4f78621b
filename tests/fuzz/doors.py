"""Every way into the package for a file of others, with inputs for it and what must hold for whatever is accepted.

An input is always the content of a file. A door either gives something valid and finite or raises `UserError`;
anything else that it raises, a wrong result, or more than `LIMIT_S` seconds is a finding.
"""

import functools
import signal
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from widehrnet_zoo.errors import UserError

LIMIT_S = 60
"""Seconds after which an input counts as a hang; the machine may be busy."""

NAMES = ['nose', 'left_eye', 'right_eye']
KITE = {'name': 'kite', 'keypoints': NAMES, 'flip_pairs': [[1, 2]], 'bones': [[0, 1]], 'sigmas': [0.1, 0.1, 0.1]}
POINTS = [5.0, 6.0, 2, 7, 8, 1, 0, 0, 0]


class Hang(BaseException):
    """An input took too long; no `except Exception` on the way may take it for one of its own."""


@dataclass(frozen=True)
class Door:
    """A way in.

    Attributes:
        name: What it is called in the figures.
        make: Random numbers to the content of a file.
        enter: Content and an empty folder; raises `AssertionError` where something wrong was accepted.
        examples: Inputs in the tests.
        slow: Whether these take more than a few seconds.
    """

    name: str
    make: Callable[[Random], bytes]
    enter: Callable[[bytes, Path], None]
    examples: int = 40
    slow: bool = False

    def knock(self, content: bytes, folder: Path) -> bool:
        """Try an input.

        Returns:
            Whether it was accepted.

        Raises:
            Exception: What the door should not have let out.
        """

        def stop(number: int, frame: object) -> None:
            raise Hang(f'no answer after {LIMIT_S} s')

        before = signal.signal(signal.SIGALRM, stop)
        signal.alarm(LIMIT_S)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')
                self.enter(content, folder)
        except UserError as error:
            said = str(error)
            assert said and 'Traceback' not in said, f'no sentence: {said!r}'
            return False
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)
        return True


DOORS: dict[str, Door] = {}


def door(name: str, make: Callable[[Random], bytes], examples: int = 40, slow: bool = False) -> Callable[[Any], Any]:
    def add(enter: Callable[[bytes, Path], None]) -> Callable[[bytes, Path], None]:
        DOORS[name] = Door(name, make, enter, examples, slow)
        return enter

    return add


def later(make: Callable[[], Callable[[Random], bytes]]) -> Callable[[Random], bytes]:
    """Inputs whose valid seed is made at the first use."""
    made = functools.cache(make)
    return lambda random: made()(random)


def put(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def finite(*arrays: Any) -> None:
    for array in arrays:
        assert np.isfinite(np.asarray(array, float)).all(), 'accepted what is not finite'
