"""The videos of `widehrnet predict`."""

import argparse
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..detection import Detector, open_detector
from ..errors import UserError
from ..formats.boxes import BoxFile
from ..pose.results import PoseResult
from .follow import FollowConfig
from .one_euro import SmoothConfig
from .process import VideoSummary, predict_video


def run_video(video: Path, target: Path, estimator: Any, args: argparse.Namespace) -> VideoSummary:
    """Do one video: `TARGET_pose.mp4` (or `.mkv`, `.mov` as the source) and `TARGET_pose.jsonl`.

    Args:
        video: The file.
        target: Where results go, without suffix.
        estimator: The model.
        args: What `widehrnet predict` parsed.

    Returns:
        What was done.

    Raises:
        UserError: If it is no video, or an option is wrong.
    """
    if not args.smooth >= 0:
        raise UserError(f'--smooth is a frequency of at least 0, not {args.smooth:g}.')
    detector, detect_every = _detector(args)
    suffix = video.suffix.lower() if video.suffix.lower() in ('.mkv', '.mov') else '.mp4'
    target.parent.mkdir(parents=True, exist_ok=True)

    def draw(image: npt.NDArray[np.uint8], result: PoseResult) -> Any:
        return result.draw(image, threshold=args.threshold, boxes=args.draw_boxes)

    return predict_video(
        video,
        estimator,
        None if args.no_picture else target.with_name(f'{target.name}_pose{suffix}'),
        target.with_name(f'{target.name}_pose.jsonl'),
        detector=detector,
        follow=FollowConfig(detect_every=detect_every),
        smooth=SmoothConfig(min_cutoff=args.smooth) if args.smooth else None,
        draw=draw,
        progress=not args.quiet,
    )


def _detector(args: argparse.Namespace) -> tuple[Detector | None, int]:
    if args.detector is not None:
        return open_detector(args.detector, device=args.device), args.detect_every
    if args.boxes is None or Path(args.boxes).is_file():
        return (None if args.boxes is None else BoxFile(args.boxes)), args.detect_every
    try:
        rows = [[float(v) for v in re.split(r'[,\s]+', box.strip())] for box in args.boxes.split(';') if box.strip()]
    except ValueError:
        raise UserError(f'--boxes {args.boxes} is neither a file that is there nor numbers x1,y1,x2,y2.') from None
    # the same boxes in every frame say where people start, not where new ones are
    return (lambda image: (rows, np.ones(len(rows)))), 0
