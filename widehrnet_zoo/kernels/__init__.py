"""Compiled CPU kernels, for inference and for training."""
