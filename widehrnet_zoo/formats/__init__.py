"""Keypoints from and to the formats of others."""

from .mmpose import from_mmpose, read_mmpose, to_mmpose, write_mmpose
from .saving import FORMATS, check_format, save_results
from .supervision import from_coco, from_supervision, to_supervision
from .tables import read_csv, read_parquet, write_csv, write_parquet

__all__ = [
    'FORMATS',
    'check_format',
    'from_coco',
    'from_mmpose',
    'from_supervision',
    'read_csv',
    'read_mmpose',
    'read_parquet',
    'save_results',
    'to_mmpose',
    'to_supervision',
    'write_csv',
    'write_mmpose',
    'write_parquet',
]
