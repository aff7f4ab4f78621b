"""Colours: skin and faces, cloth with patterns, hair, and noise to paint all else with.

Colours are linear RGB in 0..1; `display` and `linear` go to and from what files hold.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .bodies import Floats, Ints
from .clothes import Tailor

_SKIN = np.array([[60, 38, 28], [98, 64, 45], [146, 99, 71], [190, 141, 108], [217, 174, 146], [234, 200, 178]]) / 255
_HAIR = np.array([[20, 17, 16], [36, 25, 19], [66, 44, 30], [112, 80, 50], [176, 140, 92], [150, 148, 146]]) / 255


def linear(colour: npt.ArrayLike) -> Floats:
    """From display values 0..1 to light."""
    return np.asarray(colour, np.float32) ** 2.2


def display(light: Floats) -> Floats:
    """From light to display values 0..1."""
    return np.clip(light, 0, 1) ** (1 / 2.2)


def hue(rng: np.random.Generator, most: float = 1.0) -> Floats:
    """A colour of cloth or paint: float32 (3,), linear; `most` limits how vivid it is."""
    import colorsys

    kind = rng.random()
    if kind < 0.4:  # black, grey, white
        value = rng.choice([0.06, 0.12, 0.3, 0.6, 0.92]) + rng.uniform(-0.03, 0.06)
        rgb = (value, value, value * rng.uniform(0.95, 1.05))
    else:
        rgb = colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.25, 1.0) * most, rng.uniform(0.2, 0.95))
    return linear(np.clip(rgb, 0, 1))


def noise_tile(rng: np.random.Generator, size: int = 256, slope: float = 1.6) -> Floats:
    """Fractal noise that repeats without a seam: float32 (size, size), mean 0.5, about 0..1."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]) * size
    frequency[0, 0] = 1
    spectrum = frequency**-slope * np.exp(2j * np.pi * rng.random(frequency.shape))
    spectrum[0, 0] = 0
    tile = np.fft.irfft2(spectrum, (size, size))
    return np.clip(0.5 + 0.22 * tile / tile.std(), 0, 1).astype(np.float32)


def look_up(tile: Floats, u: Floats, v: Floats) -> Floats:
    """Nearest values of a tile; it spans 1 in u and v and repeats."""
    size = len(tile)
    return tile[(v * size).astype(np.int64) % size, (u * size).astype(np.int64) % size]


@dataclass
class Cloth:
    """How a layer is coloured: `base` and `second` are linear RGB (3,); the pattern says where which is."""

    base: Floats
    second: Floats
    pattern: str
    scale: float
    shift: float


class Look:
    """Colours of one person."""

    def __init__(self, rng: np.random.Generator, tailor: Tailor, names: list[str], female: float) -> None:
        """Choose them.

        Args:
            rng: Source of chance.
            tailor: Measures of the body, for the face.
            names: Of the shells, in order.
            female: 0..1.
        """
        self.tailor, self.names = tailor, names
        tone = rng.uniform(0, len(_SKIN) - 1)
        self.skin = linear([np.interp(tone, range(len(_SKIN)), _SKIN[:, i]) for i in range(3)])
        darkest = 2.5 if tone < 2.5 else len(_HAIR) - 1
        shade = rng.uniform(0, darkest)
        self.hair = linear([np.interp(shade, range(len(_HAIR)), _HAIR[:, i]) for i in range(3)])
        self.beard = rng.uniform(0.3, 0.8) if female < 0.4 and rng.random() < 0.3 else 0.0
        patterns = ['plain', 'plain', 'bands', 'sides', 'print', 'block', 'mottle', 'limbs']
        self.cloths = {}
        for name in names:
            pattern = 'plain' if name in ('hair', 'socks') else str(rng.choice(patterns))
            self.cloths[name] = Cloth(hue(rng), hue(rng), pattern, float(rng.uniform(0.03, 0.15)), float(rng.random()))
        if 'top' in self.cloths and rng.random() < 0.2:
            self.cloths['bottom'].base = self.cloths['top'].base
        self.tile = noise_tile(rng, 128, 1.2)

    def colours(self, layer: Ints, points: Floats) -> Floats:
        """Albedo of points of the dressed person.

        Args:
            layer: int (N,), index of the shell.
            points: float32 (N, 3) in cloth space.

        Returns:
            float32 (N, 3).
        """
        out = np.empty((len(points), 3), np.float32)
        for index, name in enumerate(self.names):
            rows = np.flatnonzero(layer == index)
            if not len(rows):
                continue
            here = points[rows]
            if name == 'skin':
                out[rows] = self._skin(here)
            elif name == 'hair':
                strands = look_up(self.tile, here[:, 0] * 6 + here[:, 1] * 3, here[:, 2] * 1.5)
                out[rows] = self.hair * (0.5 + strands)[:, None]
            elif name == 'shoes':
                cloth = self.cloths[name]
                sole = here[:, 2] < self.tailor.cloth[:, 2].min() + 0.025
                out[rows] = np.where(sole[:, None], cloth.second, cloth.base)
            else:
                out[rows] = self._cloth(self.cloths[name], here)
        return out

    def _cloth(self, cloth: Cloth, points: Floats) -> Floats:
        x, y, z = points.T
        second = np.zeros(len(points), bool)
        if cloth.pattern == 'bands':
            second = (z / cloth.scale + cloth.shift) % 1 < 0.4
        elif cloth.pattern == 'sides':
            # along the outside of the trunk and of the legs
            second = np.abs(x) > np.interp(z, [-0.7, -0.3, 0.1, 0.3, 0.6], [0.215, 0.2, 0.2, 0.15, 0.17])
        elif cloth.pattern == 'print':
            front = (y < -0.03) == (cloth.shift < 0.6)
            second = front & (np.abs(x) < 0.03 + cloth.scale) & (np.abs(z - 0.52) < 0.03 + cloth.scale * 0.5)
            second &= look_up(self.tile, x * 3, z * 3) > 0.4
        elif cloth.pattern == 'block':
            second = z + 0.3 * np.abs(x) * (cloth.shift - 0.5) > np.where(z > 0.15, 0.5, -0.35)
        elif cloth.pattern == 'mottle':
            second = look_up(self.tile, x * 2 + y, z * 2 + y) > 0.5
        elif cloth.pattern == 'limbs':
            second = np.where(z > 0.2, np.abs(x) > 0.19, z < -0.3)
        weave = 0.9 + 0.2 * look_up(self.tile, x * 5 + y * 5, z * 5)
        return np.where(second[:, None], cloth.second, cloth.base) * weave[:, None]

    def _skin(self, points: Floats) -> Floats:
        """Skin with a face: dark eyes and brows, lips, nostrils, a beard; also red ears, knees and hands."""
        blotches = 0.88 + 0.24 * look_up(self.tile, points[:, 0] * 2 + points[:, 1], points[:, 2] * 2)
        out = self.skin * blotches[:, None]
        nose, left_eye = self.tailor.features[0], self.tailor.features[1]
        rows = np.flatnonzero((points[:, 2] > nose[2] - 0.12) & (points[:, 1] < nose[1] + 0.11))
        x, y, z = np.abs(points[rows, 0]), points[rows, 1], points[rows, 2]
        front = y < nose[1] + 0.07
        face = out[rows]

        def put(where: Floats, colour: Floats, strength: float) -> None:
            share = (np.clip(1.5 - where, 0, 1) * strength * front)[:, None]
            face[:] = face * (1 - share) + colour * share

        if self.beard:
            jaw = np.clip((z - (nose[2] - 0.02)) / 0.01 + 1, 0, 2)
            put(np.where(x > 0.012, jaw, np.maximum(jaw, 1.2)), self.hair, self.beard)
        lips = self.skin * np.array([0.75, 0.45, 0.45])
        mouth = nose[2] - 0.043
        put(np.hypot(x / 0.024, (z - mouth) / 0.009), lips, 0.8)
        put(np.hypot(x / 0.022, (z - mouth) / 0.0025), self.skin * 0.15, 0.8)
        put(np.hypot((x - 0.008) / 0.006, (z - nose[2] + 0.012) / 0.005), self.skin * 0.2, 0.7)
        put(np.hypot((x - left_eye[0]) / 0.024, (z - left_eye[2] - 0.002) / 0.017), self.skin * 0.45, 0.5)
        white = np.hypot((x - left_eye[0]) / 0.015, (z - left_eye[2]) / 0.0065)
        put(white, np.array([0.6, 0.58, 0.55]), 0.8)
        put(np.hypot(x - left_eye[0], z - left_eye[2]) / 0.0065, np.array([0.02, 0.015, 0.01]), 1.0)
        brow = np.hypot((x - left_eye[0] - 0.002) / 0.022, (z - left_eye[2] - 0.023 + 0.08 * (x - left_eye[0])) / 0.005)
        put(brow, self.hair * 0.7, 0.85)
        out[rows] = face
        return out
