"""Cameras and streams: all that PyAV opens beside files. What breaks off is taken up again."""

import contextlib
import logging
import re
import signal
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..extras import require
from .clips import Frame, VideoReader

SCHEMES = ('http', 'https', 'rtmp', 'rtmps', 'rtp', 'rtsp', 'rtsps', 'srt', 'tcp', 'udp')
WAITS = (1, 2, 4, 8, 16)
"""Seconds before each try to take up a stream that broke off."""

_STEADY = 30.0
"""A stream that ran for so many seconds has all its tries again."""
_PROMPT = 0.02
"""Who waited so many seconds for a part of a stream is up to date."""
_TIMEOUT = 10.0
"""Seconds without anything after which a stream counts as broken."""

_log = logging.getLogger(__name__)


def is_stream(source: str | Path) -> bool:
    """Whether a source is a camera (`/dev/video0`) or an address (`rtsp://`, `http://`, ...), not a file."""
    scheme, found, _ = str(source).partition('://')
    try:
        return scheme.lower() in SCHEMES if found else Path(source).is_char_device()
    except PermissionError:  # whoever reads it will say so
        return False


def shown(source: str | Path) -> str:
    """The name of a source without what is secret in an address: user, password, and what follows a question mark."""
    return re.sub(r'(?<=://)[^/?#]*@|[?#].*', '', str(source)) if is_stream(source) else str(source)


def stream_name(source: str | Path) -> str:
    """A file name, without ending, for what comes of a stream: `rtsp://host:554/door` is `host_554_door`."""
    name = shown(source).removeprefix('/dev/').partition('://')
    return re.sub(r'[^\w.-]+', '_', name[2] or name[0]).strip('._-') or 'stream'


def open_source(source: str | Path, max_lag: float | None = 1.0) -> VideoReader:
    """The reader of a file, a camera or a stream.

    Args:
        source: Its name or address.
        max_lag: See `StreamReader`.

    Returns:
        A reader, not iterated yet.

    Raises:
        UserError: If it cannot be read as a video.
        ImportError: If PyAV is not installed.
    """
    return StreamReader(source, max_lag) if is_stream(source) else VideoReader(source)


@contextlib.contextmanager
def interruptible(reader: VideoReader) -> Iterator[None]:
    """Let Ctrl-C end what is live after the frame in work, so that all outputs have the same frames.

    A second Ctrl-C raises `KeyboardInterrupt` as usual, which ends a live stream as well.

    Args:
        reader: A live one, or any other, which stays as it is.
    """
    if not reader.is_live:
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    is_ours = callable(before) and threading.current_thread() is threading.main_thread()

    def stop(number: int, frame: Any) -> None:
        signal.signal(signal.SIGINT, before)
        reader.stop()

    if is_ours:
        signal.signal(signal.SIGINT, stop)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            yield
    finally:
        if is_ours:
            signal.signal(signal.SIGINT, before)


class StreamReader(VideoReader):
    """The frames of a camera or a stream.

    One without a known length is live: its time begins at 0, and when it breaks off, it is taken up again, after
    `WAITS` seconds; its time then goes on by the clock. Its sound is not kept.

    Args:
        source: `/dev/video0`, `rtsp://...`, `http://...`; see `is_stream`.
        max_lag: Frames of a live stream that come later than this many seconds after what was read without waiting
            are left out, so that results keep up with the stream; `None` for all frames.

    Raises:
        UserError: If it cannot be opened, or has no video in it.
        ImportError: If PyAV is not installed.
    """

    def __init__(self, source: str | Path, max_lag: float | None = 1.0):
        self._av = require('av', 'video')
        self._source, self._max_lag = str(source), max_lag
        self.name = shown(source)
        self.path = Path(self.name)
        self._stopped = threading.Event()
        self._start: float | None = None  # what the clock says where the stream is at 0
        self._connect()
        # the size of a stream is an error's number before PyAV 19, and None since
        self.is_live = not self.num_frames and (self._container.size or 0) <= 0

    def _connect(self) -> None:
        is_device = '://' not in self._source
        options = {'rtsp_transport': 'tcp'} if self._source.startswith('rtsp') else {}
        if self._source.startswith('http'):
            # a file is read on from where it broke off, if the server can do that
            options = {'reconnect': '1', 'reconnect_delay_max': '5'}
        kind = 'v4l2' if is_device else None
        limits = {'timeout': (_TIMEOUT, _TIMEOUT)}
        self._open(lambda: self._av.open(self._source, format=kind, options=options, **limits))
        self._stream.thread_type = 'SLICE'  # threads of whole frames hold some of them back
        self.audio = None

    def stop(self) -> None:
        """Let nothing more come."""
        self._stopped.set()

    def __iter__(self) -> Iterator[Frame]:
        """The frames, until the stream ends for good or is stopped."""
        base, shift, last = self.time_base, 0.0, None
        tries, since = 0, time.monotonic()
        while True:
            first, begun, self._start, self.problem = True, time.monotonic(), None, None
            for frame in super().__iter__():
                if self.is_live and first:
                    shift = (0.0 if last is None else last.time + time.monotonic() - since) - frame.time
                    first = False
                pts = round(Fraction(frame.time + shift) / base) if self.is_live else frame.pts
                last = Frame(frame.image, pts if last is None else max(pts, last.pts + 1), frame.time + shift)
                since = time.monotonic()
                yield last
            if not self.is_live or self._stopped.is_set():
                return
            tries = 0 if time.monotonic() - begun > _STEADY else tries
            tries = self._take_up_again(tries)
            if tries > len(WAITS):
                return

    def _take_up_again(self, tries: int) -> int:
        """Open the stream again; gives the number of tries so far, one more than there are if none did it."""
        why = self.problem or f'{self.name} ended.'
        while tries < len(WAITS) and not self._stopped.is_set():
            wait = WAITS[tries]
            tries += 1
            _log.warning('%s Taken up again in %g s (try %d of %d).', why, wait, tries, len(WAITS))
            self.close()
            self._stopped.wait(wait)
            try:
                self._connect()
                return tries
            except UserError as error:
                why = str(error)
        self.problem = None if self._stopped.is_set() else f'{why} {tries} tries to take it up again did not help.'
        return len(WAITS) + 1

    def _next(self, packets: Iterator[Any]) -> Any:
        if self._stopped.is_set():
            raise StopIteration
        begun = time.monotonic()
        packet = next(packets)
        if time.monotonic() - begun > _PROMPT:
            self._start = None
        return packet

    def _is_late(self, time_: float) -> bool:
        if not self.is_live or self._max_lag is None:
            return False
        start = time.monotonic() - time_
        if self._start is None:
            self._start = start
        late = start - self._start > self._max_lag
        self.skipped += late
        return late

    def _missing(self, count: int, broken: int, end: float) -> str | None:
        return None
