import json

import numpy as np
import pytest
import torch
from PIL import Image
from small_model import SMALL
from test_box_maps import maps_of

from widehrnet_zoo.cli.main import main
from widehrnet_zoo.detection.finder import PersonFinder, input_shape, letterbox
from widehrnet_zoo.detection.protocol import find_people
from widehrnet_zoo.errors import UserError
from widehrnet_zoo.inference.estimator import PoseEstimator
from widehrnet_zoo.models.registry import create_model
from widehrnet_zoo.pose.box_maps import NUM_MAPS, PERSON_BOXES, flip_maps


class Scripted(torch.nn.Module):
    """A finder whose maps are given, and turned for the second half of a batch, which is the first one mirrored."""

    def __init__(self, maps, size):
        super().__init__()
        self.maps, self.skeleton = maps, PERSON_BOXES
        self.pretrained_cfg = {'input_size': (3, *size), 'mean': (0.5,) * 3, 'std': (0.5,) * 3}
        self.seen = None

    def forward(self, images):
        self.seen = images
        half = self.maps[: len(images) // 2]
        assert torch.equal(images[: len(half)], images[len(half) :].flip(-1))
        return torch.cat((half, flip_maps(half)))


def test_letterbox_keeps_proportions_and_says_where_the_photo_lies():
    image = np.full((100, 50, 3), 200, np.uint8)
    canvas, (scale, left, top) = letterbox(image, (64, 96))
    assert canvas.shape == (64, 96, 3) and scale == pytest.approx(0.64) and (left, top) == (32, 0)
    assert (canvas[:, 32:64] == 200).all() and not canvas[:, :32].any() and not canvas[:, 64:].any()
    small = np.arange(20 * 30 * 3, dtype=np.uint8).reshape(20, 30, 3)
    same, _ = letterbox(small, (20, 40))
    assert (same[:, 5:35] == small).all()


def test_boxes_come_back_in_the_pixels_of_photos_of_any_size():
    # in an input of 64 x 96, a photo of 200 x 100 (height, width) lies at x 32..64, scale 0.32
    first = maps_of([[40.0, 8, 56, 40]], [(5, 11)], [0.8], (16, 24))
    other = maps_of([[10.0, 4, 30, 60], [-20, -5, 20, 30]], [(6, 4), (2, 1)], [0.5, 0.9], (16, 24))
    module = Scripted(torch.cat((first, other)), (64, 96))
    finder = PersonFinder(module, size=(64, 96), flip_test=True)
    tall, wide = np.full((200, 100, 3), 255, np.uint8), np.zeros((64, 96, 3), np.uint8)
    (boxes, scores), (others, their) = finder.find([tall, wide])
    assert boxes == pytest.approx(np.array([[25, 25, 75, 125]]), abs=0.01) and scores == pytest.approx([0.8])
    assert others == pytest.approx(np.array([[0, 0, 20, 30], [10, 4, 30, 60]]), abs=0.01)
    assert their == pytest.approx([0.9, 0.5], abs=1e-5)
    assert module.seen[0, 0, 0, 40] == pytest.approx(1) and module.seen[0, 0, 0, 0] == pytest.approx(-1)
    assert len(PersonFinder(module, size=(64, 96), min_score=0.85, flip_test=True)(tall)[0]) == 0
    one = PersonFinder(module, size=(64, 96), max_people=1, flip_test=True)
    assert one.find([tall, wide])[1][1] == pytest.approx([0.9], abs=1e-5)
    assert finder.find([]) == []
    # it is a detector like any other
    assert find_people(finder, tall)[0] == pytest.approx(boxes)


def test_the_input_has_the_shape_of_the_photo():
    for photo, shape in [((640, 480), (288, 352)), ((480, 640), (352, 288)), ((640, 427), (256, 384))]:
        assert input_shape(*photo, (320, 320)) == shape
    assert [input_shape(*p, (320, 320)) for p in ((9, 9), (100, 1), (1, 999))] == [(320, 320), (32, 3200), (3200, 32)]
    assert input_shape(1920, 1080, (256, 192)) == (160, 288)
    # photos come back in their order, though those of one shape go through the network together
    shapes = []

    class Square(torch.nn.Module):
        """Finds one person, who fills the input."""

        skeleton, pretrained_cfg = PERSON_BOXES, {'input_size': (3, 64, 64), 'mean': (0.5,) * 3, 'std': (0.5,) * 3}

        def forward(self, images):
            count, _, height, width = images.shape
            shapes.append((count, height, width))
            maps = maps_of([[0.0, 0, width, height]], [(height // 8, width // 8)], [0.9], (height // 4, width // 4))
            return maps.expand(count, -1, -1, -1)

    photos = [np.zeros((*size, 3), np.uint8) for size in ((30, 60), (60, 30), (40, 80), (50, 50))]
    found = PersonFinder(Square()).find(photos)
    assert sorted(shapes) == [(1, 64, 64), (1, 128, 32), (2, 32, 128)]
    for photo, (boxes, _) in zip(photos, found, strict=True):
        assert boxes == pytest.approx(np.array([[0, 0, photo.shape[1], photo.shape[0]]]), abs=0.5)


@pytest.mark.parametrize('size', [(20, 20), (12, 120), (1, 1)])
def test_odd_photos_do_no_harm(size):
    finder = PersonFinder(Scripted(torch.zeros(1, NUM_MAPS, 16, 16), (64, 64)), flip_test=True)
    boxes, scores = finder(np.zeros((*size, 3), np.uint8))
    assert boxes.shape == (len(scores), 4)


def test_finders_and_pose_models_are_told_apart():
    finder = create_model('widehrnet_10_attn.person_320x320')
    assert finder.num_classes == NUM_MAPS and create_model('widehrnet_10_attn').num_classes == 17
    with pytest.raises(UserError, match='finds people, not keypoints'):
        PoseEstimator(finder)
    with pytest.raises(UserError, match='expected a person finder'):
        PersonFinder(create_model('widehrnet_10'))
    with pytest.raises(UserError, match='multiples of 32'):
        PersonFinder(finder, size=(300, 300))
    assert PersonFinder(finder).size == (320, 320)
    # NumPy has no bfloat16
    boxes, scores = PersonFinder(finder, size=(64, 64), bf16=True, engine='eager')(np.zeros((50, 50, 3), np.uint8))
    assert boxes.dtype == scores.dtype == np.float32


@pytest.fixture
def labelled(tmp_path):
    """Two photos with three people who count, one too small and a crowd, and boxes that were found."""
    images = [{'id': 1, 'file_name': 'a.png', 'width': 300, 'height': 400}, {'id': 2, 'file_name': 'b.png'}]
    images[1].update(width=300, height=200)
    people = [(1, [10, 10, 100, 300], 0), (1, [150, 20, 100, 200], 0), (1, [5, 5, 10, 30], 0)]
    people += [(2, [0, 0, 60, 100], 0), (2, [100, 0, 200, 200], 1)]
    annotations = [
        {'id': i, 'image_id': image, 'category_id': 1, 'bbox': box, 'iscrowd': crowd}
        for i, (image, box, crowd) in enumerate(people)
    ]
    labels = {'images': images, 'annotations': annotations, 'categories': [{'id': 1, 'name': 'person'}]}
    (tmp_path / 'labels.json').write_text(json.dumps(labels))
    for image in images:
        Image.new('RGB', (image['width'], image['height'])).save(tmp_path / image['file_name'])
    # two of three found, one of them loosely; a false one; one in the crowd and one on the small person: neither counts
    found = [(1, [12, 10, 100, 300], 0.9), (1, [250, 300, 40, 90], 0.8), (2, [0, 0, 60, 60], 0.7)]
    found += [(2, [120, 0, 50, 150], 0.95), (1, [5, 5, 10, 30], 0.99)]
    results = [{'image_id': i, 'category_id': 1, 'bbox': box, 'score': score} for i, box, score in found]
    (tmp_path / 'found.json').write_text(json.dumps(results))
    return tmp_path


def test_eval_of_boxes_counts_as_coco_does(labelled, capsys):
    pytest.importorskip('pycocotools')
    command = ['eval', '--protocol', 'boxes', '--data', str(labelled / 'labels.json'), '--quiet']
    assert main([*command, '--results', str(labelled / 'found.json'), '--out', str(labelled / 'out')]) == 0
    figures = json.loads((labelled / 'out/report.json').read_text())['figures']
    # precision is 1 to a recall of 1/3, then 2/3 to a recall of 2/3, over 101 recalls
    assert figures['AP50'] == pytest.approx((34 * 1 + 33 * 2 / 3) / 101)
    assert figures['AP75'] == pytest.approx(34 / 101)
    assert figures['best F1'] == pytest.approx(2 / 3, abs=0.005)
    assert figures['score at best F1'] == pytest.approx(0.7)
    assert '| AP50' in capsys.readouterr().out
    assert json.loads((labelled / 'out/results.json').read_text())[0]['bbox'] == [12, 10, 100, 300]


def test_eval_of_boxes_runs_a_finder(labelled, capsys, monkeypatch):
    pytest.importorskip('pycocotools')
    # input 96 x 96: photo a (300 x 400) at scale 0.24, x shifted by 12
    box = [12 + 10 * 0.24, 10 * 0.24, 12 + 110 * 0.24, 310 * 0.24]
    maps = maps_of([box], [(8, 6)], [0.6], (24, 24))
    module = Scripted(torch.cat((maps, torch.full_like(maps, -9.0))), (96, 96))
    monkeypatch.setattr('widehrnet_zoo.detection.finder.open_backend', lambda *_: _backend(module))
    command = ['eval', '--protocol', 'boxes', '--data', str(labelled / 'labels.json'), '--images', str(labelled)]
    command += ['--flip-test', '--size', '96', '96']
    assert main([*command, '--out', str(labelled / 'out'), '--quiet']) == 0
    (found,) = json.loads((labelled / 'out/results.json').read_text())
    assert found['image_id'] == 1 and found['bbox'] == pytest.approx([10, 10, 100, 300], abs=0.05)
    assert json.loads((labelled / 'out/report.json').read_text())['figures']['AP50'] == pytest.approx(34 / 101)
    # of two photos of nobody the finder takes one for the person that it has found before
    content = json.loads((labelled / 'labels.json').read_text())
    (labelled / 'labels.json').write_text(json.dumps({**content, 'annotations': []}))
    assert main([*command, '--quiet']) == 0
    assert '| photos of nobody with a box of 0.11 or more | 50.00 |' in capsys.readouterr().out
    assert main([*command, '--boxes', 'x.json']) != 0
    assert 'for keypoints' in capsys.readouterr().err


def _backend(module):
    from widehrnet_zoo.engines.pytorch import TorchBackend

    return TorchBackend(module)


def test_the_shipped_scorer_agrees_with_the_reference(shared, tmp_path):
    pytest.importorskip('pycocotools')
    import subprocess
    import sys

    from widehrnet_zoo.evaluation.boxes import evaluate_boxes

    data = shared / 'everyday/val.json'
    random, results = np.random.default_rng(0), []
    for annotation in json.loads(data.read_text())['annotations']:
        x, y, w, h = annotation['bbox']
        dx, dy = random.normal(0, 0.12, 2) * (w, h)
        moved = [x + dx, y + dy, w * random.uniform(0.8, 1.2), h]
        results.append({'image_id': annotation['image_id'], 'category_id': 1, 'bbox': moved, 'score': random.random()})
    (tmp_path / 'results.json').write_text(json.dumps(results))
    command = [sys.executable, str(shared / 'everyday/score_boxes.py'), str(data), str(tmp_path / 'results.json')]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    figures = evaluate_boxes(data, results=tmp_path / 'results.json', progress=False).figures
    assert f'AP {figures["AP"]:.3f} AP50 {figures["AP50"]:.3f} AR100 {figures["AR"]:.3f}' in said
    assert f'best F1 {figures["best F1"]:.3f}' in said


@pytest.mark.parametrize(
    'suffix', ['.onnx', '.torchscript', *(pytest.param(s, marks=pytest.mark.slow) for s in ('.xml', '.pt2'))]
)
def test_exported_finders_find_the_same_with_the_suppression_in_the_file(suffix, tmp_path, enliven):
    for module in ('onnx', 'onnxruntime', 'openvino'):
        pytest.importorskip(module)
    from widehrnet_zoo.engines.exported import open_backend
    from widehrnet_zoo.export.export import export

    model = enliven(create_model('widehrnet_10.untrained', num_classes=NUM_MAPS, **SMALL).eval())
    model.skeleton = PERSON_BOXES
    with torch.no_grad():
        # boxes about a tenth of the photo, scores on both sides of the threshold
        model.classifier.weight *= 0.1
        model.classifier.weight[0] *= 15
        model.classifier.bias[0] -= 1
    path = tmp_path / f'finder{suffix}'
    assert export(model, path, size=(64, 96)) < (0.1 if suffix != '.pt2' else 1e-3)
    assert open_backend(path).metadata.pipeline == (suffix != '.pt2')
    images = [np.random.default_rng(i).integers(0, 256, (50, 70 + i, 3), np.uint8) for i in range(3)]
    size: tuple[int, int] | None = (64, 96)
    if suffix in ('.onnx', '.xml'):  # inputs of the photos' shapes
        model.pretrained_cfg = {**model.pretrained_cfg, 'input_size': (3, *size)}
        size, images = None, [*images, images[0].swapaxes(0, 1), images[1][:20]]
    wanted = PersonFinder(model, size=size, min_score=0.2).find(images)
    assert min(len(scores) for _, scores in wanted) > 3
    found = PersonFinder(path, min_score=0.2).find(images)
    for (boxes, scores), (others, their) in zip(wanted, found, strict=True):
        assert scores == pytest.approx(their, abs=1e-4) and boxes == pytest.approx(others, abs=0.05)
    if suffix != '.pt2':
        with torch.no_grad():
            model.classifier.bias[0] -= 90  # nobody at all
        assert export(model, tmp_path / f'nobody{suffix}', size=(64, 96)) == 0
        assert len(PersonFinder(tmp_path / f'nobody{suffix}')(images[0])[0]) == 0
