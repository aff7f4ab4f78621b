import gc
import json

import numpy as np
import pytest
import torch
from PIL import Image
from training_shapes import TINY, write_kites

from widehrnet_zoo.detection.finder import PersonFinder, letterbox
from widehrnet_zoo.errors import UserError
from widehrnet_zoo.training import load_config, train
from widehrnet_zoo.training.box_batches import BoxBatches, photo_view, strongest
from widehrnet_zoo.training.box_loss import NOBODY, PERSON, UNSURE
from widehrnet_zoo.training.crops import CropCache
from widehrnet_zoo.training.data import pack
from widehrnet_zoo.training.log import read_log
from widehrnet_zoo.training.people import read_people
from widehrnet_zoo.training.photos import MARGIN, PhotoCache, read_photos
from widehrnet_zoo.training.pixels import cut_views
from widehrnet_zoo.training.run import open_task, preview

pytest.importorskip('yaml')
pytest.importorskip('accelerate')
pytest.importorskip('pycocotools')

DARK = {'colour': 0.0, 'flip_prob': 0.5}


def write_squares(folder, count, seed=0, name='train'):
    """Photos of 90 x 120 or the other way round, each with a white person on dark ground; every fourth without."""
    random = np.random.default_rng(seed)
    images, annotations = [], []
    (folder / 'images').mkdir(parents=True, exist_ok=True)
    for i in range(count):
        height, width = (90, 120) if i % 2 else (120, 90)
        pixels = np.full((height, width, 3), 30, np.uint8)
        images.append({'id': i, 'file_name': f'{name}_{i}.png', 'width': width, 'height': height})
        if i % 4 != 3:
            w, h = random.integers(24, 40), random.integers(40, 60)
            x, y = random.integers(0, width - w), random.integers(0, height - h)
            pixels[y : y + h, x : x + w] = 255
            box = [int(x), int(y), int(w), int(h)]
            annotations.append({'id': i, 'image_id': i, 'category_id': 3, 'bbox': box, 'area': int(w * h)})
        Image.fromarray(pixels).save(folder / 'images' / f'{name}_{i}.png')
    categories = [{'id': 1, 'name': 'kite'}, {'id': 3, 'name': 'person'}]
    labels = {'images': images, 'annotations': annotations, 'categories': categories}
    (folder / f'{name}.json').write_text(json.dumps(labels))
    return labels


@pytest.fixture(scope='module')
def squares(tmp_path_factory):
    folder = tmp_path_factory.mktemp('squares')
    write_squares(folder, 12)
    write_squares(folder, 5, seed=1, name='val')
    return folder


def recipe(folder, out, **changes):
    data = {'labels': str(folder / 'train.json'), 'images': str(folder / 'images'), 'cache': str(folder / 'cache')}
    values = {
        'task': 'boxes',
        'out': str(out),
        'size': [96, 96],
        'batch_size': 4,
        'epochs': 2,
        'warmup_steps': 1,
        'log_steps': 2,
        'cpu': True,
        'data': data,
        'model': {'name': 'widehrnet_10', 'args': dict(TINY)},
        'augment': DARK,
    }
    return {**values, **changes}


def cache_of(folder, size=150):
    return photos_of(folder / 'train.json', folder / 'images', folder / 'cache', size)


def photos_of(labels, images, folder, size):
    return PhotoCache(CropCache.build(read_photos(labels), images, folder, size, MARGIN, 1.0, progress=False))


def white(pixels):
    """Box between edges of what is white in (3, H, W)."""
    ys, xs = np.nonzero(np.asarray(pixels)[0] > 142)
    return np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])


def test_photos_and_their_boxes_go_into_the_cache_together(squares):
    cache = cache_of(squares)
    assert len(cache) == 12 and (cache.kinds == PERSON).sum() == 9
    # photos of 120 pixels in squares of 150
    # whose first pixels lie on one another, so that the edges are an eighth of a pixel apart
    assert cache.scales == pytest.approx(1.25)
    assert cache.extents[1] == pytest.approx([-0.125, 18.625, 149.875, 131.125])
    for crop, box in zip(cache.crops[:3], cache.boxes[:3, 0], strict=True):
        assert white(crop.transpose(2, 0, 1)) == pytest.approx(box, abs=0.8)


def test_boxes_follow_their_pixels_through_every_augmentation(squares):
    config = load_config(recipe(squares, squares / 'x', batch_size=8))
    batches = BoxBatches(cache_of(squares), config)
    seen = 0
    for step in range(6):
        batch = batches.batch(step)
        assert batch.pixels.shape == (8, 3, 96, 96) and batch.boxes.shape[1] == 4
        for image, boxes, kinds in zip(batch.pixels, batch.boxes, batch.kinds, strict=True):
            for box, kind in zip(boxes, kinds, strict=True):
                if kind == PERSON and float((box[2:] - box[:2]).min()) > 6:
                    x1, y1, x2, y2 = box.tolist()
                    inside = image[0, round(y1 + 2) : round(y2 - 2), round(x1 + 2) : round(x2 - 2)]
                    assert (inside > 200).all()
                    seen += 1
                    # and nothing white around it, but for another photo's person
                    others = [b for b, k in zip(boxes, kinds, strict=True) if k != NOBODY and b is not box]
                    if len(others) == 1:
                        assert white(image) == pytest.approx(box.numpy(), abs=1.5)
    assert seen > 40
    again = batches.batch(3)
    assert torch.equal(again.pixels, BoxBatches(cache_of(squares), config).batch(3).pixels)
    whole = BoxBatches(cache_of(squares), config, rank=1, world=2).batch(3)
    assert set(whole.indices) <= set(again.indices) and len(whole.indices) == 4


def test_what_is_cut_off_or_tiny_is_left_out_of_the_loss(squares):
    changes = {'boxes': {'mosaic_prob': 0.0, 'zoom_in': 6.0, 'zoom_out': 6.0, 'smallest': 14.0}}
    batches = BoxBatches(cache_of(squares), load_config(recipe(squares, squares / 'x', batch_size=12, **changes)))
    kinds, heights = [], []
    for step in range(8):
        batch = batches.batch(step)
        kinds.append(batch.kinds.flatten())
        heights.append((batch.boxes[..., 3] - batch.boxes[..., 1]).flatten())
    kinds, heights = torch.cat(kinds), torch.cat(heights)
    assert (heights[kinds == PERSON] >= 14).all()
    assert (kinds == UNSURE).sum() > 3 and (kinds == NOBODY).sum() > 10


def test_the_view_of_validation_is_the_finders_letterbox(squares):
    cache = cache_of(squares, 120)
    rows = np.array([0, 1])
    maps, scale, corner = photo_view(torch.from_numpy(cache.extents[rows]), (96, 128))
    pixels = cut_views(torch.from_numpy(cache.crops[rows]), maps, (96, 128))
    for i in rows:
        image = np.asarray(Image.open(squares / 'images' / f'train_{i}.png'))
        canvas, (wanted, left, top) = letterbox(image, (96, 128))
        assert float(scale[i]) * cache.scales[i] == pytest.approx(wanted, rel=1e-5)
        assert corner[i].tolist() == pytest.approx([left, top], abs=0.5)
        assert white(pixels[i]) == pytest.approx(white(canvas.transpose(2, 0, 1)), abs=1)


@pytest.mark.usefixtures('quick_runs')
def test_packs_of_photos_teach_the_same(squares, tmp_path):
    values = recipe(squares, tmp_path / 'run', epochs=1)
    values['data'].update(val_labels=str(squares / 'val.json'), crop_size=120)
    paths = pack(load_config(values), tmp_path / 'packs', quality=95, progress=False)
    assert [path.name for path in paths] == ['train-01-of-01.pack', 'val-01-of-01.pack']
    packed = {**values, 'data': {'packs': str(tmp_path / 'packs')}}
    task, other = open_task(load_config(packed), progress=False), open_task(load_config(values), progress=False)
    for mine, wanted in ((task.train, other.train), (task.val, other.val)):
        assert mine.ids == wanted.ids and (mine.kinds == wanted.kinds).all()
        assert mine.labels().annotations == wanted.labels().annotations
        assert mine.labels().images == wanted.labels().images
        for crop, box in zip(mine.crops[:3], mine.boxes[:3, 0], strict=True):
            assert white(crop.transpose(2, 0, 1)) == pytest.approx(box, abs=0.8)
    train(load_config(packed), progress=False)
    with pytest.raises(UserError, match='crops of people'):
        PhotoCache(CropCache.build(read_people(_kites(tmp_path)), tmp_path / 'images', tmp_path, 64, progress=False))


def _kites(folder):
    write_kites(folder, 2)
    return folder / 'train.json'


def test_boxes_that_no_sample_uses_are_left_away():
    kinds = torch.zeros(2, 40, dtype=torch.long)
    kinds[0, 3], kinds[1, 30:35] = PERSON, UNSURE
    boxes = torch.arange(320.0).view(2, 40, 4)
    packed, short = strongest(boxes, kinds)
    assert short.shape == (2, 16) and short[0, 0] == PERSON and (short[1] == UNSURE).sum() == 5
    assert torch.equal(packed[0, 0], boxes[0, 3]) and torch.equal(packed[1, :5], boxes[1, 30:35])


@pytest.mark.parametrize(
    'change, said',
    [
        (lambda d: d['images'][0].pop('width'), 'no width and height'),
        (lambda d: d.update(annotations=[]), 'no box of a person'),
        (lambda d: d['categories'][1].update(name='dog'), 'categories kite, dog'),
        (lambda d: d['annotations'][0].update(bbox=[1, 2, 'x', 4]), 'four finite numbers'),
        (lambda d: [a.update(bbox=[0.1, 0.2, 0.5, 0.5]) for a in d['annotations']], 'not in fractions'),
    ],
)
def test_labels_that_teach_nothing_are_refused(squares, tmp_path, change, said):
    labels = json.loads((squares / 'train.json').read_text())
    change(labels)
    (tmp_path / 'broken.json').write_text(json.dumps(labels))
    with pytest.raises(UserError, match=said):
        read_photos(tmp_path / 'broken.json')


def test_a_crowd_is_no_person_to_learn_and_boxes_end_at_the_photo(squares, tmp_path):
    labels = json.loads((squares / 'train.json').read_text())
    labels['annotations'][0]['iscrowd'] = 1
    labels['annotations'][1]['bbox'] = [-10, 50, 500, 30]
    (tmp_path / 'crowd.json').write_text(json.dumps(labels))
    cache = photos_of(tmp_path / 'crowd.json', squares / 'images', tmp_path, 150)
    assert cache.kinds[[0, 1, 3], 0].tolist() == [UNSURE, PERSON, NOBODY]
    first, second = cache.labels().annotations[:2]
    assert first['iscrowd'] == 1 and second['iscrowd'] == 0 and second['bbox'] == [0, 50, 120, 30]
    assert len(cache.labels().images) == 12


def test_a_finder_is_trained_by_the_same_command_and_finds(squares, tmp_path):
    torch.set_num_threads(1)
    changes = {'epochs': 3, 'lr': 5e-3, 'boxes': {'mosaic_prob': 0.25}}
    values = recipe(squares, tmp_path / 'run', **changes)
    values['data'].update(val_labels=str(squares / 'val.json'), crop_size=120)
    preview(load_config(values), tmp_path / 'preview.png', 4)
    trained = train(load_config(values), progress=False)
    gc.freeze()  # as conftest.py left it: a run ends its own
    assert trained.classifier.bias[0] < -3
    rows = read_log(tmp_path / 'run/log.csv')
    assert rows[-1]['loss'] < rows[0]['loss'] and 'val_ap50' in rows[-1]
    summary = json.loads((tmp_path / 'run/summary.json').read_text())
    assert summary['people'] == 12 and summary['val_ap50'] == pytest.approx(rows[-1]['val_ap50'])
    assert all((tmp_path / 'run' / name).stat().st_size > 2000 for name in ('validation.png', 'curves.png'))
    finder = PersonFinder(f'local-dir:{tmp_path / "run/model"}', min_score=0.0)
    assert finder.size == (96, 96) and len(finder(squares / 'images/train_0.png')[0]) > 0
    with pytest.raises(UserError, match='leave teacher out'):
        train(load_config({**values, 'out': str(tmp_path / 'y'), 'teacher': {'model': 'widehrnet_10'}}), progress=False)
