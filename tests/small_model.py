"""A model small enough to run for nothing, models as training leaves them, names of the authors, photos of noise."""

import numpy as np
import torch
from PIL import Image
from torch import nn

from widehrnet_zoo.models.registry import create_model

SMALL = {'channels': (8, 16), 'num_modules': (1,), 'num_blocks': 1, 'stem_width': 8}
THREE_STAGES = {'channels': (8, 16, 32), 'num_modules': (1, 1), 'stem_width': 8}


def small(num_classes=17, **kwargs):
    torch.manual_seed(0)
    return create_model('widehrnet_10', num_classes=num_classes, **SMALL, **kwargs)


def photos(folder, count, size=(40, 50)):
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for i in range(count):
        Image.fromarray(random.integers(0, 256, (*size, 3), np.uint8)).save(folder / f'{i:05d}.png')
    return folder


def official(model):
    from test_convert import official_name

    return {official_name(name, False): value for name, value in model.state_dict().items()}


def trained_like(model):
    """Random weights, and batch-norm statistics as training leaves them."""
    torch.manual_seed(0)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for m in model.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.kaiming_normal_(m.weight)
            if m.bias is not None:
                nn.init.normal_(m.bias, std=0.1)
    for m in norms:
        nn.init.uniform_(m.weight, 0.5, 1.5)
        nn.init.normal_(m.bias, std=0.3)
        m.momentum = 1.0
    with torch.no_grad():
        model.train()(torch.randn(8, model.in_chans, 64, 64))
    return model.eval()


def error(model, deployed, *shape):
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, got = model(x), deployed(x)
    assert got.shape == expected.shape
    return float((got - expected).abs().max() / expected.abs().max())


def watch_layouts(model):
    """A list that gets, for each convolution that runs on a map, whether its input was channels last."""
    last = []

    def note(_, given):
        # a half of the channels is no whole tensor, but its channels lie side by side, too
        if given[0].shape[2:] != (1, 1):
            last.append(given[0].stride(1) == 1)

    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_pre_hook(note)
    return last
