"""PCK, NME and AUC against mmpose's published test values, the reference scorer and values worked by hand."""

import json

import numpy as np
import pytest

from widehrnet_zoo.errors import UserError
from widehrnet_zoo.formats.coco import read_labels
from widehrnet_zoo.metrics.coco import CocoScore, read_results
from widehrnet_zoo.metrics.pck import auc, box_size, nme, normalised_errors, pck, torso_size
from widehrnet_zoo.metrics.people import PckScore, match_results
from widehrnet_zoo.pose.skeletons import SKELETONS

COCO = SKELETONS['coco']


@pytest.fixture
def errors_and_counts():
    # the distances of mmpose's own tests of keypoint_auc and keypoint_epe: 4, 8, (1), 14.14, 20
    found = np.array([[[10, 4], [10, 18], [0, 0], [40, 40], [20, 10]]], float)
    labels = np.array([[[10, 0, 1], [10, 10, 1], [0, -1, 0], [30, 30, 1], [0, 10, 1]]], float)
    return normalised_errors(found, labels, np.array([1.0]))


def test_mmposes_values(errors_and_counts):
    errors, counts = errors_and_counts
    assert auc(errors / 20, counts, 1.0, steps=4) == pytest.approx(0.375)
    assert nme(errors, counts) == pytest.approx(11.5355339)


def test_exact_auc_is_the_limit_of_the_sum(errors_and_counts):
    errors, counts = errors_and_counts
    # by hand: mean of 1 - (4, 8, 14.1421, 20) / 20
    assert auc(errors / 20, counts, 1.0) == pytest.approx((0.8 + 0.6 + 0.2928932 + 0) / 4)
    assert auc(errors / 20, counts, 1.0, steps=20000) == pytest.approx(auc(errors / 20, counts, 1.0), abs=1e-3)


def test_pck_is_strict_and_pools_or_averages_by_joint():
    errors = np.array([[0.1, 0.2], [0.1, 0.1], [0.3, 0.1]])
    counts = np.array([[True, True], [True, False], [True, False]])
    assert pck(errors, counts, 0.2) == 2 / 4
    assert pck(errors, counts, 0.2, 'joints') == (2 / 3 + 0) / 2


def test_torso_needs_both_ends_and_three_pixels():
    labels = np.array([[[0, 0, 1], [3, 4, 1]], [[0, 0, 1], [3, 4, 0]], [[0, 0, 1], [2, 2, 1]]], float)
    np.testing.assert_array_equal(torso_size(labels, ('left_hip', 'right_shoulder')), [5, 0, 0])
    with pytest.raises(ValueError, match='right_shoulder'):
        torso_size(labels, ('left_hip', 'nose'))


def test_box_size_is_the_longer_side():
    np.testing.assert_array_equal(box_size([[5, 6, 30, 40], [0, 0, 50, 2]]), [40, 50])


def test_people_without_a_prediction_count_as_wrong():
    errors, counts = normalised_errors(np.full((1, 1, 3), np.nan), [[[1, 1, 1]]], [10.0])
    assert pck(errors, counts, 0.2) == 0 and auc(errors, counts) == 0


def test_results_are_matched_to_people():
    people = [{'id': 1, 'image_id': 5}, {'id': 2, 'image_id': 5}]
    by_name = [{'image_id': 5, 'ann': 2, 'keypoints': [1, 2, 3]}, {'image_id': 5, 'ann': 1, 'keypoints': [4, 5, 6]}]
    np.testing.assert_array_equal(match_results(people, by_name, 1)[:, 0], [[4, 5, 6], [1, 2, 3]])
    with pytest.raises(UserError, match='which result is of whom'):
        match_results(people, [{'image_id': 5, 'keypoints': [1, 2, 3]}], 1)
    with pytest.raises(UserError, match='more than one result for the annotation 2'):
        match_results(people, by_name[:1] * 2, 1)
    with pytest.raises(UserError, match='None of the results'):
        match_results(people, [{'image_id': 6, 'ann': 1, 'keypoints': [1, 2, 3]}], 1)


def test_each_joint_on_demand(tmp_path):
    names = COCO.keypoints
    labels = np.stack([np.arange(17) * 10.0, np.arange(17) * 5.0, np.full(17, 2)], 1)
    found = labels.copy()
    found[names.index('left_knee'), 0] += 50
    entry = {'id': 1, 'image_id': 1, 'bbox': [0, 0, 200, 100], 'keypoints': labels.ravel().tolist()}
    path = tmp_path / 'labels.json'
    path.write_text(json.dumps({'images': [{'id': 1, 'file_name': 'a.png'}], 'annotations': [entry]}))
    score = PckScore(read_labels(path), [{'image_id': 1, 'score': 1, 'keypoints': found.ravel().tolist()}], names)
    figures = score.figures(by_joint=True)
    wrong = {k for k, v in figures.items() if k.startswith('PCK@0.2') and v == 0}
    assert wrong == {'PCK@0.2 torso: left_knee', 'PCK@0.2 box: left_knee'}
    assert figures['PCK@0.2 torso'] == pytest.approx(11 / 12)
    assert figures['PCK@0.2 box'] == pytest.approx(16 / 17)
    assert set(figures) - set(score.figures()) == {k for k in figures if ': ' in k}


@pytest.mark.parametrize(
    ('name', 'human', 'sport', 'ap'), [('lightning', 0.616, 0.697, 0.592), ('thunder', 0.686, 0.762, 0.678)]
)
def test_movenet_scores_what_the_reference_says(shared, name, human, sport, ap):
    labels = read_labels(shared / 'people' / 'val.json')
    results = read_results(shared / 'people' / f'movenet_{name}_val.json', 17)
    figures = PckScore(labels, results, labels.names).figures()
    assert round(figures['PCK@0.2 torso, human'], 3) == human
    assert round(figures['PCK@0.2 torso, lspet'], 3) == sport
    assert round(CocoScore(labels, results, COCO.sigmas).figures()['AP'], 3) == ap
