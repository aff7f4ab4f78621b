"""Inference at the speed that the FLOPs promise: the deployed network, exports and their backends."""

from .network import DeployedWideHRNet, deploy

__all__ = ['DeployedWideHRNet', 'deploy']
