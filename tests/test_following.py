"""Who is who from frame to frame, and calm keypoints."""

import numpy as np
from clips import OFFSETS

from widehrnet_zoo.video import OneEuro, SmoothConfig
from widehrnet_zoo.video.follow import FollowConfig, Follower


def pose(x, y, score=0.9):
    return OFFSETS + np.array([x, y]), np.full(4, score)


def seen(follower, *people):
    keypoints, scores = (np.array(v) for v in zip(*people, strict=True))
    return follower.update(keypoints, scores, (640, 480)).tolist()


def test_somebody_unseen_is_given_up_after_a_while_and_comes_back_under_a_new_number():
    follower = Follower(config=FollowConfig(patience=2))
    follower.meet([[80, 60, 120, 140]])
    assert seen(follower, pose(100, 100)) == [0]
    box = follower.boxes
    for _ in range(2):
        assert seen(follower, pose(300, 300, 0.1)) == [] and not follower.due(7)
        np.testing.assert_array_equal(follower.boxes, box)
    assert seen(follower, pose(300, 300, 0.1)) == [] and follower.due(7)
    follower.meet([[80, 60, 120, 140]])
    assert follower.numbers == [2]


def test_two_who_land_on_one_person_become_one_and_the_older_stays():
    follower = Follower()
    follower.meet([[80, 60, 120, 140]])
    seen(follower, pose(100, 100))
    follower.meet([[180, 60, 220, 140], [78, 62, 121, 139]])
    assert follower.numbers == [1, 2]
    assert seen(follower, pose(101, 100), pose(102, 101)) == [0]
    assert follower.numbers == [1]


def test_somebody_who_was_unseen_for_a_moment_keeps_their_number_beside_a_newcomer():
    follower = Follower()
    follower.meet([[80, 60, 120, 140]])
    seen(follower, pose(100, 100))
    seen(follower, pose(100, 100, 0.1))
    # the detector finds them again, and a second box of them
    follower.meet([[80, 60, 120, 140], [80, 60, 120, 70]])
    assert follower.numbers == [1, 2]
    assert seen(follower, pose(100, 100), pose(100, 100)) == [0] and follower.numbers == [1]
    seen(follower, pose(100, 100, 0.1))
    follower.meet([[80, 60, 120, 140], [80, 60, 120, 70]])
    seen(follower, pose(100, 100, 0.1), pose(100, 100))
    follower.meet([[80, 60, 120, 140]])
    assert seen(follower, pose(100, 100), pose(100, 100)) == [0] and follower.numbers == [1]


def test_a_box_does_not_collapse_when_keypoints_drop_out():
    follower = Follower()
    follower.meet([[80, 60, 120, 140]])
    seen(follower, pose(100, 100))
    width, height = follower.boxes[0, 2:] - follower.boxes[0, :2]
    keypoints, scores = pose(100, 100)
    scores[[0, 3]] = 0.1
    assert seen(follower, (keypoints, scores)) == [0]
    np.testing.assert_allclose(follower.boxes[0, 2:] - follower.boxes[0, :2], (width, 0.8 * height))


def test_the_filter_by_hand():
    # a still start, then one step of 1 at 10 Hz: speed 10, smoothed by a(1 Hz); its cutoff is 1 + 2 * that speed
    smooth = OneEuro(SmoothConfig(min_cutoff=1.0, beta=2.0, derivative_cutoff=1.0))
    assert smooth([[0.0, 0.0]], 0.0).tolist() == [[0, 0]]
    weight = 1 / (1 + 1 / (2 * np.pi * 0.1))
    cutoff = 1 + 2 * weight * 10
    expected = 1 / (1 + 1 / (2 * np.pi * cutoff * 0.1))
    np.testing.assert_allclose(smooth([[1.0, 0.0]], 0.1), [[expected, 0]], rtol=1e-12)
    np.testing.assert_allclose(smooth([[9.0, 9.0]], 0.1), [[expected, 0]], rtol=1e-12)


def test_smoothing_calms_a_still_person_and_keeps_up_with_a_moving_one():
    random = np.random.default_rng(0)
    times = np.arange(200) / 25
    noise = random.normal(0, 2, (200, 1, 2))
    smooth = OneEuro()
    still = np.array([smooth(100 + n, t, 400) for n, t in zip(noise, times, strict=True)])
    assert still[50:].std() < 0.5 * noise[50:].std()
    assert np.diff(still[50:], axis=0).std() < 0.25 * np.diff(noise[50:], axis=0).std()
    smooth = OneEuro()
    # a hand that crosses half the person's diagonal in a second
    path = 100 + times[:, None, None] * 200
    moving = np.array([smooth(p, t, 400) for p, t in zip(path, times, strict=True)])
    assert np.abs(moving - path)[50:].max() < 4
