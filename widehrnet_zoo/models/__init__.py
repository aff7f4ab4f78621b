from .widehrnet import WideHRNet

__all__ = ['WideHRNet']
