import numpy as np
import pytest
from PIL import Image

from widehrnet_zoo import SKELETONS, PoseResult, draw_poses
from widehrnet_zoo.pose.drawing import SIDE_COLOURS

COCO = SKELETONS['coco']
NAMES = {name: i for i, name in enumerate(COCO.keypoints)}


def person(width, height, score=1.0):
    """A rough figure that fills most of a picture."""
    places = np.array(
        [
            *((50, 12), (53, 10), (47, 10), (57, 12), (43, 12), (64, 26), (36, 26), (72, 42), (28, 42), (76, 56)),
            *((24, 56), (59, 56), (41, 56), (61, 74), (39, 74), (62, 92), (38, 92)),
        ],
        float,
    )
    return PoseResult(
        (places * (width / 100, height / 100))[None],
        np.full((1, 17), score),
        [[width * 0.2, height * 0.05, width * 0.8, height * 0.97]],
        [1],
        COCO,
        (width, height),
    )


def grey(width, height):
    return np.full((height, width, 3), 120, np.uint8)


@pytest.mark.parametrize(('width', 'height'), [(32, 32), (160, 120), (640, 480), (1920, 1440)])
def test_skeletons_can_be_seen_and_do_not_cover_the_picture(width, height):
    result = person(width, height)
    image = grey(width, height)
    drawn = np.asarray(result.draw(image)).astype(int)
    assert drawn.shape == image.shape and (image == 120).all()
    changed = np.abs(drawn - 120).sum(-1) > 30
    assert 0.01 < changed.mean() < 0.35
    # seen on a screen 640 pixels wide, a limb is at least a pixel wide
    middle = (result.keypoints[0, NAMES['left_knee']] + result.keypoints[0, NAMES['left_ankle']]) / 2
    assert changed[int(middle[1])].sum() >= 2 * max(1, width // 640)


def test_colours_tell_the_sides():
    result = person(400, 400)
    drawn = np.asarray(result.draw(grey(400, 400)))
    for name in ('left_wrist', 'right_ankle', 'nose'):
        x, y = result.keypoints[0, NAMES[name]].round().astype(int)
        assert tuple(drawn[y, x]) == SIDE_COLOURS[name.split('_')[0] if '_' in name else 'centre']
    hips = result.keypoints[0, [NAMES['left_hip'], NAMES['right_hip']]].mean(0).round().astype(int)
    assert tuple(drawn[hips[1], hips[0]]) == SIDE_COLOURS['centre']


def simulate(rgb, kind):
    """Colours as dichromats see them: Vienot, Brettel and Mollon 1999, on linear RGB."""
    linear = (np.array(rgb) / 255) ** 2.2
    matrix = {
        'protan': [[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]],
        'deutan': [[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]],
    }[kind]
    return (np.array(matrix) @ linear).clip(0, 1) ** (1 / 2.2) * 255


@pytest.mark.parametrize('kind', ['protan', 'deutan'])
def test_colours_tell_the_sides_to_colour_blind_people(kind):
    left, right, centre = (simulate(SIDE_COLOURS[side], kind) for side in ('left', 'right', 'centre'))
    for a, b in ((left, right), (left, centre), (right, centre)):
        assert np.linalg.norm(a - b) > 80


def test_less_sure_keypoints_are_fainter_and_those_below_the_threshold_are_not_drawn():
    strength = {}
    for score in (1.0, 0.5, 0.25, 0.1, 0.0):
        result = person(400, 400, score)
        strength[score] = np.abs(np.asarray(result.draw(grey(400, 400))).astype(int) - 120).sum()
    assert strength[1.0] > strength[0.5] > strength[0.25] > 0 == strength[0.1] == strength[0.0]
    assert np.asarray(person(400, 400, 0.0).draw(grey(400, 400), threshold=0)).std() == 0


def test_boxes_and_line_width_are_choices():
    result = person(200, 200)
    plain, boxed, thick = (
        np.asarray(result.draw(grey(200, 200), **options)) for options in ({}, {'boxes': True}, {'line_width': 12})
    )
    x1, y1, _, _ = result.boxes[0].round().astype(int)
    assert (plain[y1 + 20, x1] == 120).all() and (boxed[y1 + 20, x1] != 120).any()
    assert (thick != 120).sum() > 1.5 * (plain != 120).sum()


def test_people_outside_and_without_numbers_are_no_trouble():
    result = person(100, 100)
    result.keypoints[0, 0] = np.nan
    result.keypoints[0, 1] = -5000, 20
    result.keypoints[0, 2] = 1e6, 1e6
    assert draw_poses(grey(100, 100), result.keypoints, result.scores, result.skeleton).size == (100, 100)
    nobody = PoseResult(np.zeros((0, 17, 2)), np.zeros((0, 17)), np.zeros((0, 4)), [], COCO, (9, 7))
    np.testing.assert_array_equal(nobody.draw(Image.fromarray(grey(9, 7))), grey(9, 7))
