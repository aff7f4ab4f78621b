"""The files that grow with a video: the one with the people drawn on it, and the JSON lines."""

import json
import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import numpy.typing as npt

from ..extras import require
from ..files import naming
from ..pose.results import PoseResult
from .clips import Frame, VideoReader, VideoWriter

AHEAD = 4
"""Frames that wait between two threads, at most."""

_log = logging.getLogger(__name__)


class Outputs:
    """The files that grow with the video.

    Args:
        reader: The source.
        video: The video to write, if any.
        lines: The JSON lines to write, if any; into an open file they are written as they come.
        draw: Draws the people of a frame on it.
        threads: Draw and encode in a thread of its own.
    """

    def __init__(
        self,
        reader: VideoReader,
        video: Path | None,
        lines: Path | IO[str] | None,
        draw: Callable[[npt.NDArray[np.uint8], PoseResult], Any],
        threads: bool = True,
    ):
        self._reader, self.video, self._draw = reader, video, draw
        self._lines = lines if isinstance(lines, Path) else None
        self._writer: VideoWriter | None = None
        self._pool = ThreadPoolExecutor(1, 'draw') if threads and video is not None else None
        self._waiting: deque[Future[None]] = deque()
        self._broken = False
        self._part = None if self._lines is None else self._lines.with_name(f'{self._lines.name}.part')
        self._file = self._part.open('w', encoding='utf-8') if self._part else cast('IO[str] | None', lines)

    def add(self, index: int, frame: Frame, result: PoseResult, numbers: list[int]) -> None:
        """Add a frame; its line of JSON is in the file at once, its picture comes when it is drawn.

        Args:
            index: Its number, from 0.
            frame: It.
            result: The people in it.
            numbers: The number of each.
        """
        if self._file is not None:
            whole = result.to_dict()
            people = [{'id': n, **person} for n, person in zip(numbers, whole['people'], strict=True)]
            entry = {'frame': index, 'time': round(frame.time, 6), 'image_size': whole['image_size'], 'people': people}
            self._file.write(json.dumps(entry, ensure_ascii=False, allow_nan=False) + '\n')
            self._file.flush()
        if self._pool is not None:
            self._waiting.append(self._pool.submit(self._show, frame, result))
            while len(self._waiting) > AHEAD:
                self._waiting.popleft().result()
        elif self.video is not None:
            self._show(frame, result)

    def _show(self, frame: Frame, result: PoseResult) -> None:
        assert self.video is not None
        if self._broken:
            return  # a video goes up to the frame that failed
        self._broken = True
        drawn = np.asarray(self._draw(frame.image, result))
        with self._naming():
            if self._writer is None:
                self._writer = VideoWriter(self.video, self._reader, (frame.image.shape[1], frame.image.shape[0]))
            self._writer.write(drawn, frame.pts)
        self._broken = False

    def _naming(self) -> AbstractContextManager[None]:
        assert self.video is not None
        return naming(self.video, require('av', 'video').error.FFmpegError)

    def stop(self) -> None:
        """Leave what there is in the part files; frames that wait are drawn first."""
        if self._pool is not None:
            self._pool.shutdown()
        left = []
        if self._file is not None and self._part is not None and self._part.exists():
            self._file.close()
            if self._part.stat().st_size:
                left.append(self._part.name)
            else:
                self._part.unlink()
        if self._writer is not None:
            self._writer.stop()
            left.append(self._writer.part.name)
        if left:
            _log.warning('what was done is in %s.', ' and '.join(left))

    def finish(self) -> None:
        """Give the files their names, once all is drawn."""
        while self._waiting:
            self._waiting.popleft().result()
        if self._pool is not None:
            self._pool.shutdown()
        if self._file is not None and self._part is not None and self._lines is not None:
            self._file.close()
            self._part.replace(self._lines)
        if self._writer is not None:
            with self._naming():
                whole = self._writer.finish()
            if not whole:
                _log.warning('%s cannot hold the sound of %s; .mkv can.', self._writer.path, self._reader.name)
