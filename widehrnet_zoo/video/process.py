"""A whole video: people found, followed, smoothed, drawn, and written as JSON lines."""

import contextlib
import itertools
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from ..detection import Detector
from ..errors import UserError
from ..inference.people import Limits
from ..pose.results import PoseResult
from ..progress import begun_ahead, progress_bar
from .clips import Frame, VideoReader, check_out
from .follow import FollowConfig
from .one_euro import SmoothConfig
from .outputs import AHEAD, Outputs
from .people import SMOOTH, VideoEstimator
from .streams import interruptible, open_source, shown


def _draw(image: npt.NDArray[np.uint8], result: PoseResult) -> Any:
    return result.draw(image) if len(result) else image


@dataclass(frozen=True)
class VideoSummary:
    """What came of a video.

    Attributes:
        frames: Number of frames done.
        people: Number of different people met.
        out: The video written, if any.
        keypoints: The JSON lines written, if any.
        problem: What was broken in the file; everything before and after is done all the same. `None` if nothing was.
        skipped: Frames of a live stream that were left out to keep up with it.
    """

    frames: int
    people: int
    out: Path | None
    keypoints: Path | None
    problem: str | None
    skipped: int = 0


def predict_video(
    source: str | Path,
    estimator: Callable[..., PoseResult],
    out: str | Path | None = None,
    keypoints: str | Path | IO[str] | None = None,
    *,
    detector: Detector | str | None = 'auto',
    min_box_score: float = 0.0,
    limits: Limits | None = None,
    follow: FollowConfig | None = None,
    smooth: SmoothConfig | None = SMOOTH,
    max_frames: int | None = None,
    max_lag: float | None = 1.0,
    progress: bool = True,
    threads: bool = True,
    draw: Callable[[npt.NDArray[np.uint8], PoseResult], Any] = _draw,
    on_frame: Callable[[int, PoseResult], None] | None = None,
) -> VideoSummary:
    """Keypoints of the people in a video.

    People are found by the detector in the first frame, every `follow.detect_every` frames, and whenever nobody is
    followed; between, each is followed by the box around the keypoints of the frame before. What is written has the
    time stamps and the sound of the source. While it grows, it is `NAME.part.mp4` and `NAME.jsonl.part`, which can be
    read at any moment; whole, it gets its name. A file that is damaged or breaks off gives what could be read, and
    `problem` says so. An interruption leaves the part files.

    A camera or a stream goes on until Ctrl-C (`KeyboardInterrupt`) or `max_frames`, which end it as the end of a file
    does. When it breaks off, it is taken up again: five tries in a row, with waits of 1 to 16 seconds, each with a
    warning.

    Args:
        source: A video file, a camera such as `/dev/video0`, or an address that PyAV opens, such as `rtsp://...`.
        estimator: A `PoseEstimator`, or what is called like one: `estimator(image, boxes) -> PoseResult`.
        out: Video to write, .mp4, .mov or .mkv: the source with the people drawn on it.
        keypoints: JSON lines to write, one per frame, into a file of that name or an open one such as `sys.stdout`:
            `frame`, `time` in seconds, `image_size`, and `people` as in `PoseResult.to_dict`, each with its number
            `id`. Keypoints are smoothed, in pixels of the source. Each line is flushed.
        detector: Finds people: a name or a callable, see `widehrnet_zoo.detection`; `None` takes the whole frame as the
            box of one person. By default, `'auto'`, the estimator's own. A `BoxFile` is asked by the frame's number,
            from 0 (for the first, the video's name does too); frames that it does not name keep the people they have.
        min_box_score: Detected boxes with a lower score are left out.
        limits: Which of the people found are followed; by default the estimator's own. Their `pose_threshold` holds for
            people who are met; when they are lost again, and who is followed already, is said by `follow`.
        follow: When people are found and lost.
        smooth: Settings of the 1 euro filter; `None` for none.
        max_frames: Stop after so many.
        max_lag: Seconds that results of a live stream may be late; where they are slower than it, frames are left out.
            `None` takes all frames.
        progress: Show a progress bar.
        threads: Read a few frames ahead, and draw and encode, in two threads of their own; else all is done in turn.
        draw: Draws the people of a frame on it; gives an image of the same size. With `threads` it is called in another
            thread, a frame at a time.
        on_frame: Called with the number and result of each frame.

    Returns:
        What was done.

    Raises:
        UserError: If the file is not a video, or nothing of it could be read, or an output cannot be written.
        ImportError: If PyAV is not installed.
    """
    if out is not None and (Path(check_out(out)).resolve() == Path(source).resolve()):
        raise UserError(f'The video would be written over its source {source}: give another name.')
    if max_frames is not None and max_frames < 1:
        raise UserError(f'max_frames must be at least 1, not {max_frames}.')
    lines = Path(keypoints) if isinstance(keypoints, (str, Path)) else keypoints
    if isinstance(lines, Path) and not lines.parent.is_dir():
        raise UserError(f'There is no folder {lines.parent} to write {lines.name} into.')
    people = VideoEstimator(
        estimator,
        detector=detector,
        min_box_score=min_box_score,
        limits=limits,
        follow=follow,
        smooth=smooth,
        name=Path(shown(source)).name,
    )
    with open_source(source, max_lag) as reader:
        outputs = Outputs(reader, None if out is None else Path(out), lines, draw, threads)
        frames = 0
        total = min(reader.num_frames or max_frames or 0, max_frames or reader.num_frames) or None
        try:
            with (
                progress_bar(total, 'frame', reader.path.name, disable=not progress) as bar,
                contextlib.closing(_ahead(reader, AHEAD if threads else 0)) as coming,
                interruptible(reader),
            ):
                for frame in coming:
                    result, numbers = people(frame.image, frame.time)
                    outputs.add(frames, frame, result, numbers)
                    frames += 1
                    if on_frame is not None:
                        on_frame(frames - 1, result)
                    bar.update()
                    if frames == max_frames:
                        break
            if not frames:
                raise UserError(reader.problem or f'{reader.name} has no frame that could be read.')
            outputs.finish()
        except BaseException:
            outputs.stop()
            raise
        path = lines if isinstance(lines, Path) else None
        return VideoSummary(frames, people.num_met, outputs.video, path, reader.problem, reader.skipped)


def _ahead(reader: VideoReader, count: int) -> Generator[Frame]:
    """Frames in their order, up to `count` of them read in a thread before they are asked for."""
    frames = iter(reader)
    reading = begun_ahead(lambda _: next(frames, None), itertools.repeat(None), min(count, 1), count)
    try:
        for get in reading:
            if (frame := get()) is None:
                return
            yield frame
    finally:
        reader.stop()
        reading.close()
