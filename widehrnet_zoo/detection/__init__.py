"""People in photos: the person finder of this family, and optional detectors, behind one small protocol.

A detector is any callable that takes an RGB image, uint8 (height, width, 3), and gives boxes, (N, 4) x1, y1, x2, y2 in
pixels, and their scores, (N,). `open_detector` makes one from a name; `find_people` calls one and checks what it says.
"""

from .finder import LIGHT_FINDER, PersonFinder
from .open import finder_ships, open_detector
from .protocol import BatchDetector, Detector, find_people, find_people_in

__all__ = [
    'LIGHT_FINDER',
    'BatchDetector',
    'Detector',
    'PersonFinder',
    'find_people',
    'find_people_in',
    'finder_ships',
    'open_detector',
]
