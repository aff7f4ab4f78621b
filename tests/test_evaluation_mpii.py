"""Each quirk of the MPII protocol, by hand."""

import json

import numpy as np
import pytest

from widehrnet_zoo.errors import UserError
from widehrnet_zoo.metrics.mpii import MpiiScore, MpiiTruth, read_annotations, read_ground_truth


def truth_of(num=1, diagonal=(60.0, 80.0), labelled=None):
    """Joints at (100, 100) in MATLAB's pixels, head boxes with a diagonal of 100: head size 60."""
    boxes = np.zeros((num, 2, 2))
    boxes[:, 1] = diagonal
    return MpiiTruth(np.full((num, 16, 2), 100.0), np.ones((num, 16), bool) if labelled is None else labelled, boxes)


def score_of(offset, truth):
    """Predictions off by these pixels in x; truth at (100, 100) of MATLAB is (99, 99) here."""
    keypoints = np.full((len(truth.joints), 16, 2), 99.0)
    keypoints[..., 0] += offset
    return MpiiScore(keypoints, truth, tuple(range(len(keypoints))))


def annotations(folder, **entry):
    path = folder / 'valid.json'
    path.write_text(json.dumps([{'image': 'a.jpg', 'center': [301.0, 201.0], 'scale': 2.0, **entry}]))
    return read_annotations(path, folder)


def test_centre_goes_down_and_the_view_grows(tmp_path):
    samples = annotations(tmp_path)
    # centre (301, 201 + 15 * 2) - 1 = (300, 230); side 200 * 2 * 1.25 = 500
    np.testing.assert_allclose(samples.boxes, [[50, -20, 550, 480]])
    assert samples.padding == 1


def test_an_unknown_centre_is_left_alone(tmp_path):
    np.testing.assert_allclose(annotations(tmp_path, center=[-1, -1]).boxes, [[-202, -202, 198, 198]])


def test_predictions_are_taken_to_one_based_pixels():
    assert score_of(0.0, truth_of()).errors.max() == 0


def test_head_size_is_six_tenths_of_the_diagonal_and_the_threshold_is_met_when_equal():
    # 0.5 * 0.6 * 100 = 30 pixels
    assert score_of(30.0, truth_of()).mean(0.5) == 1
    assert score_of(30.01, truth_of()).mean(0.5) == 0
    assert score_of(6.0, truth_of()).mean(0.1) == 1
    assert score_of(6.01, truth_of()).mean(0.1) == 0


def test_pelvis_and_thorax_are_left_out_of_the_mean():
    offset = np.zeros(16)
    offset[[6, 7]] = 1000
    score = score_of(offset, truth_of())
    assert score.mean() == 1 and score.by_joint()[[6, 7]].sum() == 0
    offset = np.zeros(16)
    offset[8] = 1000
    assert score_of(offset, truth_of()).mean() == pytest.approx(13 / 14)


def test_the_mean_is_weighted_by_how_often_a_joint_is_labelled():
    labelled = np.zeros((3, 16), bool)
    labelled[:, 0] = True
    labelled[0, 5] = True
    offset = np.zeros((3, 16))
    offset[0, 5] = 1000
    score = score_of(offset, truth_of(3, labelled=labelled))
    # right ankle 3 of 3, left ankle 0 of 1: weighted 3/4, the column's plain mean 1/2
    assert score.mean() == 0.75
    assert score.figures()['Ankle'] == 0.5


def test_joints_that_are_not_labelled_do_not_count():
    labelled = np.ones((1, 16), bool)
    labelled[0, 10] = False
    offset = np.zeros(16)
    offset[10] = 1000
    assert score_of(offset, truth_of(labelled=labelled)).mean() == 1


def test_columns_are_of_the_right_joints():
    for name, joint in (
        ('Head', 9),
        ('Shoulder', 12),
        ('Elbow', 14),
        ('Wrist', 10),
        ('Hip', 3),
        ('Knee', 1),
        ('Ankle', 5),
    ):
        offset = np.zeros(16)
        offset[joint] = 1000
        wrong = {k for k, v in score_of(offset, truth_of()).figures().items() if v < 1}
        assert wrong == {name, 'PCKh@0.5', 'PCKh@0.1'}


def test_each_joint_on_demand():
    offset = np.zeros(16)
    offset[1] = 10  # a sixth of the head size
    figures = score_of(offset, truth_of()).figures(by_joint=True)
    assert {k for k, v in figures.items() if v < 1} == {'PCKh@0.1', 'PCKh@0.1: right_knee'}
    assert len(figures) == 7 + 2 + 32


def test_people_of_one_photo_are_drawn_together():
    score = MpiiScore(np.full((3, 16, 2), 99.0), truth_of(3), ('a', 'b', 'a'))
    assert score.num_images == 2
    assert score.figures(np.array([1, 1])) == score.figures()


def test_mat_file(tmp_path):
    scipy_io = pytest.importorskip('scipy.io')
    joints = np.random.default_rng(0).uniform(0, 200, (16, 2, 3))
    missing = np.zeros((16, 3))
    missing[4, 1] = 1
    boxes = np.zeros((2, 2, 3))
    boxes[1, 0], boxes[1, 1] = 60, 80
    path = tmp_path / 'mpii_gt_val.mat'
    scipy_io.savemat(path, {'pos_gt_src': joints, 'jnt_missing': missing, 'headboxes_src': boxes})
    truth = read_ground_truth(path)
    np.testing.assert_allclose(truth.head_sizes, 60)
    np.testing.assert_array_equal(truth.joints[2, 5], joints[5, :, 2])
    assert not truth.labelled[1, 4] and truth.labelled.sum() == 47
    scipy_io.savemat(path, {'pos_gt_src': joints})
    with pytest.raises(UserError, match='jnt_missing'):
        read_ground_truth(path)
    path.write_bytes(b'nothing')
    with pytest.raises(UserError, match='MATLAB'):
        read_ground_truth(path)


def test_a_coco_model_is_refused():
    with pytest.raises(UserError, match='17'):
        MpiiScore(np.zeros((1, 17, 2)), truth_of(), (1,))
