"""Evaluation by the protocols of COCO, MPII and PCK.

`run` puts an evaluation together: labels from `widehrnet_zoo.formats`, a model's predictions (`predict`), figures from
`widehrnet_zoo.metrics`, and a `report`.
"""

from .predict import PredictConfig
from .report import Report
from .run import Protocol, evaluate

__all__ = ['PredictConfig', 'Protocol', 'Report', 'evaluate']
