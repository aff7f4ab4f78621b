"""Every way into the package for a file of others, with inputs for it and what must hold for whatever is accepted.

An input is always the content of a file. A door either gives something valid and finite or raises `UserError`;
anything else that it raises, a wrong result, or more than `LIMIT_S` seconds is a finding.
"""

import contextlib
import functools
import io
import json
import signal
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
import yaml
from mutations import bytes_input, json_input, mend_png, mutate_bytes, mutate_json, pth_input, safetensors_input
from PIL import Image

from widehrnet_zoo.errors import UserError

LIMIT_S = 60
"""Seconds after which an input counts as a hang; the machine may be busy."""

NAMES = ['nose', 'left_eye', 'right_eye']
KITE = {'name': 'kite', 'keypoints': NAMES, 'flip_pairs': [[1, 2]], 'bones': [[0, 1]], 'sigmas': [0.1, 0.1, 0.1]}
POINTS = [5.0, 6.0, 2, 7, 8, 1, 0, 0, 0]


class Hang(BaseException):
    """An input took too long; no `except Exception` on the way may take it for one of its own."""


@dataclass(frozen=True)
class Door:
    """A way in.

    Attributes:
        name: What it is called in the figures.
        make: Random numbers to the content of a file.
        enter: Content and an empty folder; raises `AssertionError` where something wrong was accepted.
        examples: Inputs in the quick run.
    """

    name: str
    make: Callable[[Random], bytes]
    enter: Callable[[bytes, Path], None]
    examples: int = 40

    def knock(self, content: bytes, folder: Path) -> bool:
        """Try an input.

        Returns:
            Whether it was accepted.

        Raises:
            Exception: What the door should not have let out.
        """

        def stop(number: int, frame: object) -> None:
            raise Hang(f'no answer after {LIMIT_S} s')

        before = signal.signal(signal.SIGALRM, stop)
        signal.alarm(LIMIT_S)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')
                self.enter(content, folder)
        except UserError as error:
            said = str(error)
            assert said and 'Traceback' not in said, f'no sentence: {said!r}'
            return False
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)
        return True


DOORS: dict[str, Door] = {}


def door(name: str, make: Callable[[Random], bytes], examples: int = 40) -> Callable[[Any], Any]:
    def add(enter: Callable[[bytes, Path], None]) -> Callable[[bytes, Path], None]:
        DOORS[name] = Door(name, make, enter, examples)
        return enter

    return add


def later(make: Callable[[], Callable[[Random], bytes]]) -> Callable[[Random], bytes]:
    """Inputs whose valid seed is made at the first use."""
    made = functools.cache(make)
    return lambda random: made()(random)


def put(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


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
    from widehrnet_zoo.images import read_image

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


def finite(*arrays: Any) -> None:
    for array in arrays:
        assert np.isfinite(np.asarray(array, float)).all(), 'accepted what is not finite'


@door('labels: COCO, to evaluate', json_input(COCO))
def labels(content: bytes, folder: Path) -> None:
    from widehrnet_zoo.crops import box_views
    from widehrnet_zoo.evaluation.labels import labelled_boxes, read_labels

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
    from widehrnet_zoo.crops import box_views
    from widehrnet_zoo.evaluation.mpii import read_annotations
    from widehrnet_zoo.training.people import read_people

    path = put(folder, 'labels.json', content)
    samples = read_annotations(path, folder)
    finite(box_views(samples.boxes, (64, 64), 1.0))
    read = read_people(path)
    finite(read.boxes, read.keypoints)


@door('detections', json_input(DETECTIONS))
def detections(content: bytes, folder: Path) -> None:
    from widehrnet_zoo.crops import box_views
    from widehrnet_zoo.evaluation.labels import detected_boxes, read_labels

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
    from widehrnet_zoo.crops import box_views, check_boxes
    from widehrnet_zoo.detection import BoxFile

    file = BoxFile(put(folder, 'boxes.json', content))
    rows, scores = file.of_photo('in/a.jpg' if file.knows('a.jpg') else '000001.jpg')
    finite(rows, scores, box_views(check_boxes(rows, (40, 30)), (64, 64)))
    assert len(rows) == len(scores)


# ------------------------------------------------------------------------------------------- results and other formats


@functools.cache
def result() -> Any:
    from widehrnet_zoo.results import PoseResult
    from widehrnet_zoo.skeletons import Skeleton

    return PoseResult(
        np.array([[[1, 2], [3, 4], [5, 6]]] * 2), np.full((2, 3), 0.5), np.array([[0, 1, 9, 8]] * 2), np.ones(2),
        Skeleton.from_dict(KITE), (40, 30), 'a.jpg',
    )  # fmt: skip


@door('results, read back', later(lambda: json_input(result().to_dict())))
def read_back(content: bytes, folder: Path) -> None:
    from widehrnet_zoo.results import PoseResult

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
    from widehrnet_zoo.interchange import read_csv

    for read in read_csv(put(folder, 'table.csv', content), image_size=(40, 30)):
        assert not np.isinf(read.keypoints).any() and len(read)


def csv_seeds() -> list[bytes]:
    import tempfile

    from widehrnet_zoo.interchange import write_csv

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'x.csv'
        seeds = []
        for more in (False, True):
            write_csv([result()], path, boxes=more)
            seeds.append(path.read_bytes())
    return seeds


@door('predictions: MMPose', later(lambda: json_input(_mmpose())))
def mmpose(content: bytes, folder: Path) -> None:
    from widehrnet_zoo.interchange import read_mmpose

    for read in read_mmpose(put(folder, 'x.json', content), result().skeleton, (40, 30)):
        finite(read.keypoints, read.scores)


def _mmpose() -> Any:
    from widehrnet_zoo.interchange import to_mmpose

    return to_mmpose(result())


# --------------------------------------------------------------------------------------------- skeletons and recipes


def same_numbers(read: Any, given: Any) -> bool:
    """Whether numbers were taken as they were given, none cut to whole ones."""
    return all(float(a) == float(b) for x, y in zip(read, given, strict=True) for a, b in zip(x, y, strict=True))


@door('skeletons', json_input(KITE))
def skeleton(content: bytes, folder: Path) -> None:
    from widehrnet_zoo.skeletons import Skeleton, read_skeleton

    kind, parse = ('json', json.loads) if content[-1:] == b'}' else ('yaml', yaml.safe_load)
    read = read_skeleton(str(put(folder, f'skeleton.{kind}', content)))
    assert Skeleton.from_dict(json.loads(json.dumps(read.to_dict()))) == read
    assert sorted(read.flip_order) == list(range(read.num_keypoints))
    finite(read.sigmas or ())
    given = parse(content)
    assert same_numbers(read.flip_pairs, given.get('flip_pairs') or ()), 'flip pairs were changed'
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
    from widehrnet_zoo.training.config import load_config

    config = load_config(put(folder, 'recipe.yaml', content))
    json.dumps(config.to_dict())
    assert all(side % 32 == 0 for side in config.size) and config.lr > 0 and config.sigma > 0


# ---------------------------------------------------------------------------------------------------------- weights

SMALL = {'channels': (8, 16), 'num_modules': (1,), 'stem_width': 8}


@functools.cache
def small() -> Any:
    from widehrnet_zoo.models.registry import create_model

    torch.manual_seed(0)
    model = create_model('widehrnet_10', num_classes=3, **SMALL).eval()
    for key, value in model.state_dict().items():
        if value.is_floating_point() and not key.endswith('running_var'):
            value.normal_(std=0.2)
    return model


@functools.cache
def photo() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)


def estimates(estimator: Any) -> None:
    found = estimator(photo(), boxes=[[1, 1, 30, 38]])
    finite(found.keypoints, found.scores)


def small_safetensors() -> Callable[[Random], bytes]:
    from safetensors.torch import save

    return safetensors_input(save(small().state_dict(), {'format': 'pt'}))


@door('weights: safetensors', later(small_safetensors), 25)
def safetensors(content: bytes, folder: Path) -> None:
    from widehrnet_zoo.estimator import PoseEstimator

    estimates(PoseEstimator(weights=put(folder, 'x_64x64.safetensors', content), device='cpu', size=(64, 64)))


def official_state() -> dict[str, torch.Tensor]:
    """The small network's weights under the official names."""
    import re

    from test_convert import official_name

    return {re.sub(r'\s', '', official_name(name, False)): value for name, value in small().state_dict().items()}


@door('weights: official .pth', later(lambda: pth_input(official_state())), 15)
def pth(content: bytes, folder: Path) -> None:
    import timm

    from widehrnet_zoo.convert import convert_checkpoint
    from widehrnet_zoo.estimator import PoseEstimator

    path = put(folder, 'x_64x64.pth', content)
    before = sorted(p.name for p in folder.iterdir())
    try:
        convert_checkpoint(path, folder / 'converted')
    except UserError:
        assert sorted(p.name for p in folder.iterdir()) == before, 'a refused file left something behind'
        raise
    model = timm.create_model(f'local-dir:{folder / "converted"}', pretrained=True)
    estimates(PoseEstimator(model, device='cpu', size=(64, 64)))


@functools.cache
def saved_small() -> tuple[bytes, dict[str, Any]]:
    import tempfile

    from widehrnet_zoo.hub import save_pretrained

    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(small(), Path(folder) / 'm', size=(64, 64))
        config = json.loads((Path(folder) / 'm' / 'config.json').read_text())
        return (Path(folder) / 'm' / 'model.safetensors').read_bytes(), config


@door('config.json of a model', later(lambda: json_input(saved_small()[1])), 20)
def config(content: bytes, folder: Path) -> None:
    from widehrnet_zoo.estimator import PoseEstimator

    put(folder, 'config.json', content)
    put(folder, 'model.safetensors', saved_small()[0])
    estimator = PoseEstimator(f'local-dir:{folder}', device='cpu')
    if max(estimator.size) > 4096:
        raise UserError('allowed, and too large to run here')
    estimates(estimator)


def header_seed() -> dict[str, Any]:
    from widehrnet_zoo.deployment.metadata import ExportMetadata
    from widehrnet_zoo.skeletons import Skeleton

    values = ExportMetadata('x', Skeleton.from_dict(KITE), (64, 64), (0.5, 0.5, 0.5), (0.2, 0.2, 0.2)).to_json()
    return json.loads(values)


@door('header of an exported file', later(lambda: json_input(header_seed())))
def header(content: bytes, folder: Path) -> None:
    from widehrnet_zoo.deployment.metadata import ExportMetadata
    from widehrnet_zoo.estimator import PoseEstimator

    read = ExportMetadata.from_json(content.decode('utf-8', 'replace'), 'x.onnx')
    finite(read.mean, read.std)
    assert isinstance(read.pipeline, bool) and read.precision in ('f32', 'bf16', 'int8') and isinstance(read.name, str)
    shape = (read.skeleton.num_keypoints, read.size[0] // 4, read.size[1] // 4)

    class Backend:
        skeleton, size, mean, std = read.skeleton, read.size, read.mean, read.std

        def __call__(self, images: Any) -> Any:
            finite(images)
            return np.ones((len(images), *shape), np.float32)

    if max(read.size) > 4096:
        raise UserError('allowed, and too large to run here')
    estimates(PoseEstimator(backend=Backend()))


# ------------------------------------------------------------------------------------------- what runs leave behind


def run_seed() -> dict[str, Any]:
    return {'model': 'x', 'labels': 'y', 'samples': 4}


@door('predictions of an interrupted evaluation', lambda random: store_input()(random))
def store(content: bytes, folder: Path) -> None:
    from widehrnet_zoo.evaluation.store import PredictionStore

    made = PredictionStore(folder / 's', {'model': 'x'}, 4)
    put(folder / 's', 'part-0000000-2.npz', content)
    keypoints, done = made.load(3)
    assert keypoints.shape == (4, 3, 3) and done.shape == (4,)
    finite(keypoints[done])


@functools.cache
def store_input() -> Callable[[Random], bytes]:
    def npz(**arrays: Any) -> bytes:
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        return buffer.getvalue()

    good = np.zeros((2, 3, 3), np.float32)
    return bytes_input(
        npz(rows=np.arange(2), keypoints=good),
        npz(rows=np.array([9, 1]), keypoints=good),
        npz(rows=np.arange(2), keypoints=good[:1, :2]),
        npz(rows=np.array([0.5, 1]), keypoints=good),
        npz(rows=np.array(['a', 'b']), keypoints=good),
        npz(rows=np.arange(2), keypoints=good * np.nan),
        npz(rows=np.array([-1, -2]), keypoints=good),
        npz(rows=np.arange(2)),
    )


@door('stamp of an interrupted evaluation', json_input({'model': 'x', 'samples': 4}))
def stamp(content: bytes, folder: Path) -> None:
    from widehrnet_zoo.evaluation.store import PredictionStore

    (folder / 's').mkdir()
    put(folder / 's', 'run.json', content)
    PredictionStore(folder / 's', {'model': 'x'}, 4)


STATE = {
    'step': 3,
    'epoch': 0.5,
    'optimizer': {
        'scalars': {'0.momentum': 0.5},
        'groups': [{'lr': 0.1, 'params': [0], 'betas': [0.9, 0.99]}],
    },
}


@door('state of an interrupted training', json_input(STATE))
def state(content: bytes, folder: Path) -> None:
    from safetensors.torch import save_file

    from widehrnet_zoo.training.state import load_checkpoint

    put(folder, 'state.json', content)
    for name in ('model', 'ema', 'optimizer'):
        save_file({'0.step': torch.zeros(1)}, folder / f'{name}.safetensors')
    step = load_checkpoint(folder)['step']
    assert isinstance(step, int) and step >= 0


# ------------------------------------------------------------------------------------------------------ command line


@contextlib.contextmanager
def quiet() -> Iterator[tuple[io.StringIO, io.StringIO]]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield out, err


def command_input() -> Callable[[Random], bytes]:
    values = (
        '0',
        '-1',
        '1',
        '2',
        '99999999999',
        '0.5',
        'nan',
        'inf',
        '-inf',
        '1e400',
        '',
        'x',
        '..',
        '/',
        '\u0663',
        "'",
    )
    files = (
        'photo.png',
        'labels.json',
        'boxes.json',
        'results.json',
        'recipe.yaml',
        'broken.jpg',
        'none',
        '.',
        'x.pth',
    )
    seeds = (
        ['predict', 'photo.png', '--out', 'out', '--weights', 'small.safetensors', '--quiet'],
        ['predict', 'photo.png', 'broken.jpg', '--out', 'out', '--model', 'small', '--boxes', '1,2,30,25', '--quiet'],
        ['predict', '.', '--out', 'out', '--model', 'small', '--boxes', 'boxes.json', '--quiet', '--no-picture'],
        ['eval', '--data', 'labels.json', '--results', 'results.json', '--protocol', 'pck', '--quiet'],
        ['eval', '--data', 'labels.json', '--images', '.', '--model', 'small', '--protocol', 'pck', '--quiet'],
        ['eval', '--data', 'labels.json', '--results', 'results.json', '--protocol', 'coco', '--quiet'],
        ['convert', 'x.pth', 'out'],
        ['info', 'local-dir:small'],
        ['train', 'recipe.yaml', '--show'],
        ['train', 'finetune', '--labels', 'labels.json', '--images', '.', '--set', 'lr=1e-3', '--show'],
        ['export', 'small', '--format', 'onnx', '--out', 'out'],
    )
    options = (
        ['--threshold'], ['--batch-size'], ['--decoder'], ['--boxes'], ['--weights'], ['--model'], ['--padding'],
        ['--nms'], ['--min-box-score'], ['--bootstrap'], ['--worst'], ['--by-joint'], ['--size', '64'],
        ['--skeleton'], ['--set'],
        ['--device'], ['--flip-test'], ['--bf16'], ['--lr'], ['--epochs'], ['--seed'], ['--out'],
    )  # fmt: skip

    def make(random: Random) -> bytes:
        command = list(random.choice(seeds))
        for _ in range(random.choice((0, 1, 1, 2, 3))):
            at = random.randrange(1, len(command) + 1)
            match random.randrange(4):
                case 0:
                    command[at - 1 + (at == 1) : at] = [random.choice(values + files)]
                case 1:
                    command[at:at] = [*random.choice(options), random.choice(values + files)]
                case 2:
                    command.append(random.choice(random.choice(options)))
                case 3:
                    command.insert(at, random.choice(values + files))
        # these would start a training
        command += ['--show'] * (command[0] == 'train' and '--show' not in command)
        damaged = random.choice((None, None, *files[:6]))
        mutated = b''
        if damaged is not None:
            mutated = mutate_bytes(random, cli_files()[damaged])
        return json.dumps({'command': command, 'damaged': damaged, 'content': mutated.hex()}).encode()

    return make


@functools.cache
def cli_files() -> dict[str, bytes]:
    from widehrnet_zoo.training.config import CONFIGS

    buffer = io.BytesIO()
    Image.fromarray(photo()).save(buffer, 'PNG')
    return {
        'photo.png': buffer.getvalue(),
        'broken.jpg': b'no photo',
        'labels.json': json.dumps(COCO).encode(),
        'results.json': json.dumps(RESULTS).encode(),
        'boxes.json': json.dumps({'photo.png': BOXES['a.jpg']}).encode(),
        'recipe.yaml': (CONFIGS / 'finetune.yaml').read_bytes(),
        'x.pth': b'no checkpoint',
    }


@door('command line', later(command_input), 15)
def command(content: bytes, folder: Path) -> None:
    import os

    from widehrnet_zoo.cli.main import main

    given = json.loads(content)
    for name, data in cli_files().items():
        put(folder, name, data)
    if given['damaged']:
        put(folder, given['damaged'], bytes.fromhex(given['content']))
    (folder / 'small').mkdir()
    put(folder / 'small', 'model.safetensors', saved_small()[0])
    put(folder / 'small', 'config.json', json.dumps(saved_small()[1]).encode())
    put(folder, 'small.safetensors', saved_small()[0])
    kept = {path: path.read_bytes() for path in folder.rglob('*') if path.is_file()}
    here = Path.cwd()
    os.chdir(folder)
    try:
        with quiet() as (_, err):
            try:
                code = main(given['command'])
            except SystemExit as stop:
                code = stop.code
    finally:
        os.chdir(here)
    said = err.getvalue()
    assert code in (0, 1, 2), f'exit code {code}: {said}'
    assert 'Traceback' not in said and 'unexpected' not in said, said[-600:]
    assert code == 0 or said.strip(), 'failed without a word'
    for path, data in kept.items():
        assert path.read_bytes() == data, f'{path.name} was changed'
    if code:
        raise UserError(said.strip().splitlines()[-1])
