"""A static page that finds people in photos, videos and the camera, in the browser alone: `widehrnet web`."""

from .serve import serve
from .site import DEFAULT_MODELS, write_site

__all__ = ['DEFAULT_MODELS', 'serve', 'write_site']
