"""Doors for pictures, label files, results and recipes."""

import contextlib
import functools
import io
import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import yaml
from doors import KITE, NAMES, POINTS, door, finite, later, put
from mutations import bytes_input, json_input, mend_png, mutate_bytes, mutate_json
from PIL import Image

from widehrnet_zoo.errors import UserError

# ---------------------------------------------------------------------------------------------------------- images


def photos() -> list[bytes]:
    random = np.random.default_rng(0)
    rgb = Image.fromarray(random.integers(0, 256, (9, 13, 3), np.uint8))
    alpha = Image.fromarray(random.integers(0, 256, (9, 13, 4), np.uint8))
    grey16 = Image.fromarray(random.integers(0, 65536, (9, 13), np.uint16))
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = 'a photo'
    kinds: list[tuple[Image.Image, str, dict[str, Any]]] = [
        (rgb, 'PNG', {'exif': exif, 'icc_profile': b'\0' * 40}),
        (rgb.quantize(5), 'PNG', {'transparency': 1}),
        (alpha, 'PNG', {}),
        (grey16, 'PNG', {}),
        (rgb, 'PNG', {'save_all': True, 'append_images': [rgb.rotate(90)]}),
        (rgb, 'JPEG', {'exif': exif}),
        (rgb, 'JPEG', {'progressive': True}),
        (rgb.convert('CMYK'), 'JPEG', {}),
        (rgb, 'MPO', {'save_all': True, 'append_images': [rgb]}),
        (rgb.quantize(7), 'GIF', {'save_all': True, 'append_images': [rgb.quantize(3)], 'transparency': 2}),
        (rgb, 'TIFF', {'compression': 'tiff_lzw', 'exif': exif}),
        (grey16, 'TIFF', {}),
        (rgb.convert('F'), 'TIFF', {}),
        (rgb.convert('1'), 'TIFF', {'compression': 'group4'}),
        (rgb, 'WEBP', {'exif': exif}),
        (alpha, 'WEBP', {'lossless': True, 'save_all': True, 'append_images': [alpha]}),
        (rgb, 'BMP', {}),
        (rgb, 'PPM', {}),
        (alpha, 'TGA', {'compression': 'tga_rle'}),
        (rgb, 'JPEG2000', {}),
        (rgb, 'AVIF', {}),
        (alpha, 'ICO', {}),
        (rgb, 'EPS', {}),
        (rgb, 'PCX', {}),
        (rgb, 'SGI', {}),
        (alpha, 'DDS', {}),
        (rgb.convert('L'), 'IM', {}),
    ]
    found = []
    for image, kind, options in kinds:
        buffer = io.BytesIO()
        with contextlib.suppress(OSError, KeyError):  # a Pillow that was built without the codec
            image.save(buffer, kind, **options)
            found.append(buffer.getvalue())
    return found


@door('images', bytes_input(*photos(), mend=mend_png), 150)
def images(content: bytes, folder: Path) -> None:
    from widehrnet_zoo.pose.images import read_image

    image = read_image(content, max_pixels=100_000)
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size
    assert image.shape[0] * image.shape[1] <= 100_000


# ------------------------------------------------------------------------------------------------------ label files

COCO = {
    'images': [
        {'id': 1, 'file_name': 'a.jpg', 'width': 40, 'height': 30},
        {'id': 2, 'file_name': 'b.jpg', 'width': 40, 'height': 30},
    ],
    'annotations': [
        {
            'id': i,
            'image_id': 1 + i % 2,
            'category_id': 1,
            'keypoints': POINTS,
            'num_keypoints': 2,
            'bbox': [1, 2, 20, 25],
            'area': 500,
            'iscrowd': 0,
            'teacher': POINTS,
        }
        for i in (10, 11, 12)
    ],
    'categories': [{'id': 1, 'name': 'kite', 'keypoints': NAMES, 'skeleton': [[1, 2]], 'flip_pairs': [[1, 2]]}],
}
MPII = [
    {'image': 'a.jpg', 'center': [20.0, 15.0], 'scale': 0.2, 'joints': [[3.0, 4.0]] * 16, 'joints_vis': [1] * 16},
    {'image': 'b.jpg', 'center': [-1, -1], 'scale': 0.5, 'joints': [[9, 9]] * 16, 'joints_vis': [0, 1] * 8},
]
DETECTIONS = [
    {'image_id': 1, 'category_id': 1, 'bbox': [1, 2, 20, 25], 'score': 0.9},
    {'image_id': 2, 'category_id': 1, 'bbox': [3.5, 2, 8, 9], 'score': 0.4},
]
RESULTS = [
    {'image_id': 1 + i % 2, 'category_id': 1, 'keypoints': POINTS, 'score': 0.5 + i / 10, 'ann': 10 + i}
    for i in range(3)
]
BOXES = {'a.jpg': [[1, 2, 30, 25, 0.9], [0, 0, 9, 9]], 'b.jpg': []}


@door('labels: COCO, to evaluate', json_input(COCO))
def labels(content: bytes, folder: Path) -> None:
    from widehrnet_zoo.formats.coco import labelled_boxes, read_labels
    from widehrnet_zoo.pose.crops import box_views

    read = read_labels(put(folder, 'labels.json', content))
    finite(read.keypoints(read.people))
    refused = 0
    for clip in (True, False):
        try:
            samples = labelled_boxes(read, folder, clip)
        except UserError:
            refused += 1
            continue
        finite(box_views(samples.boxes, (64, 64)), samples.box_scores)
        assert len(samples.paths if hasattr(samples, 'paths') else samples.boxes)
    if refused == 2:
        raise UserError('refused both ways')


@door('labels: COCO, to train', json_input(COCO))
def people(content: bytes, folder: Path) -> None:
    from widehrnet_zoo.training.people import read_people

    read = read_people(put(folder, 'labels.json', content), teacher_field='teacher')
    finite(read.boxes, read.keypoints, read.teacher)
    assert (read.boxes[:, 2:] > read.boxes[:, :2]).all() and (read.keypoints[..., 2] > 0).any()
    assert read.keypoints.shape[1] == read.skeleton.num_keypoints == len(read.skeleton.flip_order)


@door('labels: MPII', json_input(MPII))
def mpii(content: bytes, folder: Path) -> None:
    from widehrnet_zoo.metrics.mpii import read_annotations
    from widehrnet_zoo.pose.crops import box_views
    from widehrnet_zoo.training.people import read_people

    path = put(folder, 'labels.json', content)
    samples = read_annotations(path, folder)
    finite(box_views(samples.boxes, (64, 64), 1.0))
    read = read_people(path)
    finite(read.boxes, read.keypoints)


@door('detections', json_input(DETECTIONS))
def detections(content: bytes, folder: Path) -> None:
    from widehrnet_zoo.formats.coco import detected_boxes, read_labels
    from widehrnet_zoo.pose.crops import box_views

    read = read_labels(put(folder, 'labels.json', json.dumps(COCO).encode()))
    samples = detected_boxes(read, folder, put(folder, 'boxes.json', content))
    finite(box_views(samples.boxes, (64, 64)), samples.box_scores)


@door('results, scored', json_input(RESULTS), 25)
def results(content: bytes, folder: Path) -> None:
    from widehrnet_zoo.evaluation.run import Protocol, evaluate

    path = put(folder, 'labels.json', json.dumps(COCO).encode())
    report = evaluate(Protocol.published('pck'), path, results=put(folder, 'results.json', content))
    assert report.table()


@door('boxes', json_input(BOXES, DETECTIONS))
def boxes(content: bytes, folder: Path) -> None:
    from widehrnet_zoo.formats.boxes import BoxFile
    from widehrnet_zoo.pose.crops import box_views, check_boxes

    file = BoxFile(put(folder, 'boxes.json', content))
    rows, scores = file.of_photo('in/a.jpg' if file.knows('a.jpg') else '000001.jpg')
    finite(rows, scores, box_views(check_boxes(rows, (40, 30)), (64, 64)))
    assert len(rows) == len(scores)


# ------------------------------------------------------------------------------------------- results and other formats


@functools.cache
def result() -> Any:
    from widehrnet_zoo.pose.results import PoseResult
    from widehrnet_zoo.pose.skeletons import Skeleton

    return PoseResult(
        np.array([[[1, 2], [3, 4], [5, 6]]] * 2), np.full((2, 3), 0.5), np.array([[0, 1, 9, 8]] * 2), np.ones(2),
        Skeleton.from_dict(KITE), (40, 30), 'a.jpg',
    )  # fmt: skip


@door('results, read back', later(lambda: json_input(result().to_dict())))
def read_back(content: bytes, folder: Path) -> None:
    from widehrnet_zoo.pose.results import PoseResult

    try:
        values = json.loads(content)
    except (ValueError, RecursionError):
        raise UserError('the caller reads the JSON') from None
    read = PoseResult.from_dict(values)
    assert PoseResult.from_dict(json.loads(read.to_json())).to_json() == read.to_json()
    assert min(read.image_size) >= 0
    np.testing.assert_array_equal(
        read.keypoints[..., 0].ravel(),
        np.array([k['x'] for p in values['people'] for k in p['keypoints']], np.float32),
    )


@door('tables: CSV', later(lambda: bytes_input(*csv_seeds())))
def table(content: bytes, folder: Path) -> None:
    from widehrnet_zoo.formats import read_csv

    for read in read_csv(put(folder, 'table.csv', content), image_size=(40, 30)):
        assert not np.isinf(read.keypoints).any() and len(read)


def csv_seeds() -> list[bytes]:
    import tempfile

    from widehrnet_zoo.formats import write_csv

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'x.csv'
        seeds = []
        for more in (False, True):
            write_csv([result()], path, boxes=more)
            seeds.append(path.read_bytes())
    return seeds


@door('predictions: MMPose', later(lambda: json_input(_mmpose())))
def mmpose(content: bytes, folder: Path) -> None:
    from widehrnet_zoo.formats import read_mmpose

    for read in read_mmpose(put(folder, 'x.json', content), result().skeleton, (40, 30)):
        finite(read.keypoints, read.scores)


def _mmpose() -> Any:
    from widehrnet_zoo.formats import to_mmpose

    return to_mmpose(result())


# --------------------------------------------------------------------------------------------- skeletons and recipes


def same_numbers(read: Any, given: Any) -> bool:
    """Whether numbers were taken as they were given, none cut to whole ones."""
    return all(float(a) == float(b) for x, y in zip(read, given, strict=True) for a, b in zip(x, y, strict=True))


@door('skeletons', json_input(KITE))
def skeleton(content: bytes, folder: Path) -> None:
    from widehrnet_zoo.pose.skeletons import Skeleton, read_skeleton

    kind, parse = ('json', json.loads) if content[-1:] == b'}' else ('yaml', yaml.safe_load)
    read = read_skeleton(str(put(folder, f'skeleton.{kind}', content)))
    assert Skeleton.from_dict(json.loads(json.dumps(read.to_dict()))) == read
    assert sorted(read.flip_order) == list(range(read.num_keypoints))
    finite(read.sigmas or ())
    given = parse(content)
    # those that are not given are found by the names
    if given.get('flip_pairs') is not None:
        assert same_numbers(read.flip_pairs, given['flip_pairs']), 'flip pairs were changed'
    assert same_numbers(read.bones, given.get('bones') or ()), 'bones were changed'


def recipe_input() -> Callable[[Random], bytes]:
    from widehrnet_zoo.training.config import TrainConfig

    values = json.loads(json.dumps(TrainConfig().to_dict()))
    laughs = b'a0: &a0 [1, 1]\n' + b''.join(b'a%d: &a%d [*a%d, *a%d]\n' % (i, i, i - 1, i - 1) for i in range(1, 60))
    texts = (
        b'model: {args: {x: &a [1, *a]}}\n', laughs + b'lr: *a59\n', laughs + b'model: {args: {x: *a59}}\n',
        b'a: &a [*a]\n', b'lr: 2021-99-99\n', b'lr: 0b\n', b'lr: !!python/object/apply:os.system [ls]\n',
        b'? [a]\n: b\n',
        b'data: &d {labels: *d}\n', b'x: &x [1,1,1]\ny: &y [*x,*x,*x]\nlr: [*y,*y,*y]\n', b'lr: 1:99:99\n',
        b'lr: .nan\n',
        b'<<: 3\n', b'lr: !!binary "=="\n', b'lr: !!int "x"\n', b'lr: !!float ""\n', b'1: 2\n', b'lr: 0x\n',
        b'lr: 9999999999999-01-01\n', b'!!set {a}\n', b'lr: !!timestamp "x"\n', b'--- 1\n--- 2\n', b'%TAG ! x\n',
    )  # fmt: skip

    def make(random: Random) -> bytes:
        if random.randrange(5) == 0:
            return mutate_bytes(random, random.choice(texts))
        if random.randrange(5) == 0:
            return random.choice(texts)
        changed = mutate_json(random, values)
        try:
            text = yaml.safe_dump(changed, allow_unicode=random.randrange(2) > 0)
        except yaml.YAMLError:
            text = str(changed)
        data = text.encode('utf-8', 'surrogatepass')
        return mutate_bytes(random, data) if random.randrange(4) == 0 else data

    return make


@door('recipes', later(recipe_input))
def recipe(content: bytes, folder: Path) -> None:
    from widehrnet_zoo.training.recipes import load_config

    config = load_config(put(folder, 'recipe.yaml', content))
    json.dumps(config.to_dict())
    assert all(side % 32 == 0 for side in config.size) and config.lr > 0 and config.sigma > 0
