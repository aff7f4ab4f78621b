"""Video in, video and JSON lines of keypoints out (extra `video`).

`clips` reads and writes files, `follow` keeps people from frame to frame, `one_euro` smooths, `process` puts them
together.
"""

from .clips import SUFFIXES, is_video
from .follow import FollowConfig
from .one_euro import OneEuro, SmoothConfig
from .process import VideoSummary, predict_video

__all__ = [
    'SUFFIXES',
    'FollowConfig',
    'OneEuro',
    'SmoothConfig',
    'VideoSummary',
    'is_video',
    'predict_video',
]
