"""Where the camera stands, and what it does to a picture."""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from .bodies import Floats
from .paint import hue

FILL = (110.0, 185.0)  # pixels that the longer side of the keypoints' box takes


@dataclass(frozen=True)
class Camera:
    """A pinhole camera.

    Attributes:
        place: float (3,), metres.
        axes: float (3, 3), rows: right, down and forward in the world.
        focal: Pixels.
        centre: float (2,), principal point in pixels, may lie outside the picture.
        width: Pixels.
        height: Pixels.
    """

    place: Floats
    axes: Floats
    focal: float
    centre: Floats
    width: int
    height: int

    def project(self, points: Floats) -> tuple[Floats, Floats]:
        """Pixels (N, 2) and distance from the camera (N,) in metres of points (N, 3); (0, 0) is a pixel's centre."""
        seen = (points - self.place) @ self.axes.T
        return seen[:, :2] / seen[:, 2:] * self.focal + self.centre, np.linalg.norm(seen, axis=1)

    def rays(self, x: Floats, y: Floats) -> Floats:
        """Unit directions (N, 3) through pixels."""
        seen = np.stack([(x - self.centre[0]) / self.focal, (y - self.centre[1]) / self.focal, np.ones_like(x)], -1)
        rays = seen @ self.axes
        return rays / np.linalg.norm(rays, axis=-1, keepdims=True)

    @property
    def horizon(self) -> float:
        """Row of the horizon in the middle of the picture; far outside where the camera looks up or down."""
        down, forward = self.axes[1, 2], self.axes[2, 2]
        return float(np.clip(self.centre[1] - self.focal * forward / (down if abs(down) > 0.2 else -0.2), -4e3, 4e3))


def draw_camera(rng: np.random.Generator, keypoints: Floats) -> Camera:
    """Choose a camera that sees a person; it looks to the world's y, more or less.

    Args:
        rng: Source of chance.
        keypoints: float (17, 3), metres.

    Returns:
        The camera; the person fills most of its picture, and a few are cut by its edge.
    """
    target = (keypoints.min(0) + keypoints.max(0)) / 2
    distance = rng.uniform(2.5, 9)
    pitch = rng.normal(0.08, 0.2) if rng.random() < 0.85 else rng.uniform(-0.6, 1.1)
    place = target + distance * np.array([0, -np.cos(pitch), np.sin(pitch)])
    place[2] = max(place[2], 0.2)
    forward = (target - place) / np.linalg.norm(target - place)
    right = np.cross(forward, [0, 0, 1])
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    roll = rng.normal(0, 0.07) if rng.random() < 0.85 else rng.normal(0, 0.5)
    c, s = np.cos(roll), np.sin(roll)
    axes = np.stack([c * right + s * down, -s * right + c * down, forward])
    seen = Camera(place, axes, 1.0, np.zeros(2), 0, 0).project(keypoints)[0]
    low, high = seen.min(0), seen.max(0)
    length = rng.uniform(*FILL)
    focal = length / (high - low).max()
    edges = rng.uniform(0.13, 0.42, 4) * length
    if rng.random() < 0.12:
        edges[rng.integers(4)] = -rng.uniform(0.02, 0.25) * length
    size = np.maximum(np.rint((high - low) * focal + edges[:2] + edges[2:]), 48).astype(int)
    return Camera(place, axes, float(focal), edges[:2] - low * focal, int(size[0]), int(size[1]))


def draw_cover(rng: np.random.Generator, width: int, height: int) -> tuple[Floats, Floats] | None:
    """Sometimes something stands in front: its opacity (height, width), soft at the edge, and its linear colour."""
    if rng.random() > 0.12:
        return None
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    a, b = rng.uniform(0.2, 0.8) * width, rng.uniform(0.2, 0.8) * height
    size = max(width, height)
    if rng.random() < 0.5:  # a post, a rail, a rope
        angle = rng.choice([0.0, np.pi / 2]) + rng.normal(0, 0.15)
        inside = rng.uniform(0.01, 0.05) * size - np.abs((x - a) * np.cos(angle) + (y - b) * np.sin(angle))
    else:  # somebody's shoulder, a corner of something
        a, b = (a, float(height)) if rng.random() < 0.5 else (float(rng.choice([0, width])), b)
        inside = (1 - np.hypot((x - a) / 0.25, (y - b) / 0.18) / size) * 0.2 * size
    return np.clip(inside + 0.5, 0, 1), hue(rng, 0.7)


def photograph(rng: np.random.Generator, light: Floats) -> bytes:
    """What a camera makes of light: exposure, blur, noise, contrast, JPEG.

    Args:
        rng: Source of chance.
        light: float32 (H, W, 3), linear.

    Returns:
        A JPEG file.
    """
    mean = float(light.mean()) + 1e-3
    light = light * (rng.uniform(0.14, 0.32) / mean) ** 0.7
    if rng.random() < 0.3:  # glow of bright parts
        light = light + 0.03 * rng.random()
    # bright parts saturate softly, as film does
    light = np.where(light > 0.7, 0.7 + 0.3 * np.tanh((light - 0.7) / 0.3), light)
    values = np.clip(light, 0, 1) ** (1 / (2.2 * rng.uniform(0.85, 1.15)))
    grey = values.mean(-1, keepdims=True)
    values = grey + (values - grey) * (0.0 if rng.random() < 0.03 else rng.uniform(0.6, 1.25))
    values = values * (1 + rng.normal(0, 0.04, 3))
    image = Image.fromarray((np.clip(values, 0, 1) * 255).astype(np.uint8))
    if rng.random() < 0.75:
        image = image.filter(ImageFilter.GaussianBlur(float(rng.gamma(2, 0.3))))
    if rng.random() < 0.25:
        share = rng.uniform(0.5, 0.9)
        small = image.resize((int(image.width * share), int(image.height * share)), Image.Resampling.BICUBIC)
        image = small.resize(image.size, Image.Resampling.BICUBIC)
    values = np.asarray(image, np.float32) + rng.normal(0, 1, (*light.shape[:2], 1)) * rng.gamma(1.5, 1.4)
    values += rng.normal(0, 1, light.shape) * rng.gamma(1.5, 0.8)
    file = io.BytesIO()
    Image.fromarray(np.clip(values, 0, 255).astype(np.uint8)).save(file, 'JPEG', quality=int(rng.uniform(55, 96)))
    return file.getvalue()
