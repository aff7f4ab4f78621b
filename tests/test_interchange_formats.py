"""Results to and from COCO's format and supervision."""

import numpy as np
import pytest

from widehrnet_zoo.errors import UserError
from widehrnet_zoo.formats import from_coco, from_supervision, to_supervision
from widehrnet_zoo.pose.results import PoseResult
from widehrnet_zoo.pose.skeletons import SKELETONS

COCO = SKELETONS['coco']


@pytest.fixture
def result():
    random = np.random.default_rng(0)
    return PoseResult(
        keypoints=random.uniform(0, 200, (3, 17, 2)),
        scores=random.uniform(0, 1, (3, 17)),
        boxes=[[0, 0, 100, 200], [10, 20, 90, 180], [5.5, 6, 70, 80]],
        box_scores=[0.9, 0.8, 0.7],
        skeleton=COCO,
        image_size=(320, 240),
        path='a.jpg',
    )


def same(a, b):
    for name in ('keypoints', 'scores', 'boxes'):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=1e-6)
    assert a.skeleton == b.skeleton and a.image_size == b.image_size and a.path == b.path


def test_coco_results_there_and_back(result):
    entries = result.to_coco(7)
    assert {e['image_id'] for e in entries} == {7} and len(entries[0]['keypoints']) == 51
    other = [{**e, 'image_id': 8} for e in entries]
    back = from_coco(entries + other, COCO, (320, 240), image_id=7, path='a.jpg')
    same(back, result)
    # COCO has one score for a person, and it takes the box's place
    np.testing.assert_allclose(back.box_scores, result.person_scores, rtol=1e-6)


def test_a_coco_result_without_a_box_gets_the_extent_of_its_keypoints(result):
    entry = result.to_coco(7)[0]
    del entry['bbox']
    points = result.keypoints[0]
    np.testing.assert_allclose(
        from_coco([entry], COCO, (320, 240)).boxes, [[*points.min(0), *points.max(0)]], rtol=1e-6
    )


def test_coco_results_of_another_skeleton_are_refused(result):
    with pytest.raises(UserError, match='3 x 16'):
        from_coco(result.to_coco(1), SKELETONS['mpii'], (320, 240))
    with pytest.raises(UserError, match='entry 0'):
        from_coco([{'image_id': 1}], COCO, (320, 240))


def test_supervision_there_and_back(result):
    supervision = pytest.importorskip('supervision')
    key_points = to_supervision(result)
    assert isinstance(key_points, supervision.KeyPoints) and len(key_points) == 3
    np.testing.assert_array_equal(key_points.xy, result.keypoints)
    assert key_points.data['class_name'].tolist() == ['person'] * 3
    back = from_supervision(key_points, COCO, (320, 240), 'a.jpg')
    same(back, result)
    np.testing.assert_array_equal(back.box_scores, result.box_scores)


def test_supervision_draws_what_it_is_given(result):
    supervision = pytest.importorskip('supervision')
    picture = np.zeros((240, 320, 3), np.uint8)
    drawn = supervision.VertexAnnotator(radius=2, color=supervision.Color.WHITE).annotate(
        picture, to_supervision(result)
    )
    x, y = result.keypoints[1, 5].astype(int)
    assert drawn[y, x].tolist() == [255, 255, 255]


def test_supervision_filters_and_nobody(result):
    pytest.importorskip('supervision')
    one = to_supervision(result)[[1]]
    np.testing.assert_array_equal(from_supervision(one, COCO, (320, 240)).boxes, result.boxes[1:2])
    nobody = PoseResult(np.zeros((0, 17, 2)), np.zeros((0, 17)), np.zeros((0, 4)), np.zeros(0), COCO, (320, 240))
    assert len(from_supervision(to_supervision(nobody), COCO, (320, 240))) == 0


def test_the_older_supervision_has_one_confidence(result, monkeypatch):
    supervision = pytest.importorskip('supervision')

    class Older:
        def __init__(self, xy, class_id=None, confidence=None, data=None):
            self.xy, self.class_id, self.confidence, self.data = xy, class_id, confidence, data or {}

    monkeypatch.setattr(supervision, 'KeyPoints', Older)
    key_points = to_supervision(result)
    np.testing.assert_array_equal(key_points.confidence, result.scores)
    back = from_supervision(key_points, COCO, (320, 240), 'a.jpg')
    same(back, result)
    np.testing.assert_array_equal(back.box_scores, [1, 1, 1])


def test_key_points_of_another_skeleton_are_refused(result):
    pytest.importorskip('supervision')
    with pytest.raises(UserError, match='mpii'):
        from_supervision(to_supervision(result), SKELETONS['mpii'], (320, 240))
