"""The videos of `widehrnet predict`."""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..detection import Detector
from ..errors import UserError
from ..inference.estimator import PoseEstimator
from ..pose.results import PoseResult
from ..video.follow import FollowConfig
from ..video.one_euro import SmoothConfig
from ..video.process import VideoSummary, predict_video
from ..video.streams import is_stream
from .boxes import read_boxes


def run_video(
    video: str | Path, target: Path | None, estimator: PoseEstimator, args: argparse.Namespace
) -> VideoSummary:
    """Do one video: `TARGET_pose.mp4` (or `.mkv`, `.mov` as the source), and `TARGET_pose.jsonl` or lines to stdout.

    Args:
        video: The file, camera or address.
        target: Where results go, without suffix; `None` for stdout alone.
        estimator: The model.
        args: What `widehrnet predict` parsed.

    Raises:
        UserError: If it is not a video, or an option is wrong.
    """
    if not args.smooth >= 0:
        raise UserError(f'--smooth is a frequency of at least 0, not {args.smooth:g}.')
    detector, detect_every = _detector(args, estimator)
    poses = {} if args.pose_threshold is None else {'min_score': args.pose_threshold}
    suffix = Path(video).suffix.lower() if not is_stream(video) else ''
    picture = keypoints = None
    if target is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
        picture = target.with_name(f'{target.name}_pose{suffix if suffix in (".mkv", ".mov") else ".mp4"}')
        keypoints = target.with_name(f'{target.name}_pose.jsonl')

    def draw(image: npt.NDArray[np.uint8], result: PoseResult) -> Any:
        return result.draw(image, threshold=args.threshold, boxes=args.draw_boxes)

    return predict_video(
        video,
        estimator,
        None if args.no_picture else picture,
        sys.stdout if args.json else keypoints,
        detector=detector,
        limits=None if args.boxes is None else estimator.limits.changed({'pose_threshold': 0.0}),
        follow=FollowConfig(detect_every=detect_every, **poses),
        smooth=SmoothConfig(min_cutoff=args.smooth) if args.smooth else None,
        draw=draw,
        progress=not args.quiet,
    )


def _detector(args: argparse.Namespace, estimator: PoseEstimator) -> tuple[Detector | None, int]:
    if args.boxes is None:
        return estimator.detector(), args.detect_every
    boxes = read_boxes(args.boxes)
    if not isinstance(boxes, np.ndarray):
        return boxes, args.detect_every
    # the same boxes in every frame say where people start, not where new ones are
    return (lambda image: (boxes, np.ones(len(boxes)))), 0
