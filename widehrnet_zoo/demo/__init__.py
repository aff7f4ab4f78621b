"""A page to try models on one's own photos: `widehrnet demo`, and the same as a Hugging Face Space."""

from .models import DemoModels
from .page import build_page, launch
from .pose import Findings, TimedEstimator, find_keypoints, keypoint_rows

__all__ = ['DemoModels', 'Findings', 'TimedEstimator', 'build_page', 'find_keypoints', 'keypoint_rows', 'launch']
