"""A made-up data set for the training tests: a kite with five keypoints, drawn on noise."""

import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

NAMES = ['tip', 'left_wing', 'right_wing', 'waist', 'tail']
COLOURS = [(230, 60, 50), (60, 140, 240), (250, 200, 40), (240, 240, 240), (60, 200, 90)]


# A network that trains 40 times as fast as widehrnet_10, where only the machinery is looked at
TINY = {'stem_width': 16, 'channels': [8, 16, 32, 64], 'num_modules': [1, 1, 1], 'num_blocks': 1}

# and a smaller one, for tests of several runs that need not learn
LEAST = {'stem_width': 8, 'channels': [8, 16], 'num_modules': [1], 'num_blocks': 1}


def draw_kite(rng: random.Random, size: int = 96) -> tuple[Image.Image, list[tuple[float, float]]]:
    noise = np.random.default_rng(rng.randrange(2**31)).integers(60, 140, (size, size, 3), dtype=np.uint8)
    image = Image.fromarray(noise).filter(ImageFilter.GaussianBlur(2))
    angle, length = rng.uniform(-0.5, 0.5), size * rng.uniform(0.28, 0.36)
    cx, cy = size * rng.uniform(0.42, 0.58), size * rng.uniform(0.42, 0.58)

    def place(x: float, y: float) -> tuple[float, float]:
        x, y = x * length, y * length
        return cx + x * math.cos(angle) - y * math.sin(angle), cy + x * math.sin(angle) + y * math.cos(angle)

    spread = rng.uniform(0.5, 0.75)
    points = [place(0, -1), place(-spread, -0.3), place(spread, -0.3), place(0, 0.2), place(0, 1)]
    pen = ImageDraw.Draw(image)
    pen.polygon([points[0], points[2], points[3], points[1]], fill=(150, 80, 160))
    pen.line([points[3], points[4]], fill=(20, 20, 20), width=3)
    for (x, y), colour in zip(points, COLOURS, strict=True):
        pen.ellipse((x - 4, y - 4, x + 4, y + 4), fill=colour)
    return image, points


def write_kites(folder: Path, count: int, seed: int = 0, name: str = 'train', size: int = 96) -> Path:
    """Images and COCO labels; every seventh kite has an unlabelled tail."""
    rng = random.Random(seed)
    images, annotations = [], []
    (folder / 'images').mkdir(parents=True, exist_ok=True)
    for i in range(count):
        image, points = draw_kite(rng, size)
        file = f'{name}_{i:03d}.png'
        image.save(folder / 'images' / file)
        keypoints: list[float] = []
        for k, (x, y) in enumerate(points):
            keypoints += [0, 0, 0] if k == 4 and i % 7 == 3 else [x, y, 2]
        xs, ys = [p[0] for p in points], [p[1] for p in points]
        box = [min(xs) - 4, min(ys) - 4, max(xs) - min(xs) + 8, max(ys) - min(ys) + 8]
        images.append({'id': i, 'file_name': file, 'width': size, 'height': size})
        annotations.append({'id': i, 'image_id': i, 'category_id': 1, 'bbox': box, 'keypoints': keypoints})
    bones = [[1, 2], [1, 3], [2, 4], [3, 4], [4, 5]]
    category = {'id': 1, 'name': 'kite', 'keypoints': NAMES, 'skeleton': bones}
    path = folder / f'{name}.json'
    path.write_text(json.dumps({'images': images, 'annotations': annotations, 'categories': [category]}))
    return path


def tiny_recipe(folder: Path, out: Path, **changes: Any) -> dict[str, Any]:
    """Settings of a run that takes a second or two."""
    recipe: dict[str, Any] = {
        'out': str(out),
        'size': [64, 64],
        'batch_size': 8,
        'epochs': 3,
        'lr': 5e-3,
        'warmup_steps': 2,
        'log_steps': 1,
        'cpu': True,
        'data': {
            'labels': str(folder / 'train.json'),
            'images': str(folder / 'images'),
            'cache': str(folder / 'cache'),
        },
        'model': {'name': 'widehrnet_10', 'args': dict(TINY)},
    }
    for key, value in changes.items():
        section, _, name = key.rpartition('__')
        (recipe.setdefault(section, {}) if section else recipe)[name] = value
    return recipe
