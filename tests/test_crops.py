import numpy as np
import pytest

from widehrnet_zoo.errors import UserError
from widehrnet_zoo.pose.crops import box_views, check_boxes, crop_people

SIZE = (64, 48)


def picture(height=120, width=160):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def bilinear(image, view, size):
    """The definition, pixel by pixel, in double precision."""
    y, x = np.mgrid[: size[0], : size[1]]
    px, py = view[:, :2] @ np.stack([x.ravel(), y.ravel()]) + view[:, 2:]
    framed = np.zeros((image.shape[0] + 2, image.shape[1] + 2, 3))
    framed[1:-1, 1:-1] = image
    out = np.zeros((px.size, 3))
    for dy in (0, 1):
        for dx in (0, 1):
            ix, iy = np.floor(px) + dx, np.floor(py) + dy
            weight = (1 - np.abs(px - ix)) * (1 - np.abs(py - iy))
            ix, iy = (np.clip(v, -1, n).astype(int) + 1 for v, n in ((ix, image.shape[1]), (iy, image.shape[0])))
            out += weight[:, None] * framed[iy, ix]
    return out.reshape(*size, 3)


BOXES = {
    'inside': (30, 20, 70, 90),
    'small': (30.3, 20.7, 38.1, 29.9),
    'large': (-400, -300, 900, 800),
    'over the left edge': (-60, 10, 40, 100),
    'over the corner': (130.5, 90.25, 300, 260),
    'wide': (0, 50, 160, 60),
}


@pytest.mark.parametrize('box', BOXES.values(), ids=BOXES.keys())
def test_crops_are_bilinear_with_black_outside(box):
    view = box_views([box], SIZE)
    np.testing.assert_allclose(crop_people(picture(), view, SIZE)[0], bilinear(picture(), view[0], SIZE), atol=0.51)


def test_turned_crops_are_bilinear_too():
    view = np.array([[0.8, 0.5, 20.0], [-0.4, 1.1, 15.5]])
    np.testing.assert_allclose(crop_people(picture(), view[None], SIZE)[0], bilinear(picture(), view, SIZE), atol=0.51)


def test_crops_equal_opencvs_warp_within_rounding():
    cv2 = pytest.importorskip('cv2')
    # OpenCV before 5 rounds positions to 1/32 pixel, so smooth pictures are compared there
    image = cv2.GaussianBlur(picture(), (0, 0), 3)
    tolerance = 1 if int(cv2.__version__.split('.')[0]) >= 5 else 2
    views = np.concatenate([box_views(list(BOXES.values()), SIZE), [[[0.8, 0.5, 20.0], [-0.4, 1.1, 15.5]]]])
    for view, crop in zip(views, crop_people(image, views, SIZE), strict=True):
        theirs = cv2.warpAffine(image, view, SIZE[::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        assert np.abs(crop.astype(int) - theirs).max() <= tolerance


def test_a_view_known_by_hand():
    # 80 x 60 widened to 3:4 is 80 x 106.67, times 1.25 is 100 x 133.33: over 48 x 64 pixels 25/12 a step
    view = box_views([[10, 20, 90, 80]], SIZE)[0]
    step = 100 / 48
    np.testing.assert_allclose(view, [[step, 0, 50 - 24 * step], [0, step, 50 - 32 * step]])
    # a tall box is widened in the other direction
    view = box_views([[0, 0, 10, 64]], SIZE, padding=1)[0]
    np.testing.assert_allclose(view, [[1, 0, 5 - 24], [0, 1, 0]])


def test_a_crop_at_step_one_copies_pixels():
    image = picture()
    crop = crop_people(image, [[[1.0, 0, 7], [0, 1.0, 5]], [[1.0, 0, -3], [0, 1.0, 100]]], SIZE)
    np.testing.assert_array_equal(crop[0], image[5 : 5 + 64, 7 : 7 + 48])
    np.testing.assert_array_equal(crop[1][:20, 3:], image[100:, :45])
    assert not crop[1][20:].any() and not crop[1][:, :3].any()


def test_no_boxes_give_no_crops():
    assert crop_people(picture(), box_views(np.zeros((0, 4)), SIZE), SIZE).shape == (0, 64, 48, 3)
    assert check_boxes([], (10, 10)).shape == (0, 4)


@pytest.mark.parametrize(
    ('boxes', 'message'),
    [
        ([50, 40, 30, 60], 'x, y, width'),
        ([50, 40, 50, 60], 'no area'),
        ([[5, 5, 9, 9], [50, 40, 60, 40]], 'box 1'),
        ([np.nan, 0, 5, 5], 'not finite'),
        ([0, 0, np.inf, 5], 'not finite'),
        ([0, 0, 1e30, 5], 'not finite'),
        ([200, 10, 250, 30], 'outside'),
        ([-20, 10, 0, 30], 'outside'),
        ([0.1, 0.2, 0.5, 0.9], 'fractions'),
        ([1, 2, 3], 'shape'),
        ([[1, 2, 3, 4, 0.9]], 'box_scores'),
        ([[[1, 2, 3, 4]]], 'shape'),
        ([[1, 2, 3, 4], [1, 2]], 'numbers'),
        ('1,2,3,4', 'numbers'),
        ({'box': 1}, 'numbers'),
    ],
)
def test_boxes_that_cannot_be_are_refused(boxes, message):
    with pytest.raises(UserError, match=message):
        check_boxes(boxes, (160, 120))


def test_boxes_may_leave_the_picture():
    np.testing.assert_array_equal(check_boxes([-50, -50, 10, 500], (160, 120)), [[-50, -50, 10, 500]])


@pytest.mark.parametrize('view', [np.full((1, 2, 3), np.nan), np.zeros((2, 3)), np.zeros((1, 3, 3))])
def test_maps_of_the_wrong_kind_are_refused(view):
    with pytest.raises(UserError, match='Maps'):
        crop_people(picture(), view, SIZE)
