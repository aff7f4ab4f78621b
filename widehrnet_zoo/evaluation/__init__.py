"""Protocols and metrics: COCO, MPII, PCK."""
