import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from training_shapes import tiny_recipe, write_kites

from widehrnet_zoo.errors import UserError
from widehrnet_zoo.training import load_config, pack, train
from widehrnet_zoo.training.batches import Batches
from widehrnet_zoo.training.data import open_caches
from widehrnet_zoo.training.packs import open_packs, write_packs
from widehrnet_zoo.training.people import read_people

pytest.importorskip('yaml')
pytest.importorskip('accelerate')
pytestmark = pytest.mark.usefixtures('quick_runs')


@pytest.fixture(scope='module')
def kites(tmp_path_factory):
    folder = tmp_path_factory.mktemp('kites')
    path = write_kites(folder, 20)
    data = json.loads(path.read_text())
    for i, annotation in enumerate(data['annotations']):
        annotation.update(share=1 + i % 3, trust=[1, 2, 0.5, 1, 0], seen=annotation['keypoints'])
    path.write_text(json.dumps(data))
    write_kites(folder, 6, seed=1, name='val')
    return folder


def fields(kites, out, **changes):
    labels = {'sample_weights': 'share', 'keypoint_weights': 'trust', 'val_labels': str(kites / 'val.json')}
    recipe = tiny_recipe(kites, out, **changes)
    recipe['data'].update(labels)
    return {**recipe, 'teacher': {'keypoints': 'seen'}}


def packed(recipe, folder):
    """The same recipe, from packs."""
    data = {'packs': str(folder), 'sample_weights': None}
    return load_config({**recipe, 'data': data})


def test_training_from_packs_is_training_from_the_photos(kites, tmp_path):
    recipe = fields(kites, tmp_path / 'photos', data__crop_size=200, epochs=1)
    files = pack(load_config(recipe), tmp_path / 'packs', quality=95, progress=False)
    assert [file.name for file in files] == ['train-01-of-01.pack', 'val-01-of-01.pack']
    one, two = (
        open_caches(load_config(recipe), progress=False)[0],
        open_caches(packed(recipe, tmp_path / 'packs'), progress=False)[0],
    )
    assert two.people.skeleton == one.people.skeleton and two.people.ids == one.people.ids
    for field in ('sample_weights', 'weights', 'teacher', 'boxes', 'keypoints'):
        np.testing.assert_array_equal(getattr(two.people, field), getattr(one.people, field))
    # the photo is coarser than the crop: the pack holds its own pixels, unenlarged
    boxes = two.people.boxes
    assert np.allclose(two.boxes[:, 2:] - two.boxes[:, :2], boxes[:, 2:] - boxes[:, :2], atol=1e-3)
    near, far = (Batches(cache, load_config(recipe)).batch(0) for cache in (one, two))
    assert torch.allclose(near.keypoints, far.keypoints, atol=0.05)
    assert torch.equal(near.weights, far.weights) and near.total == pytest.approx(far.total)
    assert (near.pixels - far.pixels).abs().mean() < 4
    # without photos and labels
    config = packed({**recipe, 'out': str(tmp_path / 'packed')}, tmp_path / 'packs')
    train(config, progress=False)
    assert json.loads((tmp_path / 'packed' / 'summary.json').read_text())['people'] == 20
    with pytest.raises(UserError, match='stands in place of'):
        train(load_config({**recipe, 'data': {**recipe['data'], 'packs': 'x'}}), progress=False)


def test_large_people_are_made_smaller_where_their_pixels_were(tmp_path):
    """A dot on each keypoint is found in the crop where the crop's keypoint is."""
    path = write_kites(tmp_path, 3, size=400)
    people = read_people(path)
    for file, points in zip(people.files, people.keypoints, strict=True):
        image = np.zeros((400, 400, 3), np.uint8)
        for x, y in points[:4, :2].round().astype(int):
            image[y - 4 : y + 5, x - 4 : x + 5] = 255
        Image.fromarray(image).save(tmp_path / 'images' / file)
    people.keypoints[..., :2] = people.keypoints[..., :2].round()
    write_packs(people, tmp_path / 'images', tmp_path / 'packs', 'train', side=150, quality=95, progress=False)
    cache = open_packs(tmp_path / 'packs', progress=False)['train']
    assert cache.crops.shape == (3, 150, 150, 3)
    ys, xs = np.mgrid[:150, :150]
    for crop, points in zip(cache.crops, cache.keypoints, strict=True):
        for x, y in points[:4, :2]:
            near = crop[..., 0] * (np.maximum(abs(xs - x), abs(ys - y)) < 4).astype(float)
            assert abs((near * xs).sum() / near.sum() - x) < 0.2 and abs((near * ys).sum() / near.sum() - y) < 0.2


def test_packs_stay_below_their_size_and_come_back_whole_and_in_order(kites, tmp_path, monkeypatch):
    people = read_people(kites / 'train.json')
    (tmp_path / 'train-01-of-09.pack').write_bytes(b'of an earlier packing')
    files = write_packs(people, kites / 'images', tmp_path, 'train', megabytes=0.012, progress=False)
    assert len(files) > 2 and all(file.stat().st_size < 12_000 for file in files)
    assert sorted(tmp_path.iterdir()) == files
    cache = open_packs(tmp_path, progress=False)['train']
    assert cache.people.files == people.files
    np.testing.assert_array_equal(cache.people.keypoints, people.keypoints)
    # a packing that is cut short leaves what was there
    before = [file.read_bytes() for file in files]
    monkeypatch.setattr(
        'widehrnet_zoo.training.packs.write_whole', lambda *args: (_ for _ in ()).throw(OSError(28, 'No space left'))
    )
    with pytest.raises(UserError, match='No space left'):
        write_packs(people, kites / 'images', tmp_path, 'train', progress=False)
    assert [file.read_bytes() for file in files] == before


def test_missing_mixed_and_damaged_packs_are_named(kites, tmp_path):
    people = read_people(kites / 'train.json')
    whole = tmp_path / 'whole'
    files = write_packs(people, kites / 'images', whole, 'train', megabytes=0.012, progress=False)

    def broken(change):
        folder = tmp_path / 'broken'
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)
        change(folder / files[1].name)
        return folder

    with pytest.raises(UserError, match=rf'has {len(files) - 1} of {len(files)} train packs .*bring the others'):
        open_packs(broken(lambda file: file.unlink()), progress=False)
    content = files[1].read_bytes()
    for cut in (content[:-100], b'', b'\xff' * 100, content[:200]):
        with pytest.raises(UserError, match='not a complete pack'):
            open_packs(broken(lambda file, cut=cut: file.write_bytes(cut)), progress=False)
    flipped = content[:-50] + bytes([content[-50] ^ 1]) + content[-49:]
    with pytest.raises(UserError, match='is damaged'):
        open_packs(broken(lambda file: file.write_bytes(flipped)), progress=False)
    other = write_packs(people, kites / 'images', tmp_path / 'other', 'train', quality=50, progress=False)
    with pytest.raises(UserError, match='different sets'):
        open_packs(broken(lambda file: shutil.copy(other[0], file.parent)), progress=False)
    with pytest.raises(UserError, match='holds no packs'):
        open_packs(tmp_path, progress=False)


def test_the_command_packs_and_trains_from_packs(kites, tmp_path, capsys):
    from widehrnet_zoo.cli.main import main

    recipe = tmp_path / 'recipe.json'
    recipe.write_text(json.dumps(tiny_recipe(kites, tmp_path / 'run', epochs=1)))
    packs = str(tmp_path / 'packs')
    assert main(['pack', str(recipe), '--to', packs, '--quiet']) == 0
    assert 'train-01-of-01.pack' in capsys.readouterr().out
    recipe.write_text(json.dumps({**json.loads(recipe.read_text()), 'data': {}}))
    assert main(['train', str(recipe), '--packs', packs, '--quiet', '--cpu']) == 0
