"""Labels by a model's own views."""

import numpy as np
from load_script import script

from widehrnet_zoo.pose.crops import box_views, crop_people


def test_views_turn_about_their_centre():
    label_people = script('label_people')
    maps = box_views([[40, 30, 100, 110]], (64, 48))
    turned = label_people.turned(maps, (64, 48), 90)
    np.testing.assert_allclose(turned[0] @ [24, 32, 1], maps[0] @ [24, 32, 1])
    image = np.zeros((160, 160, 3), np.uint8)
    image[95:101, 67:73] = 255  # below the centre (70, 70)
    crop = crop_people(image, turned, (64, 48))[0, ..., 0].astype(float)
    y, x = np.argwhere(crop > 128).mean(0)
    assert abs(y - 32) < 1.5 and abs(x - 24) > 8  # beside it


def test_views_that_agree_make_the_pose_and_others_are_counted_out():
    points = np.zeros((10, 1, 2, 2))
    points[:, 0, 0] = (50, 60)
    points[:3, 0, 0, 0] += 40  # three of ten views see the first keypoint elsewhere
    points[:, 0, 1] = np.arange(10)[:, None] * 30
    poses, agree = script('label_people').agreement(
        points, np.full((10, 1, 2), 0.7), np.array([4000.0]), np.array([0.05, 0.05])
    )
    np.testing.assert_allclose(poses[0, 0], [50, 60, 0.7])
    assert agree[0, 0] == 0.7 and agree[0, 1] <= 0.2
