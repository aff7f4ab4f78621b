"""Detectors of people behind the one protocol."""

import json
import urllib.error

import numpy as np
import pytest
import torch
from PIL import Image

from widehrnet_zoo.detection import find_people, open_detector
from widehrnet_zoo.detection.torchvision import TorchvisionDetector
from widehrnet_zoo.detection.transformers import TransformersDetector
from widehrnet_zoo.errors import UserError
from widehrnet_zoo.formats.boxes import BoxFile

IMAGE = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)


def test_any_callable_is_a_detector_and_its_boxes_are_clipped_and_sorted():
    def detector(image):
        assert image.shape == (60, 80, 3) and image.dtype == np.uint8
        return torch.tensor([[1, 2, 30, 40], [-5, 10, 200, 50], [90, 0, 99, 9], [0, 0, 9, 9]]), [0.6, 0.9, 0.9, 0.1]

    boxes, scores = find_people(detector, IMAGE, min_score=0.5)
    np.testing.assert_array_equal(boxes, [[0, 10, 80, 50], [1, 2, 30, 40]])
    np.testing.assert_allclose(scores, [0.9, 0.6])


def test_an_image_without_people_gives_no_boxes():
    boxes, scores = find_people(lambda image: ([], []), IMAGE)
    assert boxes.shape == (0, 4) and scores.shape == (0,)


@pytest.mark.parametrize(
    ('answer', 'message'),
    [
        (([[10, 20, 5, 40]], [1.0]), 'x2 >= x1'),
        (([[0, 0, 5, float('nan')]], [1.0]), 'not a finite number'),
        (([[0, 0, 5, 5]], [1.0, 0.5]), r'scores \(N,\)'),
        (([[0, 0, 5]], [1.0]), r'boxes \(N, 4\)'),
        (None, 'must give boxes and scores'),
    ],
)
def test_what_is_no_boxes_is_refused(answer, message):
    with pytest.raises(UserError, match=message):
        find_people(lambda image: answer, IMAGE)


class SaysTheseBoxes(torch.nn.Module):
    """Answers as torchvision's detectors do, and remembers what it was asked."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, images):
        self.images = images
        boxes = torch.tensor([[1.0, 2, 3, 4], [5, 6, 70, 50], [7, 8, 20, 30]])
        return [{'boxes': boxes, 'labels': torch.tensor([1, 1, 3]), 'scores': torch.tensor([0.2, 0.8, 0.9])}]


def test_a_torchvision_detector_keeps_people_above_the_threshold():
    model = SaysTheseBoxes()
    boxes, scores = find_people(TorchvisionDetector(model), IMAGE)
    np.testing.assert_array_equal(boxes, [[5, 6, 70, 50]])
    np.testing.assert_allclose(scores, [0.8])
    np.testing.assert_allclose(model.images[0].permute(1, 2, 0).numpy() * 255, IMAGE, atol=1e-4)


def test_a_real_torchvision_network_runs():
    torch.manual_seed(0)
    detector = TorchvisionDetector('ssdlite320_mobilenet_v3_large', weights=None, min_score=0.0)
    with torch.inference_mode():
        found = detector.model([torch.from_numpy(IMAGE).permute(2, 0, 1) / 255])[0]
    # random weights: the class that it finds most stands for people here
    detector.person_label = int(found['labels'].mode().values)
    boxes, scores = find_people(detector, IMAGE)
    kept = found['labels'] == detector.person_label
    assert len(boxes) == kept.sum() > 0
    np.testing.assert_allclose(scores, found['scores'][kept].sort(descending=True).values, rtol=1e-5)
    np.testing.assert_allclose(boxes[0], found['boxes'][kept][0], rtol=1e-5)


def test_torchvision_itself_is_asked_for_the_weights_with_a_progress_bar(monkeypatch):
    import torchvision

    asked = {}

    def fetch(url, **options):
        asked.update(options, url=url)
        raise urllib.error.URLError('no network')

    monkeypatch.setattr('torchvision.models._api.load_state_dict_from_url', fetch)
    with pytest.raises(UserError, match='could not get the weights of ssdlite320_mobilenet_v3_large'):
        open_detector('torchvision:ssdlite320_mobilenet_v3_large')
    weights = torchvision.models.get_model_weights('ssdlite320_mobilenet_v3_large').DEFAULT
    assert asked['url'] == weights.url and asked['progress']


def test_unknown_detectors_are_named():
    with pytest.raises(UserError, match='not a detector'):
        open_detector('yolo')
    with pytest.raises(UserError, match=r"no detector 'resnet50'.*fasterrcnn"):
        open_detector('torchvision:resnet50')
    with pytest.raises(UserError, match='no folder'):
        open_detector('local-dir:nowhere')
    with pytest.raises(UserError, match='cannot be read'):
        open_detector('nowhere.json')


def test_person_finders_open_by_name(monkeypatch):
    asked = []
    monkeypatch.setattr('widehrnet_zoo.detection.open.PersonFinder', lambda *a, **options: asked.append((*a, options)))
    monkeypatch.setattr('widehrnet_zoo.detection.open.finder_ships', lambda: True)
    open_detector('default')
    open_detector('finder:mine', 'cpu', 0.4, 'eager')
    assert asked == [
        (None, {'device': None, 'engine': 'auto'}),
        ('mine', {'device': 'cpu', 'engine': 'eager', 'min_score': 0.4}),
    ]


@pytest.fixture
def tiny_yolos(tmp_path):
    transformers = pytest.importorskip('transformers')
    torch.manual_seed(0)
    config = transformers.YolosConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=[32, 48],
        patch_size=16,
        num_detection_tokens=8,
        id2label={0: 'N/A', 1: 'Person', 2: 'cat'},
        label2id={'N/A': 0, 'Person': 1, 'cat': 2},
    )
    model = transformers.YolosForObjectDetection(config)
    # people whatever the numbers are that this version of transformers begins with
    model.class_labels_classifier.layers[-1].bias.data[1] = 5
    model.save_pretrained(tmp_path)
    transformers.YolosImageProcessor(size={'height': 32, 'width': 48}).save_pretrained(tmp_path)
    return tmp_path


def test_a_transformers_pipeline_opens_from_a_folder_and_says_what_the_pipeline_says(tiny_yolos):
    detector = open_detector(f'local-dir:{tiny_yolos}', min_score=0.0)
    boxes, scores = detector(IMAGE)
    whole = detector.pipeline(Image.fromarray(IMAGE), threshold=0.0)
    people = [f for f in whole if f['label'] == 'Person']
    assert 0 < len(boxes) == len(people)
    assert boxes[0].tolist() == [people[0]['box'][k] for k in ('xmin', 'ymin', 'xmax', 'ymax')]
    assert scores[0] == pytest.approx(people[0]['score'])
    assert len(TransformersDetector(detector.pipeline, min_score=1.0)(IMAGE)[0]) == 0


def test_a_pipeline_that_knows_no_people_is_refused(tiny_yolos):
    with pytest.raises(UserError, match="no class 'dog'"):
        TransformersDetector(str(tiny_yolos), label='dog')


def test_a_folder_that_is_no_detector_is_refused(tmp_path):
    pytest.importorskip('transformers')
    with pytest.raises(UserError, match='cannot open'):
        open_detector(f'local-dir:{tmp_path}')


def box_file(folder, content):
    path = folder / 'boxes.json'
    path.write_text(json.dumps(content))
    return BoxFile(path)


def test_a_file_of_boxes_by_name(tmp_path):
    boxes = box_file(tmp_path, {'a.jpg': [[1, 2, 30, 40, 0.5], [5, 6, 70, 50]], 'b.jpg': [], '12': [[0, 0, 9, 9]]})
    found, scores = find_people(boxes, IMAGE, 'photos/a.jpg')
    np.testing.assert_array_equal(found, [[5, 6, 70, 50], [1, 2, 30, 40]])
    np.testing.assert_array_equal(scores, [1, 0.5])
    assert len(find_people(boxes, IMAGE, 'b.jpg')[0]) == 0
    assert len(find_people(boxes, IMAGE, '12')[0]) == 1
    with pytest.raises(UserError, match=r'no boxes for c\.jpg'):
        find_people(boxes, IMAGE, 'c.jpg')
    with pytest.raises(UserError, match='this image has none'):
        find_people(boxes, IMAGE)


def test_photos_of_one_name_have_boxes_of_their_own(tmp_path):
    photos = ['photos/a/x.jpg', 'photos/b/x.jpg']
    boxes = box_file(tmp_path, {'a/x.jpg': [[1, 2, 30, 40]], 'b/x.jpg': []})
    boxes.check(photos)
    assert [len(boxes.of_photo(photo)[0]) for photo in photos] == [1, 0]
    with pytest.raises(UserError, match=r'photos/a/x\.jpg and photos/b/x\.jpg are both called so'):
        box_file(tmp_path, {'x.jpg': [[1, 2, 30, 40]]}).check(photos)


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16'])
def test_json_is_read_as_notepad_and_powershell_write_it(tmp_path, encoding):
    path = tmp_path / 'boxes.json'
    path.write_text(json.dumps({'ä.jpg': [[1, 2, 30, 40]]}, ensure_ascii=False), encoding=encoding)
    assert len(BoxFile(path).of_photo('ä.jpg')[0]) == 1


def test_a_file_of_coco_detections(tmp_path):
    entry = {'image_id': 139, 'category_id': 1, 'bbox': [1, 2, 30, 40], 'score': 0.7}
    boxes = box_file(tmp_path, [entry, {**entry, 'category_id': 3}, {**entry, 'image_id': 7}])
    found, scores = find_people(boxes, IMAGE, 'val2017/000000000139.jpg')
    np.testing.assert_array_equal(found, [[1, 2, 31, 42]])
    np.testing.assert_allclose(scores, [0.7])
    assert len(find_people(boxes, IMAGE, '000000000001.jpg')[0]) == 0
    with pytest.raises(UserError, match=r'no boxes for holiday\.jpg'):
        find_people(boxes, IMAGE, 'holiday.jpg')


@pytest.mark.parametrize(
    'content',
    [
        3,
        {},
        [{'image_id': 1, 'bbox': [1, 2, 3, 4], 'category_id': 3}],
        {'a.jpg': 5},
        {'a.jpg': [[1, 2, 3]]},
        {'a.jpg': [[1, 2, 3, float('nan')]]},
        {'a.jpg': [[1, 2, 3, 'x']]},
        [{'image_id': 1}],
        [{'image_id': 1, 'bbox': [1, 2, 3]}],
        [{'image_id': 1, 'bbox': [1, 2, 3, None]}],
        [4],
    ],
)
def test_broken_files_of_boxes_are_refused(tmp_path, content):
    with pytest.raises(UserError, match=r'boxes\.json'):
        box_file(tmp_path, content)
