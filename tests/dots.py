"""Photos of people as coloured dots on grey, and networks that read them: honest keypoints without training."""

import json

import numpy as np
import torch
from PIL import Image, ImageDraw

from widehrnet_zoo import SKELETONS, PoseEstimator, Skeleton, create_model

SIZE = (256, 192)
COCO = SKELETONS['coco']
DOTS = Skeleton('dots', tuple(f'dot {k}' for k in range(17)))
GREY = (128, 128, 128)


def colour(k):
    return 255 if k % 3 == 0 else 85 * (k % 4), 60 * (k % 5), 15 * k


class DotNetwork(torch.nn.Module):
    """Heatmap k is high where the image has colour k."""

    def __init__(self, num=17):
        super().__init__()
        self.colours = torch.nn.Parameter(torch.tensor([colour(k) for k in range(num)]).float() / 255)
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        # |x - c|^2 by its terms, in float32: as differences, tens of megabytes for every crop
        with torch.autocast('cpu', enabled=False):
            products = torch.einsum('bchw,kc->bkhw', x, self.colours)
        squares = x.square().sum(1, keepdim=True) + self.colours.square().sum(1)[:, None, None]
        return torch.nn.functional.avg_pool2d(torch.exp(-200 * (squares - 2 * products)), 5, 4, 2)


class ReadsDots:
    """The network as a backend of NumPy arrays that keeps the sizes of its batches."""

    skeleton = DOTS
    size = SIZE
    mean = (0.0, 0.0, 0.0)
    std = (1.0, 1.0, 1.0)

    def __init__(self):
        self.batches, self.network = [], DotNetwork()

    def __call__(self, images):
        assert images.dtype == np.float32 and images.flags.c_contiguous
        self.batches.append(len(images))
        with torch.no_grad():
            return self.network(torch.from_numpy(images)).numpy()


def draw_person(image, corner, random, num=17):
    """Dots in four columns from a corner on, a little off the grid; gives (num, 2) their centres."""
    grid = np.stack(np.meshgrid(np.arange(4) * 36, np.arange(5) * 66), -1).reshape(-1, 2)[:num]
    points = np.add(grid, corner) + random.integers(-6, 7, (num, 2))
    for k, (x, y) in enumerate(points.tolist()):
        ImageDraw.Draw(image).ellipse((x - 5, y - 5, x + 5, y + 5), fill=colour(k))
    return points


def photo(people=1, seed=0):
    """Dotted people with their keypoints and boxes."""
    random = np.random.default_rng(seed)
    image = Image.new('RGB', (350 * people, 400), GREY)
    lefts = [90 + 350 * person for person in range(people)]
    keypoints = [draw_person(image, (left + 20, 50), random) for left in lefts]
    boxes = [(left, 30, left + 160, 350) for left in lefts]
    return np.asarray(image), np.array(keypoints), np.array(boxes, float)


def dotted_set(folder, num_images=3, people=2, size=(640, 400), num=17):
    """Photos with COCO labels at the dots; gives the file of labels."""
    random = np.random.default_rng(1)
    images, annotations = [], []
    for image_id in range(1, num_images + 1):
        image = Image.new('RGB', size, GREY)
        for left in range(40, 40 + 300 * people, 300):
            points = draw_person(image, (left + 40, 50), random, num)
            keypoints = np.concatenate([points, np.full((num, 1), 2)], 1).ravel().tolist()
            entry = {'id': len(annotations) + 1, 'image_id': image_id, 'category_id': 1, 'iscrowd': 0}
            entry |= {'keypoints': keypoints, 'num_keypoints': num, 'bbox': [left, 20, 200, 350], 'area': 35_000.0}
            annotations.append(entry)
        image.save(folder / f'{image_id}.png')
        images.append({'id': image_id, 'file_name': f'{image_id}.png', 'width': size[0], 'height': size[1]})
    path = folder / 'labels.json'
    labels = {'images': images, 'annotations': annotations, 'categories': [{'id': 1, 'name': 'person'}]}
    path.write_text(json.dumps(labels))
    return path


def dots(**options):
    return PoseEstimator(backend=ReadsDots(), **options)


def light(**options):
    torch.manual_seed(0)
    return PoseEstimator(create_model('widehrnet_10', **options))
