"""Results to and from COCO's format and supervision."""

import copy
import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from widehrnet_zoo.errors import UserError
from widehrnet_zoo.formats import from_coco, from_supervision, read_csv, read_parquet, save_results, to_supervision
from widehrnet_zoo.formats.saving import FORMATS
from widehrnet_zoo.inference.stream import Found
from widehrnet_zoo.pose.results import PoseResult
from widehrnet_zoo.pose.skeletons import SKELETONS, Skeleton

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


def test_results_go_to_json_and_back_compare_have_no_hash_and_print_in_one_line(result):
    values = json.loads(result.to_json())
    assert PoseResult.from_dict(values) == result and result != 'a.jpg'
    assert values['image_size'] == {'width': 320, 'height': 240}
    assert [k['name'] for k in values['people'][0]['keypoints']] == list(COCO.keypoints)
    assert result.named(1)['left_wrist'] == (*result.keypoints[1, 9].tolist(), result.scores[1, 9].item())
    for change in ({'path': 'b.jpg'}, {'scores': result.scores / 2}, {'image_size': (1, 2)}):
        assert replace(result, **change) != result
    holes = replace(result, scores=np.full((3, 17), np.nan))
    assert holes == replace(holes) and copy.deepcopy(holes) == holes == pickle.loads(pickle.dumps(holes))
    with pytest.raises(TypeError, match="unhashable type: 'PoseResult'"):
        hash(result)
    assert repr(result) == "PoseResult(3 people, 17 keypoints of 'coco', 320x240, path='a.jpg')"
    assert len(repr(COCO)) < 150 and '\n' not in repr(Found(0, np.zeros((99, 99, 3), np.uint8), result))


def test_numbers_that_json_has_not_become_null(result):
    text = replace(result, keypoints=np.full((3, 17, 2), np.nan)).to_json()
    assert json.loads(text, parse_constant=pytest.fail)['people'][0]['keypoints'][0]['x'] is None
    assert np.isnan(PoseResult.from_dict(json.loads(text)).keypoints).all()


def test_results_of_shapes_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match=r'scores of 1 people with 17 keypoints must be \(1, 17\)'):
        PoseResult(np.zeros((1, 17, 2)), np.zeros((1, 16)), np.zeros((1, 4)), np.ones(1), COCO, (1, 1))


def test_results_are_saved_whole(result, tmp_path):
    path = tmp_path / 'new' / 'a.json'
    for _ in range(2):
        result.save_json(path)
    assert len(json.loads(path.read_text())['people']) == 3
    assert [p.name for p in path.parent.iterdir()] == ['a.json']


def test_numpy_numbers_and_paths_become_plain_json(result):
    skeleton = Skeleton('own', np.array(['a', 'b']), np.array([[0, 1]]), [[np.int64(0), 1]], np.array([0.1, 0.2]))
    assert hash(skeleton) and json.dumps(skeleton.to_dict())
    assert skeleton == Skeleton.from_dict(json.loads(json.dumps(skeleton.to_dict())))
    small = PoseResult(
        np.zeros((1, 2, 2)), np.ones((1, 2)), np.ones((1, 4)), np.ones(1), skeleton, np.array([4, 5]), Path('a.jpg')
    )
    assert json.loads(small.to_json())['path'] == 'a.jpg'
    for path, plain in ((b'a.jpg', 'a.jpg'), (np.int64(7), 7), (np.str_('x'), 'x')):
        assert json.loads(replace(small, path=path).to_json())['path'] == plain
    for number, plain in ((np.int64(7), 7), (np.str_('x'), 'x'), (np.uint8(3), 3)):
        entry = json.loads(json.dumps(result.to_coco(number, np.int32(1))))[0]
        assert entry['image_id'] == plain and entry['category_id'] == 1


@pytest.mark.parametrize('name', [*FORMATS, 'supervision'])
def test_nobody_in_every_format(result, tmp_path, name):
    nobody = PoseResult(
        np.zeros((0, 17, 2)), np.zeros((0, 17)), np.zeros((0, 4)), np.zeros(0), COCO, (320, 240), 'b.jpg'
    )
    if name == 'parquet':
        pytest.importorskip('pyarrow')
    if name == 'supervision':
        pytest.importorskip('supervision')
        assert to_supervision(nobody).xy.shape == (0, 17, 2)
        return
    for results in ([nobody], [result, nobody], []):
        path = tmp_path / f'{len(results)}_{name}'
        save_results(results, path, name)
        if name == 'coco':
            assert len(json.loads(path.read_text())) == (3 if len(results) == 2 else 0)
        elif name in ('csv', 'parquet'):
            read = read_csv if name == 'csv' else read_parquet
            assert [len(r) for r in read(path, image_size=(320, 240))] == ([3] if len(results) == 2 else [])
        elif name == 'json':
            assert [PoseResult.from_dict(r) for r in json.loads(path.read_text())] == results
        elif name == 'mmpose':
            assert len(list(path.glob('*.json'))) == len(results)
    assert from_coco([], COCO, (320, 240), path='b.jpg') == PoseResult.from_dict(nobody.to_dict()) == nobody


def test_coco_results_there_and_back(result):
    entries = result.to_coco(7)
    assert set(entries[1]) == {'image_id', 'category_id', 'keypoints', 'score', 'bbox'}
    assert {e['image_id'] for e in entries} == {7} and entries[1]['bbox'] == [10, 20, 80, 160]
    assert len(entries[0]['keypoints']) == 51 and entries[1]['keypoints'][3:5] == result.keypoints[1, 1].tolist()
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
    with pytest.raises(UserError, match='Entry 0'):
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


def test_key_points_of_another_skeleton_are_refused(result):
    pytest.importorskip('supervision')
    with pytest.raises(UserError, match='mpii'):
        from_supervision(to_supervision(result), SKELETONS['mpii'], (320, 240))
