"""The version of this package, read from here by the build."""

__version__ = '0.2.0'
