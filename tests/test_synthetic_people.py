"""Made-up people: labels, poses, cutting of cloth, and photos where the packages are there."""

import json
import sys

import numpy as np
import pytest
from load_script import script

from widehrnet_zoo.pose.skeletons import SKELETONS

script('synthetic_people')
from synthetic import bodies, clothes, fitting, labels, poses, studio  # noqa: E402

NAMES = SKELETONS['coco'].keypoints
LEFT, RIGHT = ([i for i, name in enumerate(NAMES) if name.startswith(side)] for side in ('left', 'right'))


def test_visibility_by_depth_cover_and_edge():
    points = np.full((17, 2), 5.0)
    points[1] = [-0.6, 5]
    points[2] = [-0.4, 5]
    points[3] = [9.6, 5]
    points[4] = [8, 2]
    far, hit = np.full(17, 4.0), np.full(17, 3.97)
    hip = NAMES.index('left_hip')
    hit[0], hit[hip], hit[hip + 1], hit[16] = 3.9, 3.9, 3.8, np.inf
    cover = np.zeros((10, 10))
    cover[2, 8] = 1
    flags = labels.visibility(points, far, hit, 10, 10, cover)
    # flesh before a nose hides it, before a hip it is the hip's own
    assert flags.tolist() == [1, 0, 2, 0, 1, 2, 2, 2, 2, 2, 2, 2, 1, 2, 2, 2, 2]


def test_box_is_the_keypoints_and_a_tenth_inside_the_picture():
    points = np.zeros((17, 2))
    points[:] = [50, 100]
    points[0], points[1], points[2] = [20, 40], [120, 240], [500, 500]
    flags = np.full(17, 2)
    flags[2] = 0
    one = labels.annotation(7, points, flags, 125, 300)
    assert one['bbox'] == [10, 20, 115, 240]
    assert one['area'] == pytest.approx(0.53 * 115 * 240)
    assert one['num_keypoints'] == 16
    assert one['keypoints'][6:9] == [0, 0, 0]
    assert labels.label_file([{'image': {'id': 7}, 'annotation': one}])['categories'][0]['keypoints'] == list(NAMES)


def test_drawn_poses_keep_to_the_limits_and_to_the_seed():
    bank = poses.base_poses()
    low, high = poses.LIMITS[..., 0], poses.LIMITS[..., 1]
    for pose in bank:
        assert (pose.angles >= low - 5).all() and (pose.angles <= high + 5).all()
    drawn = [poses.draw_pose(np.random.default_rng(i), bank) for i in (1, 1, 2)]
    assert np.array_equal(drawn[0].angles, drawn[1].angles)
    assert not np.array_equal(drawn[0].angles, drawn[2].angles)
    for pose in drawn:
        assert (pose.angles >= low).all() and (pose.angles <= high).all()
        assert pose.root @ pose.root.T == pytest.approx(np.eye(3), abs=1e-5)
        assert np.linalg.det(pose.root) > 0
    again = poses.mirrored(poses.mirrored(drawn[0]))
    assert np.array_equal(again.angles, drawn[0].angles) and np.allclose(again.root, drawn[0].root)


def test_cloth_is_cut_where_its_field_is_zero():
    # a square of two triangles, inside to the left of x = 0.25
    points = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], float)
    faces, (first, second, share) = clothes.cut(np.array([[0, 1, 2], [0, 2, 3]]), 0.25 - points[:, 0])
    new = points[first] * (1 - share[:, None]) + points[second] * share[:, None]
    assert np.allclose(new[:, 0], 0.25)
    a, b, c = np.moveaxis(np.concatenate([points, new])[faces], 1, 0)
    area = ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]) / 2
    assert (area > 0).all() and area.sum() == pytest.approx(0.25)


def test_a_missing_package_is_named_with_the_command(monkeypatch):
    module = sys.modules['synthetic_people']
    monkeypatch.setattr(module, 'NEEDED', ('json', 'no_such_body'))
    with pytest.raises(SystemExit, match=r'no_such_body\. Run `pip install json no_such_body`'):
        module.check_packages()


def test_a_folder_of_other_settings_is_refused(tmp_path):
    module = sys.modules['synthetic_people']
    module.check_settings(tmp_path, {'seed': 1})
    module.check_settings(tmp_path, {'seed': 1})
    with pytest.raises(SystemExit, match='other settings'):
        module.check_settings(tmp_path, {'seed': 2})


@pytest.fixture(scope='module')
def bank():
    """Bodies of anny; made once and kept in its cache folder it takes seconds, else minutes."""
    pytest.importorskip('anny', reason='anny, which has the bodies, is not installed')
    pytest.importorskip('embreex', reason='embreex, which casts the rays, is not installed')
    pytest.importorskip('scipy', reason='scipy is not installed')
    return bodies.make_bank(2, 0)


@pytest.mark.slow
def test_left_is_left(bank):
    standing = poses.base_poses()[0]
    moved = poses.turns(standing, poses.drives(bank))
    points = bank.regressor @ bank.posed(0, moved)
    # the person looks to -y, so its left is at x > 0; arms hang, feet are down
    assert (points[LEFT, 0] > 0).all() and (points[RIGHT, 0] < 0).all()
    assert points[0, 1] < points[3, 1]
    assert points[9, 2] < points[7, 2] < points[5, 2]
    raised = standing.angles.copy()
    raised[poses.JOINTS.index('left_shoulder'), 1] = 170
    moved = poses.turns(poses.Pose(raised, standing.root), poses.drives(bank))
    points = bank.regressor @ bank.posed(0, moved)
    assert points[9, 2] > points[0, 2] > points[10, 2]


@pytest.mark.slow
def test_fitting_finds_a_pose_from_its_picture(bank):
    moved = poses.drives(bank)
    shown = [poses.base_poses()[i] for i in (2, 4, 9)]
    points = np.stack([bank.regressor @ bank.posed(0, poses.turns(pose, moved)) for pose in shown])
    seen = np.concatenate([points[..., [0, 2]] * [100, -100], np.full((3, 17, 1), 2)], -1).astype(np.float32)
    seen[0, 3] = 0  # an ear that nobody labelled
    found = fitting.fit_poses(bank, seen, steps=80, worst=0.03)
    assert len(found) == 3
    for pose in found:
        assert (pose.angles >= poses.LIMITS[..., 0] - 1e-3).all() and (pose.angles <= poses.LIMITS[..., 1] + 1e-3).all()


@pytest.mark.slow
def test_photos_are_the_same_again(bank):
    made = [studio.Studio(bank, poses.base_poses(), 5).photo(3) for _ in range(2)]
    assert made[0].content == made[1].content
    assert json.dumps(made[0].annotation) == json.dumps(made[1].annotation)
    keypoints = np.array(made[0].annotation['keypoints']).reshape(-1, 3)
    shown = keypoints[keypoints[:, 2] > 0]
    assert (shown[:, 0] <= made[0].image['width']).all() and (shown[:, 1] <= made[0].image['height']).all()
