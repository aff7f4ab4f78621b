"""Surroundings: ground, walls and boxes as triangles, what is far away as a picture, and light."""

from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .bodies import Floats, Ints
from .paint import display, hue, linear, look_up, noise_tile

_BOX = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)], np.float32)
_BOX_FACES = np.array(
    [[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1], [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4],
     [1, 5, 7], [1, 7, 3]]
)  # fmt: skip


@dataclass
class Surface:
    """How a ground, wall or box looks: two linear colours mixed by noise, with joints between slabs.

    Attributes:
        colours: float32 (2, 3).
        grain: Metres that a tile of noise spans.
        contrast: Of the noise.
        slab: Metres between joints, 0 for none.
    """

    colours: Floats
    grain: float
    contrast: float
    slab: float


@dataclass
class Scene:
    """All but the person.

    Attributes:
        sun: float32 (3,), unit vector towards it.
        sun_light: float32 (3,), linear.
        sky_light: float32 (3,), linear, from above.
        points: float32 (P, 3), metres; ground at z = 0.
        faces: int32 (F, 3).
        surface: int32 (F,), index into `surfaces`.
        surfaces: How they look.
        tile: Noise.
    """

    sun: Floats
    sun_light: Floats
    sky_light: Floats
    tile: Floats
    points: Floats = field(default_factory=lambda: np.zeros((0, 3), np.float32))
    faces: Ints = field(default_factory=lambda: np.zeros((0, 3), np.int32))
    surface: Ints = field(default_factory=lambda: np.zeros(0, np.int32))
    surfaces: list[Surface] = field(default_factory=list)

    def add_box(self, centre: Floats, size: Floats, yaw: float, surface: Surface) -> None:
        """Put a box of a size (3,) in metres there, turned by `yaw` radians."""
        c, s = np.cos(yaw), np.sin(yaw)
        turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
        box = (_BOX * np.asarray(size)) @ turn.T + centre
        self.faces = np.concatenate([self.faces, _BOX_FACES + len(self.points)]).astype(np.int32)
        self.points = np.concatenate([self.points, box]).astype(np.float32)
        self.surface = np.concatenate([self.surface, np.full(12, len(self.surfaces))]).astype(np.int32)
        self.surfaces.append(surface)

    def colours(self, surface: Ints, points: Floats, normals: Floats) -> Floats:
        """Albedo of points on it: float32 (N, 3).

        Args:
            surface: int (N,), index.
            points: float32 (N, 3), metres.
            normals: float32 (N, 3).
        """
        out = np.empty((len(points), 3), np.float32)
        upright = np.abs(normals[:, 2]) < 0.5
        # walls are painted by the height and by the way along them
        u = np.where(upright, points[:, 0] * -normals[:, 1] + points[:, 1] * normals[:, 0], points[:, 0])
        v = np.where(upright, points[:, 2], points[:, 1])
        for index, look in enumerate(self.surfaces):
            rows = np.flatnonzero(surface == index)
            if not len(rows):
                continue
            a, b = u[rows], v[rows]
            large = look_up(self.tile, a / look.grain, b / look.grain)
            fine = look_up(self.tile, a / look.grain * 7.3, b / look.grain * 7.3)
            share = np.clip(0.5 + look.contrast * (0.7 * large + 0.5 * fine - 0.6) * 2, 0, 1)[:, None]
            colour = look.colours[0] * (1 - share) + look.colours[1] * share
            if look.slab:
                joint = np.minimum(np.abs(a / look.slab % 1 - 0.5), np.abs(b / (look.slab * 0.6) % 1 - 0.5))
                colour = colour * np.where(joint < 0.02, 0.5, 1.0)[:, None]
            out[rows] = colour
        return out


def draw_surface(rng: np.random.Generator, kind: str) -> Surface:
    """Choose a look for `ground`, or for `wall` and boxes."""
    if kind == 'ground' and rng.random() < 0.7:
        pairs = {
            'grass': ([56, 84, 30], [112, 130, 62]),
            'asphalt': ([84, 84, 86], [128, 126, 124]),
            'sand': ([178, 152, 112], [206, 186, 148]),
            'track': ([140, 58, 44], [168, 80, 62]),
            'mat': ([30, 60, 130], [44, 80, 150]),
            'wood': ([150, 108, 66], [190, 146, 96]),
            'concrete': ([150, 148, 144], [182, 180, 174]),
        }
        name = str(rng.choice(sorted(pairs)))
        colours = linear(np.array(pairs[name]) / 255) * rng.uniform(0.7, 1.2)
        slab = rng.uniform(0.5, 2) if name in ('concrete', 'mat', 'wood') and rng.random() < 0.6 else 0.0
        return Surface(colours, float(rng.uniform(0.8, 4)), float(rng.uniform(0.4, 1.2)), float(slab))
    base = hue(rng, 0.5)
    other = np.clip(base * rng.uniform(0.5, 1.4, 3) + rng.uniform(0, 0.05), 0, 1)
    slab = rng.uniform(0.2, 1.5) if rng.random() < 0.4 else 0.0
    return Surface(np.stack([base, other]), float(rng.uniform(0.5, 5)), float(rng.uniform(0.1, 1.2)), float(slab))


def draw_scene(rng: np.random.Generator, floor: float, away: float) -> Scene:
    """Choose light, ground, walls and things about a person at the origin.

    Args:
        rng: Source of chance.
        floor: Height of the lowest point of the person above the ground in metres.
        away: Direction from the camera to the person in radians, seen from above.

    Returns:
        The scene.
    """
    height, side = np.arcsin(rng.uniform(0.25, 0.98)), rng.uniform(0, 2 * np.pi)
    sun = np.array([np.cos(height) * np.cos(side), np.cos(height) * np.sin(side), np.sin(height)])
    strong = rng.choice([0.0, 0.35, 0.8, 1.0], p=[0.15, 0.25, 0.3, 0.3])
    warm = np.array([1.0, rng.uniform(0.85, 1.0), rng.uniform(0.7, 1.0)])
    cool = np.array([rng.uniform(0.75, 1.0), rng.uniform(0.88, 1.0), 1.0])
    scene = Scene(
        sun.astype(np.float32),
        (warm * strong * 1.5).astype(np.float32),
        (cool * (1.05 - 0.6 * strong) * rng.uniform(0.85, 1.1)).astype(np.float32),
        noise_tile(rng),
    )
    reach = rng.choice([6.0, 15.0, 60.0])
    ground = np.array([0.0, 0.0, -0.5])
    if rng.random() < 0.85:
        scene.add_box(ground, np.array([2 * reach, 2 * reach, 1.0]), rng.uniform(0, 6), draw_surface(rng, 'ground'))
    if rng.random() < 0.45:
        distance = rng.uniform(0.8, 6) + 0.2
        high = rng.choice([1.0, 2.5, 4.0, 8.0])
        place = np.array([np.cos(away) * distance, np.sin(away) * distance, high / 2])
        yaw = away + rng.uniform(-0.5, 0.5)
        scene.add_box(place, np.array([0.3, rng.uniform(3, 30), high]), yaw, draw_surface(rng, 'wall'))
    for _ in range(rng.poisson(1.2)):
        direction = away + rng.normal(0, 1.0)
        distance = rng.uniform(1.3, 6)
        size = rng.gamma(2, 0.4, 3) + 0.1
        if rng.random() < 0.4:  # posts and rails
            size = np.array([0.08, 0.08, rng.uniform(1, 4)]) if rng.random() < 0.5 else np.array([4.0, 0.06, 0.06])
        z = size[2] / 2 if size[0] < 3 else rng.uniform(0.3, 2.5)
        place = np.array([np.cos(direction) * distance, np.sin(direction) * distance, z])
        scene.add_box(place, size, rng.uniform(0, 3), draw_surface(rng, 'wall'))
    if floor > 0.25 and rng.random() < 0.3:  # something to vault or jump from
        top = max(floor - 0.05, 0.1)
        size = np.array([rng.uniform(0.3, 1), rng.uniform(0.3, 2), top])
        scene.add_box(np.array([0, 0, top / 2]), size, rng.uniform(0, 3), draw_surface(rng, 'wall'))
    return scene


def draw_backdrop(rng: np.random.Generator, width: int, height: int, horizon: float, sky: Floats) -> Floats:
    """What lies behind everything, out of focus as photos have it.

    Args:
        rng: Source of chance.
        width: Pixels.
        height: Pixels.
        horizon: Its row, may be out of the picture.
        sky: float32 (3,), light from above, for the sky's brightness.

    Returns:
        float32 (height, width, 3), linear light.
    """
    rows = (np.arange(height, dtype=np.float32) - horizon)[:, None] / height
    tile = noise_tile(rng)
    v, u = np.mgrid[0:height, 0:width].astype(np.float32) / max(width, height)
    clouds = look_up(tile, u * rng.uniform(0.3, 1), v * rng.uniform(0.5, 2))
    top = linear(rng.choice([[0.35, 0.55, 0.85], [0.6, 0.75, 0.92], [0.8, 0.82, 0.85], [0.55, 0.57, 0.6]]))
    white = linear(np.array([0.92, 0.93, 0.95]))
    share = np.clip(1 + rows * rng.uniform(0.5, 1.5), 0, 1)
    share = np.clip(np.broadcast_to(share, u.shape) + (clouds - 0.5) * rng.uniform(0, 1.2), 0, 1)[..., None]
    picture = (top * (1 - share) + white * share) * (0.5 + 0.5 * float(sky.mean()))
    below = (
        linear(rng.uniform(0.2, 0.65) + rng.uniform(-0.12, 0.12, 3))
        * (0.6 + 0.8 * look_up(tile, u * 2, v * 6))[..., None]
    )
    picture = np.where(rows[..., None] > 0, below, picture)
    image = Image.fromarray((display(picture) * 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    size = max(width, height)

    def colour() -> tuple[int, int, int]:
        r, g, b = (display(hue(rng, 0.6)) * 255).astype(int)
        return int(r), int(g), int(b)

    if rng.random() < 0.6:  # buildings with windows
        for _ in range(rng.integers(1, 7)):
            x, wide, high = rng.uniform(-0.2, 1) * width, rng.uniform(0.1, 0.6) * size, rng.uniform(0.05, 0.8) * size
            draw.rectangle([x, horizon - high, x + wide, horizon + 2], colour())
            step, pane = rng.uniform(0.04, 0.12) * size, colour()
            for left in np.arange(x + step / 3, x + wide - step / 2, step):
                for up in np.arange(horizon - high + step / 3, horizon - step / 2, step * 1.2):
                    draw.rectangle([left, up, left + step * 0.5, up + step * 0.6], pane)
    if rng.random() < 0.5:  # trees and bushes
        green = np.array([rng.uniform(25, 90), rng.uniform(50, 110), rng.uniform(15, 50)])
        for _ in range(rng.integers(20, 120)):
            x, y, r = rng.random() * width, horizon - abs(rng.normal(0, 0.15)) * size, rng.uniform(0.01, 0.07) * size
            r, shade = float(r), tuple(int(c) for c in np.clip(green * rng.uniform(0.5, 1.4), 0, 255))
            draw.ellipse([x - r, y - r, x + r, y + r], shade)
    if rng.random() < 0.45:  # onlookers and clutter
        for _ in range(rng.integers(5, 50)):
            x, y = rng.random() * width, horizon + rng.normal(0.02, 0.08) * size
            r = float(rng.uniform(0.01, 0.04) * size)
            draw.rectangle([x - r, y, x + r, y + 4 * r], colour())
            if rng.random() < 0.6:
                draw.ellipse([x - 0.6 * r, y - 1.4 * r, x + 0.6 * r, y], (int(rng.uniform(60, 220)), 120, 95))
    if rng.random() < 0.3:  # anything
        for _ in range(rng.integers(3, 25)):
            x, y, a, b = rng.random() * width, rng.random() * height, *(rng.gamma(2, 0.06, 2) * size)
            shape = draw.ellipse if rng.random() < 0.5 else draw.rectangle
            shape([x - a, y - b, x + a, y + b], colour())
    image = image.filter(ImageFilter.GaussianBlur(float(rng.gamma(2, 0.006) * size)))
    return linear(np.asarray(image, np.float32) / 255)
