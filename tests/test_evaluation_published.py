"""`widehrnet eval` with an official checkpoint against the protocol written out again in NumPy and OpenCV."""

import contextlib
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from widehrnet_zoo.models.registry import create_model
from widehrnet_zoo.pose.skeletons import SKELETONS
from widehrnet_zoo.weights.official import convert_state_dict

cv2 = pytest.importorskip('cv2')
coco = pytest.importorskip('pycocotools.coco')
cocoeval = pytest.importorskip('pycocotools.cocoeval')
main = pytest.importorskip('widehrnet_zoo.cli.main').main

SIZE = (64, 64)
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


@pytest.fixture(scope='module')
def checkpoint(official, tmp_path_factory):
    """A 17-keypoint checkpoint in the official layout, with the parity weights."""
    state = {k: torch.from_numpy(np.asarray(v)) for k, v in official.state_dict('widehrnet_18_attn').items()}
    random = torch.Generator().manual_seed(0)
    state['keypoint_head.final_layer.weight'] = torch.randn(17, 40, 1, 1, generator=random) / 40
    state['keypoint_head.final_layer.bias'] = torch.rand(17, generator=random) / 2
    path = tmp_path_factory.mktemp('official') / 'official.pth'
    torch.save({'meta': {'epoch': 210}, 'state_dict': state}, path)
    return path, state


@pytest.fixture(scope='module')
def network(checkpoint):
    model = create_model('widehrnet_18_attn', num_classes=17)
    model.load_state_dict(convert_state_dict(checkpoint[1]))
    return model.eval()


@pytest.fixture
def photos(tmp_path):
    """Two photos, three people and a detector's boxes of them, one of them double and one reaching over the border."""
    random = np.random.default_rng(0)
    for image_id in (1, 2):
        small = random.integers(0, 256, (12, 16, 3), np.uint8)
        Image.fromarray(small).resize((160, 120), Image.BICUBIC).save(tmp_path / f'{image_id}.png')
    boxes = {1: [(20, 10, 60, 100), (90.5, 15.25, 50, 70)], 2: [(-10, 5, 70, 110)]}
    annotations, detections = [], []
    for image_id, of_image in boxes.items():
        for box in of_image:
            x, y, w, h = box
            points = np.stack([random.uniform(x, x + w, 17), random.uniform(y, y + h, 17), np.full(17, 2)], 1)
            annotations.append(
                {
                    'id': len(annotations) + 1,
                    'image_id': image_id,
                    'category_id': 1,
                    'iscrowd': 0,
                    'keypoints': points.ravel().tolist(),
                    'num_keypoints': 17,
                    'bbox': list(box),
                    'area': w * h / 2,
                }
            )
            detections.append(
                {'image_id': image_id, 'category_id': 1, 'bbox': list(box), 'score': float(random.uniform(0.5, 1))}
            )
    detections.append({**detections[0], 'score': 0.4})
    images = [{'id': i, 'file_name': f'{i}.png', 'width': 160, 'height': 120} for i in (1, 2)]
    labels = {'images': images, 'annotations': annotations, 'categories': [{'id': 1, 'name': 'person'}]}
    (tmp_path / 'labels.json').write_text(json.dumps(labels))
    (tmp_path / 'boxes.json').write_text(json.dumps(detections))
    return tmp_path, detections


def crop(image, centre, scale):
    """OpenCV's warp by the three points of mmpose 0.24: the centre, one above it, and one at a right angle."""
    height, width = SIZE
    up = np.array([0, -0.5 * scale[0]])
    source = np.float32([centre, centre + up, centre + up + [up[1], -up[0]]])
    middle, rise = np.array([width / 2, height / 2]), np.array([0, -0.5 * width])
    target = np.float32([middle, middle + rise, middle + rise + [rise[1], -rise[0]]])
    return cv2.warpAffine(image, cv2.getAffineTransform(source, target), (width, height), flags=cv2.INTER_LINEAR)


def heatmaps_of(network, image, flip=True, shift=True):
    def run(pixels):
        values = ((pixels / 255 - MEAN) / STD).transpose(2, 0, 1)[None]
        with torch.inference_mode():
            return network(torch.from_numpy(np.ascontiguousarray(values, np.float32)))[0].numpy()

    heatmaps = run(image)
    if not flip:
        return heatmaps
    mirrored = run(image[:, ::-1])[SKELETONS['coco'].flip_order, :, ::-1].copy()
    if shift:
        mirrored[..., 1:] = mirrored[..., :-1].copy()
    return (heatmaps + mirrored) / 2


def decode(heatmap):
    height, width = heatmap.shape
    y, x = divmod(int(heatmap.argmax()), width)
    point = np.array([x, y], float)
    if 1 < x < width - 1 and 1 < y < height - 1:
        dx, dy = heatmap[y, x + 1] - heatmap[y, x - 1], heatmap[y + 1, x] - heatmap[y - 1, x]
        point += 0.25 * np.sign([dx, dy])
    return point, heatmap.max()


def by_hand(network, folder, detection, **switches):
    """Keypoints and score of one detection."""
    image = np.asarray(Image.open(folder / f'{detection["image_id"]}.png').convert('RGB'))
    x, y, w, h = detection['bbox']
    centre = np.array([x + w / 2, y + h / 2])
    aspect = SIZE[1] / SIZE[0]
    w, h = max(w, h * aspect), max(h, w / aspect)
    scale = np.array([w, h]) * 1.25
    heatmaps = heatmaps_of(network, crop(image, centre, scale), **switches)
    points, scores = zip(*(decode(h) for h in heatmaps), strict=True)
    points = np.array(points) * scale / (np.array(SIZE[::-1]) / 4) + centre - scale / 2
    scores = np.array(scores)
    sure = scores[scores > 0.2]
    return np.concatenate([points, scores[:, None]], 1), detection['score'] * (sure.mean() if len(sure) else 0)


def evaluate(folder, path, *more):
    arguments = ['eval', '--data', str(folder / 'labels.json'), '--images', str(folder), '--quiet', '--worst', '0']
    model = ['--model', 'widehrnet_18_attn.coco_256x192', '--weights', str(path), '--size', '64', '64']
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert main([*arguments, *model, '--out', str(folder / 'out'), '--device', 'cpu', *more]) == 0
    results = json.loads((folder / 'out' / 'results.json').read_text())
    return results, json.loads((folder / 'out' / 'report.json').read_text()), said.getvalue()


def test_the_published_protocol_step_by_step(checkpoint, network, photos):
    folder, _ = photos
    results, report, said = evaluate(folder, checkpoint[0], '--boxes', str(folder / 'boxes.json'))
    assert len(results) == 3  # the double of the first box went
    for result, detection in zip(
        sorted(results, key=lambda r: r['image_id']), sorted_by_score(network, photos), strict=True
    ):
        keypoints, score = by_hand(network, folder, detection)
        found = np.reshape(result['keypoints'], (17, 3))
        # OpenCV rounds positions to 1/32 pixel: heatmaps differ a little, and with them now and then an argmax
        apart = np.abs(found[:, :2] - keypoints[:, :2]).max(1)
        assert np.median(apart) < 1e-3 and (apart < 1e-3).sum() >= 14
        np.testing.assert_allclose(found[:, 2], keypoints[:, 2], atol=0.02)
        assert result['score'] == pytest.approx(score, abs=0.02)

    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco.COCO(str(folder / 'labels.json'))
        there = cocoeval.COCOeval(truth, truth.loadRes(str(folder / 'out' / 'results.json')), 'keypoints')
        there.evaluate()
        there.accumulate()
        there.summarize()
    names = ('AP', 'AP50', 'AP75', 'APm', 'APl', 'AR', 'AR50', 'AR75', 'ARm', 'ARl')
    np.testing.assert_allclose([report['figures'][n] for n in names], there.stats, atol=1e-12)
    assert report['switches'] == {
        'protocol': 'coco',
        'flip_test': True,
        'shift_heatmap': True,
        'decoder': 'quarter',
        'padding': 1.25,
        'rescoring': 0.2,
        'oks_nms': 0.9,
        'evaluator': 'pycocotools',
        'boxes': 'boxes.json',
    }
    assert 'flip_test=on' in said and 'widehrnet_18_attn.coco_256x192, input 64x64' in said


def sorted_by_score(network, photos):
    """The detections that stay, photo by photo, the best first."""
    folder, detections = photos
    return sorted(detections[:3], key=lambda d: (d['image_id'], -by_hand(network, folder, d)[1]))


def test_without_the_shift_the_heatmaps_are_others(checkpoint, network, photos):
    folder, detections = photos
    boxes = str(folder / 'boxes.json')
    results, report, _ = evaluate(folder, checkpoint[0], '--boxes', boxes, '--no-shift', '--nms', '1')
    assert len(results) == 4 and report['switches']['shift_heatmap'] is False and report['switches']['oks_nms'] is None
    scores = np.array([r['keypoints'][2::3] for r in results])
    expected = np.array([by_hand(network, folder, d, shift=False)[0][:, 2] for d in detections])
    with_shift = np.array([by_hand(network, folder, d)[0][:, 2] for d in detections])
    nearest = [min(np.abs(s - e).max() for s in scores) for e in expected]
    assert max(nearest) < 0.02
    assert np.abs(expected - with_shift).max() > 0.05
