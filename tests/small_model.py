"""A model small enough to run for nothing, its weights under the names of the authors, and photos of noise."""

import numpy as np
import torch
from PIL import Image

from widehrnet_zoo.models.registry import create_model

SMALL = {'channels': (8, 16), 'num_modules': (1,), 'stem_width': 8}


def small(num_classes=17):
    torch.manual_seed(0)
    return create_model('widehrnet_10', num_classes=num_classes, **SMALL)


def photos(folder, count, size=(40, 50)):
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for i in range(count):
        Image.fromarray(random.integers(0, 256, (*size, 3), np.uint8)).save(folder / f'{i:05d}.png')
    return folder


def official(model):
    from test_convert import official_name

    return {official_name(name, False): value for name, value in model.state_dict().items()}
