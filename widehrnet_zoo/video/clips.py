"""Reading and writing video files by PyAV."""

import contextlib
import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import UserError
from ..extras import require
from .whole import is_cut_off

_CONTAINERS = '3g2 3gp asf avi divx dv f4v flv m2ts m4v mkv mov mp4 mpeg mpg mts mxf ogv qt rm rmvb ts vob webm wmv y4m'
_BARE = '264 265 h264 h265 hevc m2v mjpeg mjpg'
_OF_CAMERAS = 'insv lrv mod tod'
SUFFIXES = frozenset(f'.{ending}' for ending in f'{_CONTAINERS} {_BARE} {_OF_CAMERAS}'.split())
"""File names that mean a video."""

OUT_SUFFIXES = ('.mp4', '.m4v', '.mov', '.mkv')
PLAYABLE = {'movflags': 'empty_moov+default_base_moof', 'frag_duration': '1000000', 'flush_packets': '1'}
"""Fragments of a second, written at once: an ordinary MP4 cannot be read until it is closed."""


def is_video(path: str | Path) -> bool:
    """Whether a file's name says that it is a video."""
    return Path(path).suffix.lower() in SUFFIXES


@dataclass(frozen=True)
class Frame:
    """One image of a video.

    Attributes:
        image: uint8 (height, width, 3), RGB, upright.
        pts: Time stamp in the video's time base, always growing.
        time: The same in seconds.
    """

    image: npt.NDArray[np.uint8]
    pts: int
    time: float


class VideoReader:
    """The frames of a video, upright.

    Args:
        path: The file.

    Attributes:
        name: Of the source, in messages.
        time_base: Seconds per unit of time stamps.
        rate: Frames per second on average.
        num_frames: Number of frames that the file says it has; 0 if it does not say.
        sample_aspect_ratio: Width over height of a pixel, upright.
        audio: The sound's stream, or `None`.
        is_live: Whether it goes on until it is stopped.
        skipped: Number of frames that were left out to keep up with it.
        problem: What was broken, once the frames are read; `None` if nothing was.

    Raises:
        UserError: If the file is not a video, or has no image in it.
        ImportError: If PyAV is not installed.
    """

    is_live = False
    skipped = 0

    def __init__(self, path: str | Path):
        self._av = require('av', 'video')
        self.path, self.name = Path(path), str(path)
        if not self.path.is_file():
            raise UserError(f'There is no file {path}.')
        self._open(lambda: _open(path))

    def _open(self, open_: Callable[[], Any]) -> None:
        try:
            self._container = open_()
        except self._av.error.FFmpegError as error:
            raise UserError(f'{self.name} cannot be read as a video: {self._why(error)}.') from error
        videos = [s for s in self._container.streams.video if not _is_cover(s)]
        if not videos or videos[0].codec_context is None:
            self._container.close()
            raise UserError(f'{self.name} has no video in it that can be decoded.')
        self._stream = videos[0]
        self._stream.thread_type = 'AUTO'
        self.time_base: Fraction = self._stream.time_base or Fraction(1, 1000)
        self.rate: Fraction = self._stream.average_rate or self._stream.guessed_rate or Fraction(25)
        self.audio = next(iter(self._container.streams.audio), None)
        self.num_frames = self._stream.frames or round((self._duration() or 0) * self.rate)
        self.sample_aspect_ratio: Fraction | None = self._stream.sample_aspect_ratio or None
        self.problem: str | None = None

    def _why(self, error: Any) -> str:
        # it stands for everything that took longer than it may
        return 'nothing came in time' if isinstance(error, self._av.error.ExitError) else str(error.strerror)

    def _duration(self) -> float | None:
        if self._stream.duration:
            return float(self._stream.duration * self.time_base)
        duration = self._container.duration
        return duration / self._av.time_base if duration else None

    def stop(self) -> None:
        """Let nothing more come, also where the frames are read in another thread."""

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def __enter__(self) -> 'VideoReader':
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Frame]:
        """The frames; what cannot be decoded is left out, and `problem` says so."""
        count, broken, last, end = 0, 0, None, 0.0
        # of all streams, of which the image need not be the one that lasts longest
        packets = self._container.demux()
        while True:
            try:
                packet = self._next(packets)
            except StopIteration:
                break
            except self._av.error.FFmpegError as error:
                self.problem = f'{self.name} breaks off after {count} frames: {self._why(error)}.'
                break
            if packet.pts is not None:
                end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            # an empty packet repeats the frame before; to the decoder it would be the end
            if packet.stream != self._stream or (not packet.size and packet.dts is not None):
                continue
            try:
                decoded = packet.decode()
            except self._av.error.FFmpegError:
                # broadcasts are joined wherever they are, and cannot be decoded up to the next whole image
                broken += count > 0 or not self._container.format.name.startswith('mpeg')
                continue
            for picture in decoded:
                last = self._stamp(picture.pts, last)
                if self._is_late(float(last * self.time_base)):
                    continue
                yield Frame(self._upright(picture), last, float(last * self.time_base))
                count += 1
        if self.problem is None:
            self.problem = self._missing(count, broken, end)

    def _next(self, packets: Iterator[Any]) -> Any:
        return next(packets)

    def _is_late(self, time: float) -> bool:
        return False

    def _stamp(self, pts: int | None, last: int | None) -> int:
        if last is None:
            return 0 if pts is None else pts
        if pts is not None and pts > last:
            return pts
        return last + (1 if pts is not None else max(1, round(1 / (self.rate * self.time_base))))

    def _upright(self, picture: Any) -> npt.NDArray[np.uint8]:
        image = picture.to_ndarray(format='rgb24')
        turns = round(picture.rotation / 90) % 4
        if turns % 2 and self.sample_aspect_ratio and self.sample_aspect_ratio == self._stream.sample_aspect_ratio:
            self.sample_aspect_ratio = 1 / self.sample_aspect_ratio
        return np.ascontiguousarray(np.rot90(image, turns))

    def _missing(self, count: int, broken: int, end: float) -> str | None:
        # counts and durations of a header are often wrong: only a file whose end is missing is not whole
        duration = (self._container.duration or 0) / self._av.time_base
        start = (self._container.start_time or 0) / self._av.time_base
        says = f'it says {duration:.1f} s' if duration else 'its end is missing'
        if count < self._stream.frames:
            says = f'it says {self._stream.frames} frames'
        elif not broken and duration and end - start >= duration - 2 / self.rate:
            return None
        # where a file is cut off, its last part is broken too
        if is_cut_off(self.path):
            return f'{self.path} is not whole: {says}, and {count} frames could be read.'
        if broken:
            return f'{self.path} is damaged: {broken} parts of it could not be decoded; {count} frames could.'
        return None


class VideoWriter:
    """A video that can be played whenever writing is cut off.

    It is written without sound as `NAME.part.mp4`; whole, it gets the source's sound and its own name. Sizes that are
    odd grow by a pixel, since the usual encoding needs even ones.

    Args:
        path: The file: .mp4, .m4v, .mov or .mkv.
        reader: The video whose time stamps, pixel shape and sound are taken over.
        image_size: Width and height of the frames.

    Raises:
        UserError: If the name has another ending.
    """

    def __init__(self, path: str | Path, reader: VideoReader, image_size: tuple[int, int]):
        self.path = check_out(path)
        self._av = require('av', 'video')
        self._reader, self._time_base = reader, reader.time_base
        self.part = self.path.with_name(f'{self.path.stem}.part.mp4')
        self._container = self._av.open(str(self.part), 'w', options=PLAYABLE)
        self._stream = self._container.add_stream('libx264', rate=reader.rate)
        # without B frames the first time stamp stays what it is, and less is on its way when a run is cut off
        self._stream.options = {'preset': 'veryfast', 'crf': '20', 'bf': '0'}
        self._stream.width, self._stream.height = (side + side % 2 for side in image_size)
        self._stream.pix_fmt = 'yuv420p'
        self._stream.codec_context.time_base = reader.time_base
        if reader.sample_aspect_ratio:
            self._stream.codec_context.sample_aspect_ratio = reader.sample_aspect_ratio

    def write(self, image: npt.NDArray[np.uint8], pts: int) -> None:
        """Add a frame.

        Args:
            image: uint8 (height, width, 3), RGB.
            pts: Its time stamp, in the time base that the reader had at first.
        """
        height, width = image.shape[:2]
        image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), 'edge')
        frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(image), 'rgb24')
        frame.pts, frame.time_base = pts, self._time_base
        self._container.mux(self._stream.encode(frame))

    def stop(self) -> None:
        """Close the part file where it stands."""
        with contextlib.suppress(self._av.error.FFmpegError):
            self._container.mux(self._stream.encode(None))
        with contextlib.suppress(self._av.error.FFmpegError):
            self._container.close()

    def finish(self) -> bool:
        """Close the file, add the sound, and give it its name.

        Returns:
            Whether the source's sound, if it has one, is in the file.
        """
        self._container.mux(self._stream.encode(None))
        self._container.close()
        sound = self._reader.audio
        kept = sound is not None and self._join(sound)
        if not kept:
            self._join(None)
        self.part.unlink()
        return kept or sound is None

    def _join(self, sound: Any) -> bool:
        """Write the whole file with a sound, or `None`, if the container can hold it."""
        whole = self.path.with_name(f'{self.path.stem}.whole{self.path.suffix}')
        options = {} if self.path.suffix.lower() == '.mkv' else {'movflags': 'faststart'}
        try:
            with (
                _open(self.part) as old,
                self._av.open(str(whole), 'w', options=options) as new,
                contextlib.ExitStack() as stack,
            ):
                pictures = old.streams.video[0]
                streams = {pictures: new.add_stream_from_template(pictures)}
                sources = [_packets(old, pictures)]
                if sound is not None:
                    source = stack.enter_context(_open(self._reader.path))
                    stream = source.streams[sound.index]
                    streams[stream] = new.add_stream_from_template(stream)
                    sources.append(_packets(source, stream))
                for packet in heapq.merge(*sources, key=lambda packet: packet.dts * packet.time_base):
                    packet.stream = streams[packet.stream]
                    new.mux(packet)
        except BaseException as error:
            whole.unlink(missing_ok=True)
            # what a container can hold shows when it is written; a list of its codecs says too much and too little
            if sound is not None and isinstance(error, (self._av.error.FFmpegError, ValueError)):
                return False
            raise
        whole.replace(self.path)
        return True


def _open(path: str | Path) -> Any:
    av = require('av', 'video')
    # titles need not be Unicode; PyAV 19 needs no word for it
    options = {'metadata_errors': 'replace'} if int(av.__version__.split('.')[0]) < 19 else {}
    return av.open(str(path), **options)


def _packets(container: Any, stream: Any) -> Iterator[Any]:
    """Packets of a stream, up to where the file breaks off."""
    try:
        for packet in container.demux(stream):
            if packet.dts is not None:
                yield packet
    except require('av', 'video').error.FFmpegError:
        return


def check_out(path: str | Path) -> Path:
    """Refuse names of videos that cannot be written.

    Raises:
        UserError: If the ending is none of those that can be written, or the folder is not there.
    """
    path = Path(path)
    if path.suffix.lower() not in OUT_SUFFIXES:
        raise UserError(f'A video is written as {", ".join(OUT_SUFFIXES)}, not as {path.name!r}.')
    if not path.parent.is_dir():
        raise UserError(f'There is no folder {path.parent} to write {path.name} into.')
    return path


def _is_cover(stream: Any) -> bool:
    """Music files carry their cover as a video of one frame."""
    disposition = getattr(stream, 'disposition', None)
    return bool(disposition and 'attached_pic' in str(disposition).lower())
