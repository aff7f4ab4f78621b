"""Video in, video and JSON lines of keypoints out (extra `video`).

`clips` reads and writes files, `follow` keeps people from frame to frame, `one_euro` smooths, `process` puts them
together.
"""

from importlib import import_module
from pathlib import Path
from typing import Any

SUFFIXES = frozenset(
    (
        '.3g2',
        '.3gp',
        '.asf',
        '.avi',
        '.f4v',
        '.flv',
        '.m2ts',
        '.m4v',
        '.mkv',
        '.mov',
        '.mp4',
        '.mpeg',
        '.mpg',
        '.mts',
        '.ogv',
        '.ts',
        '.vob',
        '.webm',
        '.wmv',
    )
)
"""File names that mean a video."""

_EXPORTS = {
    'FollowConfig': 'follow',
    'OneEuro': 'one_euro',
    'SmoothConfig': 'one_euro',
    'VideoSummary': 'process',
    'predict_video': 'process',
}
__all__ = [*_EXPORTS, 'SUFFIXES', 'is_video']


def is_video(path: str | Path) -> bool:
    """Whether a file's name says that it is a video."""
    return Path(path).suffix.lower() in SUFFIXES


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(f'.{_EXPORTS[name]}', __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
