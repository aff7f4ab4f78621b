"""The growth of a box to the view is a property of weights: saved, loaded, exported, measured and trained with them."""

import json

import numpy as np
import pytest
import torch
from small_model import small
from training_shapes import tiny_recipe, write_kites

from widehrnet_zoo import PoseEstimator
from widehrnet_zoo.errors import UserError
from widehrnet_zoo.hub import save_pretrained
from widehrnet_zoo.models.registry import create_model
from widehrnet_zoo.pose.crops import padding_of

CORNERS = [[20, 10, 40, 50]]


def seen(estimator):
    """Width of the view that a box gets, in pixels of the picture."""
    estimator._forward = lambda crops, *how: (np.zeros((1, 17, 2), np.float32), np.ones((1, 17), np.float32))
    image = np.zeros((60, 60, 3), np.uint8)
    x = estimator(image, CORNERS).keypoints[0, 0, 0]
    # the first pixel of the input lies at the view's left edge
    return (30 - x) * 2


def test_a_model_keeps_its_padding_through_saving_loading_and_the_estimator(tmp_path):
    model = small()
    model.padding = 1.1
    save_pretrained(model, tmp_path / 'model', size=(64, 64))
    assert json.loads((tmp_path / 'model' / 'config.json').read_text())['padding'] == 1.1
    again = create_model(f'local-dir:{tmp_path / "model"}', pretrained=True)
    assert padding_of(again) == 1.1 and padding_of(small()) == 1.25
    # the box of 20 x 40 is widened to the square input first
    assert seen(PoseEstimator(tmp_path / 'model')) == pytest.approx(40 * 1.1)
    assert seen(PoseEstimator(tmp_path / 'model', padding=1.5)) == pytest.approx(60)
    assert seen(PoseEstimator(small(), size=(64, 64))) == pytest.approx(50)
    with pytest.raises(UserError, match=r'0\.5\.\.4, not 12'):
        PoseEstimator(small(), padding=12)


def test_exported_files_say_their_padding_and_older_ones_mean_the_default(tmp_path):
    from widehrnet_zoo.engines.metadata import ExportMetadata
    from widehrnet_zoo.export.export import export

    pytest.importorskip('onnx')
    model = small()
    model.padding = 1.1
    export(model, tmp_path / 'model.torchscript', size=(64, 64))
    assert PoseEstimator(tmp_path / 'model.torchscript').padding == 1.1
    known = ExportMetadata('x', PoseEstimator(model, size=(64, 64)).skeleton, (64, 64), (0.5,) * 3, (0.2,) * 3)
    old = json.loads(known.to_json())
    del old['padding']
    assert ExportMetadata.from_json(json.dumps(old), 'x').padding == 1.25


def test_eval_takes_the_models_padding_unless_told_otherwise(tmp_path, monkeypatch):
    from dataclasses import replace

    from widehrnet_zoo.evaluation import run

    write_kites(tmp_path, 3)
    model = small(5)
    model.padding = 1.1
    estimator = PoseEstimator(model, size=(64, 64))
    paddings = []
    labelled = run.labelled_boxes
    monkeypatch.setattr(run, 'labelled_boxes', lambda *args: paddings.append(args[-1]) or labelled(*args))
    protocol = run.Protocol.published('pck')
    for padding in (None, 1.4):
        report = run.evaluate(
            replace(protocol, padding=padding), tmp_path / 'train.json', tmp_path / 'images', estimator
        )
        assert report.switches['padding'] == paddings[-1]
    assert paddings == [1.1, 1.4]


@pytest.mark.usefixtures('quick_runs')
def test_training_looks_at_boxes_with_the_recipes_padding_and_the_model_keeps_it(tmp_path):
    pytest.importorskip('yaml')
    pytest.importorskip('accelerate')
    from widehrnet_zoo.training import load_config, train
    from widehrnet_zoo.training.batches import Batches
    from widehrnet_zoo.training.data import open_caches

    write_kites(tmp_path, 8)
    still = {f'augment__{name}': 0 for name in ('rotation_prob', 'shift', 'flip_prob', 'colour', 'cutout_prob')}
    recipe = tiny_recipe(tmp_path, tmp_path / 'run', epochs=1, augment__scale=1, data__padding=1.0, **still)
    cache, _ = open_caches(load_config(recipe), progress=False)
    wide, close = (Batches(cache, load_config(recipe), padding=p).batch(0) for p in (1.25, None))
    middle = torch.tensor([32.0, 32])
    assert torch.allclose((close.keypoints[..., :2] - middle), (wide.keypoints[..., :2] - middle) * 1.25, atol=1e-2)
    train(load_config(recipe), progress=False)
    again = f'local-dir:{tmp_path / "run" / "model"}'
    assert padding_of(create_model(again)) == 1.0
    # weights with a padding of their own go on with it
    recipe = tiny_recipe(tmp_path, tmp_path / 'more', epochs=1, model__name=again, **still)
    recipe['model'].pop('args')
    assert padding_of(train(load_config(recipe), progress=False)) == 1.0
    # a view of the box as it is takes more pixels of a crop for the same input
    assert cache.crops.shape[1] == round(64 * 1.5 * 1.25)
