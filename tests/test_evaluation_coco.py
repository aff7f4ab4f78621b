"""COCO protocol against pycocotools, mmpose's published values and values worked by hand."""

import contextlib
import io
import json

import numpy as np
import pytest

from widehrnet_zoo.errors import UserError
from widehrnet_zoo.formats.coco import clip_box, detected_boxes, labelled_boxes, read_labels
from widehrnet_zoo.formats.samples import Samples
from widehrnet_zoo.metrics.bootstrap import bootstrap
from widehrnet_zoo.metrics.coco import CocoScore, read_results, to_results, view_areas
from widehrnet_zoo.metrics.oks import oks, oks_nms
from widehrnet_zoo.pose.results import rescore
from widehrnet_zoo.pose.skeletons import SKELETONS

coco = pytest.importorskip('pycocotools.coco')
cocoeval = pytest.importorskip('pycocotools.cocoeval')

SIGMAS = np.array(SKELETONS['coco'].sigmas)


def person(annotation_id, image_id, keypoints, box=(20, 10, 100, 200), area=9000.0, **more):
    flat = np.concatenate([keypoints, np.full((17, 1), 2.0)], 1).ravel().tolist()
    return {
        'id': annotation_id,
        'image_id': image_id,
        'category_id': 1,
        'iscrowd': 0,
        'keypoints': flat,
        'num_keypoints': 17,
        'bbox': list(box),
        'area': area,
        **more,
    }


def label_file(folder, annotations, num_images, **image):
    path = folder / 'labels.json'
    path.write_text(
        json.dumps(
            {
                'images': [
                    {'id': i + 1, 'file_name': f'{i + 1}.png', 'width': 160, 'height': 240, **image}
                    for i in range(num_images)
                ],
                'annotations': annotations,
                'categories': [{'id': 1, 'name': 'person'}],
            }
        )
    )
    return path


def shifted(keypoints, area, similarity):
    """Every keypoint moved as far as gives it this OKS; by COCO's formula d^2 = -2 ln(oks) area (2 sigma)^2."""
    move = np.sqrt(-2 * np.log(similarity) * area) * 2 * SIGMAS
    return keypoints + np.stack([move * 0.6, move * 0.8], 1)


@pytest.fixture
def poses():
    return np.random.default_rng(0).uniform((30, 20), (110, 200), (4, 17, 2))


def result(image_id, keypoints, score=1.0):
    return {
        'image_id': image_id,
        'category_id': 1,
        'score': score,
        'keypoints': np.concatenate([keypoints, np.ones((17, 1))], 1).ravel().tolist(),
    }


@pytest.mark.parametrize(('similarity', 'expected'), [(1.0, 1.0), (0.93, 0.9), (0.72, 0.5), (0.49, 0.0)])
def test_ap_of_a_known_oks(tmp_path, poses, similarity, expected):
    # an OKS of 0.72 passes 0.50, 0.55, 0.60, 0.65 and 0.70: five of the ten thresholds
    labels = read_labels(label_file(tmp_path, [person(i + 1, i + 1, p) for i, p in enumerate(poses)], 4))
    results = [result(i + 1, shifted(p, 9000.0, similarity)) for i, p in enumerate(poses)]
    figures = CocoScore(labels, results, SIGMAS).figures()
    assert figures['AP'] == pytest.approx(expected, abs=1e-9)
    assert figures['AR'] == pytest.approx(expected, abs=1e-9)
    assert figures['AP50'] == float(similarity >= 0.5)
    assert figures['AP75'] == float(similarity >= 0.75)


def test_no_results_score_nothing(tmp_path, poses):
    labels = read_labels(label_file(tmp_path, [person(1, 1, poses[0])], 1))
    assert repr(labels) == "CocoLabels(1 images, 1 annotations of 'person', 17 keypoints)"
    assert CocoScore(labels, [], SIGMAS).figures()['AP'] == 0


def test_resampled_images_equal_a_truly_repeated_file(tmp_path, poses):
    truth = [person(i + 1, i + 1, p) for i, p in enumerate(poses)]
    similarities = (0.97, 0.81, 0.66, 0.40)
    found = [
        result(i + 1, shifted(p, 9000.0, s), score=0.9 - 0.2 * (i % 2))
        for i, (p, s) in enumerate(zip(poses, similarities, strict=True))
    ]
    drawn = [0, 2, 2, 3, 3, 3]
    repeated = coco.COCO()
    repeated.dataset = {
        'images': [{'id': n} for n in range(1, 7)],
        'categories': [{'id': 1}],
        'annotations': [{**truth[i], 'id': n + 1, 'image_id': n + 1} for n, i in enumerate(drawn)],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        repeated.createIndex()
        there = cocoeval.COCOeval(
            repeated, repeated.loadRes([{**found[i], 'image_id': n + 1} for n, i in enumerate(drawn)]), 'keypoints'
        )
        there.evaluate()
        there.accumulate()
        there.summarize()
    score = CocoScore(read_labels(label_file(tmp_path, truth, 4)), found, SIGMAS)
    np.testing.assert_allclose(list(score.figures(drawn).values()), there.stats, atol=1e-12)
    assert score.figures(drawn)['AP'] != score.figures()['AP']


def test_oks_equals_pycocotools(tmp_path, poses):
    truth = person(1, 1, poses[0])
    truth['keypoints'][2::3] = [2] * 9 + [0] * 8
    truth['num_keypoints'] = 9
    score = CocoScore(read_labels(label_file(tmp_path, [truth], 1)), [result(1, poses[0] + 4)], SIGMAS)
    labelled = np.array(truth['keypoints'][2::3]) > 0
    assert oks(poses[0] + 4, poses[0], 9000.0, SIGMAS, labelled) == pytest.approx(
        score._eval.ious[1, 1][0, 0], abs=1e-12
    )


def test_suppression_keeps_the_best_of_a_pair_above_090(poses):
    base = poses[0]
    alike, different = shifted(base, 9000.0, 0.91), shifted(base, 9000.0, 0.89)
    # areas 8000 and 10000: only their mean, 9000, gives these similarities
    areas = [8000.0, 10000.0, 10000.0]
    assert oks_nms([base, alike, different], [0.9, 0.8, 0.7], areas, SIGMAS) == [0, 2]
    assert oks_nms([base, alike], [0.1, 0.8], areas[:2], SIGMAS) == [1]


def test_rescoring_by_hand():
    scores = rescore([[0.9, 0.5, 0.1], [0.2, 0.1, 0.0], [0.3, 0.3, 0.3]], [0.5, 1.0, 1.0])
    # 0.5 * (0.9 + 0.5) / 2; nothing above 0.2 (0.2 itself is not); 0.3
    np.testing.assert_allclose(scores, [0.35, 0.0, 0.3], atol=1e-12)


def test_annotated_boxes_are_clipped_as_in_mmpose():
    assert clip_box((10, 20, 30, 40), 100, 100) == (10, 20, 39, 59)
    assert clip_box((-5, 50, 30, 80), 100, 100) == (0, 50, 29, 99)
    assert clip_box((100, 10, 5, 5), 100, 100) is None


def test_views_have_the_inputs_aspect():
    # 60 x 200 at 3:4 is 150 x 200; 150 x 100 is 150 x 200
    np.testing.assert_allclose(view_areas([[0, 0, 60, 200], [0, 0, 150, 100]], (256, 192)), [150 * 200 * 1.5625] * 2)


def test_detected_boxes_are_not_clipped_and_keep_their_scores(tmp_path, poses):
    labels = read_labels(label_file(tmp_path, [person(1, 2, poses[0])], 2))
    boxes = tmp_path / 'boxes.json'
    boxes.write_text(
        json.dumps(
            [
                {'image_id': 2, 'category_id': 1, 'bbox': [-5, 10, 20, 30], 'score': 0.7},
                {'image_id': 1, 'category_id': 1, 'bbox': [1, 2, 3, 4], 'score': 0.6},
                {'image_id': 1, 'category_id': 3, 'bbox': [1, 2, 3, 4], 'score': 0.9},
                {'image_id': 9, 'category_id': 1, 'bbox': [1, 2, 3, 4], 'score': 0.9},
            ]
        )
    )
    samples = detected_boxes(labels, tmp_path, boxes)
    assert samples.image_ids == (1, 2)
    np.testing.assert_array_equal(samples.boxes, [[1, 2, 4, 6], [-5, 10, 15, 40]])
    np.testing.assert_array_equal(samples.box_scores, [0.6, 0.7])


def test_results_go_to_a_file_and_back(tmp_path, poses):
    samples = Samples((tmp_path / '1.png',) * 2, (1, 1), (7, 8), np.array([[20.0, 10, 120, 210]] * 2), np.ones(2))
    keypoints = np.concatenate([poses[:2], np.full((2, 17, 1), 0.5)], 2)
    results = to_results(samples, keypoints, SIGMAS, (256, 192))
    path = tmp_path / 'results.json'
    path.write_text(json.dumps(results))
    back = read_results(path, 17)
    assert back == results
    np.testing.assert_allclose(np.reshape(back[0]['keypoints'], (17, 3)), keypoints[0])
    assert [r['ann'] for r in back] == [7, 8] and back[0]['score'] == 0.5


def test_crowds_and_people_without_keypoints_are_not_predicted_on(tmp_path, poses):
    path = label_file(
        tmp_path,
        [person(1, 1, poses[0]), person(2, 1, poses[1], iscrowd=1), person(3, 1, poses[2] * 0, num_keypoints=0)],
        1,
    )
    assert labelled_boxes(read_labels(path), tmp_path).annotation_ids == (1,)


def test_a_proportions_interval():
    hits = np.arange(400) < 100
    low, high = bootstrap(lambda i: {'share': float(hits[i].mean())}, 400, 2000)['share']
    # normal approximation of the binomial: 0.25 +- 1.96 sqrt(0.25 * 0.75 / 400)
    assert (low, high) == pytest.approx((0.2076, 0.2924), abs=0.006)
    with pytest.raises(UserError, match='at least 2 draws'):
        bootstrap(lambda i: {}, 400, 1)


def test_draws_in_which_nothing_is_labelled_do_not_count():
    found = bootstrap(lambda i: {'one': 0.5 if 0 in i else -1.0, 'none': -1.0}, 3, 50)
    assert found['one'] == (0.5, 0.5) and np.isnan(found['none']).all()


def test_boxes_written_as_corners_are_refused(tmp_path, poses):
    people = [person(i + 1, 1, poses[0], (30, 20, 70, 95)) for i in range(3)]
    with pytest.raises(UserError, match='x, y, width, height'):
        read_labels(label_file(tmp_path, people, 1, width=100, height=100))
    people[0]['bbox'] = [30, 20, 20, 40]  # as corners it would have no width
    assert len(read_labels(label_file(tmp_path, people, 1, width=100, height=100)).people) == 3


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'annotations': 3}, 'not a COCO-keypoints file'),
        ({'annotations': []}, 'no person with a labelled keypoint'),
        ({'images': []}, 'not among the images'),
        ({'images': [{'id': 1, 'file_name': 'a.png'}] * 2}, 'two images have the id 1'),
        ({'images': [{'id': 1}]}, 'needs an "id", .* and a "file_name"'),
        ({'images': [{'id': 1.5, 'file_name': 'a.jpg'}]}, 'a whole number or a text'),
        ({'annotations': [3]}, 'annotation entry 0'),
    ],
)
def test_broken_labels_are_refused(tmp_path, poses, change, message):
    path = label_file(tmp_path, [person(1, 1, poses[0])], 1)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UserError, match=message):
        read_labels(path)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'keypoints': [float('nan')] * 51}, '3 x 17 finite numbers'),
        ({'keypoints': [1, 2]}, '3 x 17 finite numbers'),
        ({'keypoints': None}, '3 x 17 finite numbers'),
        ({'bbox': [1, 2, 3]}, 'no "bbox"'),
        ({'bbox': [1, 2, 3, 'x']}, 'no "bbox"'),
        ({'area': float('inf')}, 'area'),
        ({'id': 2}, r'annotation 2 is there twice\.'),
    ],
)
def test_broken_annotations_are_named(tmp_path, poses, change, message):
    path = label_file(tmp_path, [person(1, 1, poses[0]) | change, person(2, 1, poses[1])], 1)
    data = json.loads(path.read_text())
    data['categories'][0]['keypoints'] = [f'keypoint {k}' for k in range(17)]
    path.write_text(json.dumps(data))
    with pytest.raises(UserError, match=message):
        read_labels(path)


def test_an_annotation_without_an_id_beside_one_with_its_number_is_named(tmp_path, poses):
    path = label_file(tmp_path, [person(2, 1, poses[0]), person(2, 1, poses[1])], 1)
    data = json.loads(path.read_text())
    del data['annotations'][1]['id']
    path.write_text(json.dumps(data))
    with pytest.raises(UserError, match='there twice: entry 1 has no "id"'):
        read_labels(path)


@pytest.mark.parametrize(
    'change', [{'score': float('nan')}, {'keypoints': [1, 2]}, {'keypoints': ['a'] * 51}, {'keypoints': None}]
)
def test_broken_results_are_named(tmp_path, poses, change):
    path = tmp_path / 'results.json'
    path.write_text(json.dumps([result(1, poses[0]), result(1, poses[0]) | change]))
    with pytest.raises(UserError, match='entry 1'):
        read_results(path, 17)


def test_results_of_another_photo_are_refused(tmp_path, poses):
    labels = read_labels(label_file(tmp_path, [person(1, 1, poses[0])], 1))
    with pytest.raises(UserError, match='image 5'):
        CocoScore(labels, [result(5, poses[0])], SIGMAS)
