"""Frames per second of a video, and where the time of a frame goes."""

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image, ImageFilter
from tqdm import tqdm

from ..extras import require
from ..inference.estimator import PoseEstimator
from ..video import predict_video
from ..video.clips import VideoReader
from .report import markdown

_SAMPLES = Path(__file__).parents[1] / 'samples'


@dataclass(frozen=True)
class VideoTimes:
    """How fast a video is done.

    Attributes:
        frames: Number of frames.
        people: People per frame on average.
        stages: Milliseconds per frame of the stages when they are done in turn, by their names.
        in_turn: Frames per second then, of each run.
        in_threads: Frames per second with reading, drawing and encoding in threads, of each run.
    """

    frames: int
    people: float
    stages: dict[str, float]
    in_turn: list[float]
    in_threads: list[float]


def make_video(path: Path, frames: int = 100) -> Path:
    """A video of 720p with three people who sway, from the sample photos.

    Args:
        path: The file to write, .mp4.
        frames: Its number of frames.
    """
    av = require('av', 'video')
    astronaut, portraits = (Image.open(_SAMPLES / name).convert('RGB') for name in ('astronaut.jpg', 'portraits.jpg'))
    # without the flags, which are taken for people now and then
    people = [astronaut.crop((100, 0, 450, 512)), *(portraits.crop((x, 0, x + 350, 512)) for x in (95, 599))]
    behind = portraits.resize((1280, 720)).filter(ImageFilter.GaussianBlur(40))
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('libx264', rate=25)
        stream.width, stream.height, stream.pix_fmt = 1280, 720, 'yuv420p'
        for frame in range(frames):
            image = behind.copy()
            for place, photo in enumerate(people):
                turn = 2 * np.pi * (frame / 75 + place / 3)
                image.paste(photo, (round(45 + 420 * place + 20 * np.sin(turn)), round(100 + 12 * np.cos(2 * turn))))
            container.mux(stream.encode(av.VideoFrame.from_image(image)))
        container.mux(stream.encode(None))
    return path


class _Timed:
    """A callable whose seconds are counted."""

    def __init__(self, call: Callable[..., Any], name: str, seconds: dict[str, float]):
        self._call, self._name, self._seconds = call, name, seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)

    def __call__(self, *args: Any, **options: Any) -> Any:
        start = time.perf_counter()
        try:
            return self._call(*args, **options)
        finally:
            self._seconds[self._name] += time.perf_counter() - start


def time_video(estimator: PoseEstimator, video: Path | None = None, runs: int = 3, progress: bool = True) -> VideoTimes:
    """Time `predict_video`, with all its steps in turn and in threads, one run of each after the other.

    Args:
        estimator: The model.
        video: A video; by default one of 720p with three people, made here.
        runs: Runs of each.
        progress: Show a progress bar.
    """
    seconds: dict[str, float] = defaultdict(float)
    found: list[int] = []
    detector = estimator.detector()
    limits = estimator.limits
    timed: Any = _Timed(estimator, 'crops, network, decoding', seconds)
    finder = detector and _Timed(detector, 'person finder', seconds)
    draw = _Timed(lambda image, result: result.draw(image), 'drawing', seconds)
    speeds: dict[bool, list[float]] = {False: [], True: []}
    with TemporaryDirectory(prefix='widehrnet-bench-') as folder:
        source = video or make_video(Path(folder) / 'three_people.mp4')
        frames, whole = 0, 0.0
        for _ in tqdm(range(runs), desc='bench', unit='round', disable=not progress):
            for threads in speeds:
                out = Path(folder, 'out.mp4'), Path(folder, 'out.jsonl')
                started = time.perf_counter()
                if threads:
                    done = predict_video(source, estimator, *out, progress=False)
                else:
                    options: dict[str, Any] = {'detector': finder, 'limits': limits, 'draw': draw, 'threads': False}
                    options['on_frame'] = lambda index, result: found.append(len(result))
                    done = predict_video(source, timed, *out, progress=False, **options)
                took = time.perf_counter() - started
                speeds[threads].append(done.frames / took)
                if not threads:
                    frames, whole = frames + done.frames, whole + took
            started = time.perf_counter()
            with VideoReader(source) as reader:
                for _ in reader:
                    pass
            seconds['reading'] += time.perf_counter() - started
    seconds['encoding, JSON and the rest'] = whole - sum(seconds.values())
    stages = {name: 1e3 * seconds[name] / frames for name in sorted(seconds, key=lambda name: -seconds[name])}
    return VideoTimes(frames // runs, sum(found) / len(found), stages, speeds[False], speeds[True])


def video_table(times: VideoTimes) -> str:
    """A Markdown table of the stages, and the frames per second.

    Args:
        times: From `time_video`.
    """
    whole = sum(times.stages.values())
    stages = [(name, f'{ms:.1f}', f'{ms / whole:.0%}') for name, ms in times.stages.items()]
    ways = (('in turn', times.in_turn), ('in threads', times.in_threads))
    speeds = [(name, f'{np.median(of_runs):.2f}', f'{max(of_runs):.2f}') for name, of_runs in ways]
    tables = [
        markdown(('stage, in turn', 'ms per frame', 'share'), stages),
        markdown(('frames per second', 'median', 'fastest'), speeds),
    ]
    return f'{times.frames} frames, {times.people:.1f} people in each:\n\n' + '\n'.join(tables)
