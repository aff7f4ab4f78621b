"""A whole video: people found, followed, smoothed, drawn, and written as JSON lines."""

import contextlib
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from ..detection import Detector, find_people, open_detector
from ..errors import UserError
from ..extras import require
from ..formats.boxes import BoxFile
from ..inference.estimator import PoseEstimator
from ..inference.people import Limits, choose_boxes
from ..pose.results import PoseResult
from ..pose.skeletons import skeleton_of
from ..progress import progress_bar
from .clips import Frame, VideoReader, check_out
from .follow import FollowConfig, Follower
from .one_euro import OneEuro, SmoothConfig
from .outputs import AHEAD, Outputs
from .streams import interruptible, open_source

SMOOTH = SmoothConfig()


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
    sigmas = skeleton_of(estimator).sigmas
    limits = limits or getattr(estimator, 'limits', None) or Limits()
    min_box_score = max(min_box_score, limits.box_threshold or 0.0)
    chances = getattr(estimator, 'score_map', None) is not None
    follower = Follower(sigmas, follow or FollowConfig(), limits.least_score(chances))
    opened = _open(detector, estimator, limits)
    people = _People(estimator, opened, min_box_score, limits, follower, smooth, Path(source).name)
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
                    result, numbers = people.look(frame, frames)
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
        except BaseException as error:
            outputs.stop()
            # the reader says its errors itself
            if isinstance(error, require('av', 'video').error.FFmpegError):
                raise UserError(f'{out} cannot be written: {error.strerror}.') from error
            raise
        path = lines if isinstance(lines, Path) else None
        return VideoSummary(frames, people.met, outputs.video, path, reader.problem, getattr(reader, 'skipped', 0))


def _open(detector: Detector | str | None, estimator: Any, limits: Limits) -> Detector | None:
    if isinstance(estimator, PoseEstimator):
        return estimator.detector(detector, limits)
    if isinstance(detector, str):
        return None if detector == 'auto' else open_detector(detector, min_score=limits.box_threshold)
    return detector


def _ahead(reader: VideoReader, count: int) -> Generator[Frame]:
    """Frames in their order, up to `count` of them read in a thread before they are asked for."""
    frames = iter(reader)
    if not count:
        yield from frames
        return
    with ThreadPoolExecutor(1, 'read') as pool:
        coming: deque[Future[Frame | None]] = deque(pool.submit(next, frames, None) for _ in range(count))
        try:
            while (frame := coming.popleft().result()) is not None:
                coming.append(pool.submit(next, frames, None))
                yield frame
        finally:
            reader.stop()
            for future in coming:
                future.cancel()


class _People:
    """From a frame to the people in it."""

    def __init__(
        self,
        estimator: Callable[..., PoseResult],
        detector: Detector | None,
        min_box_score: float,
        limits: Limits,
        follower: Follower,
        smooth: SmoothConfig | None,
        name: str,
    ):
        self._estimator, self._detector, self._min_score = estimator, detector, min_box_score
        self._limits, self._follower, self._smooth, self._name = limits, follower, smooth, name
        self._filters: dict[int, OneEuro] = {}
        self._seen: set[int] = set()

    @property
    def met(self) -> int:
        return len(self._seen)

    def _detect(self, image: npt.NDArray[np.uint8], index: int) -> tuple[npt.ArrayLike, npt.ArrayLike | None]:
        """New boxes, and scores to judge them by where a detector found them."""
        detector, name = self._detector, str(index)
        if detector is None:
            return ([[0, 0, image.shape[1], image.shape[0]]] if not self._follower.numbers else []), None
        if isinstance(detector, BoxFile):
            if not detector.knows(name):
                if index:
                    return [], None
                name = self._name
            return find_people(detector, image, name, self._min_score)[0], None
        if not self._follower.due(index):
            return [], None
        boxes, scores = find_people(detector, image, name, self._min_score)
        rows = choose_boxes(boxes, scores, self._limits)
        return boxes[rows], scores[rows]

    def look(self, frame: Frame, index: int) -> tuple[PoseResult, list[int]]:
        """People of a frame and their numbers."""
        follower, image = self._follower, frame.image
        height, width = image.shape[:2]
        detected, sure = self._detect(image, index)
        follower.meet(detected, 1 if self._limits.largest else self._limits.max_people, sure)
        boxes, numbers = follower.boxes, follower.numbers
        result = self._estimator(image, boxes)
        rows = follower.update(result.keypoints, result.scores, (width, height))
        chosen = [numbers[row] for row in rows]
        self._seen.update(chosen)
        self._filters = {n: f for n, f in self._filters.items() if n in follower.numbers}
        points = result.keypoints[rows].astype(float)
        if self._smooth is not None:
            for place, (row, number) in enumerate(zip(rows, chosen, strict=True)):
                diagonal = max(float(np.hypot(*(boxes[row, 2:] - boxes[row, :2]))), 1.0)
                filtered = self._filters.setdefault(number, OneEuro(self._smooth))
                points[place] = filtered(points[place], frame.time, diagonal)
        return (
            replace(
                result,
                keypoints=points.astype(np.float32),
                scores=result.scores[rows],
                boxes=result.boxes[rows],
                box_scores=result.box_scores[rows],
            ),
            chosen,
        )
