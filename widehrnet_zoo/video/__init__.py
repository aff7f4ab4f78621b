"""Video in, video and JSON lines of keypoints out (extra `video`).

`clips` reads and writes files, `streams` reads cameras and streams, `follow` keeps people from frame to frame,
`one_euro` smooths, `people` does a frame, `outputs` writes, `process` does it all.
"""

from .clips import SUFFIXES, is_video
from .follow import FollowConfig
from .one_euro import OneEuro, SmoothConfig
from .people import VideoEstimator
from .process import VideoSummary, predict_video
from .streams import is_stream, shown, stream_name

__all__ = [
    'SUFFIXES',
    'FollowConfig',
    'OneEuro',
    'SmoothConfig',
    'VideoEstimator',
    'VideoSummary',
    'is_stream',
    'is_video',
    'predict_video',
    'shown',
    'stream_name',
]
