import numpy as np
import pytest
import torch

from widehrnet_zoo.errors import UserError
from widehrnet_zoo.pose.box_maps import (
    BINS,
    NUM_MAPS,
    bin_coordinates,
    box_positions,
    decode_sides,
    find_boxes,
    flip_maps,
    split_maps,
)


def maps_of(boxes, places, scores, size=(10, 12), stride=4):
    """Maps that say these boxes at these positions (row, column), and nothing elsewhere."""
    maps = torch.zeros(1, NUM_MAPS, *size)
    maps[:, 0] = -20
    for box, (row, column), score in zip(boxes, places, scores, strict=True):
        x, y = (column + 0.5) * stride, (row + 0.5) * stride
        sides = torch.tensor([x - box[0], y - box[1], box[2] - x, box[3] - y])
        at = bin_coordinates(sides)
        low = at.floor().clamp(max=BINS - 2)
        share = torch.zeros(4, BINS).scatter(1, low.long()[:, None], (1 - at + low)[:, None])
        share.scatter_add_(1, low.long()[:, None] + 1, (at - low)[:, None])
        maps[0, 0, row, column] = torch.logit(torch.tensor(score))
        maps[0, 1:, row, column] = share.clamp(min=1e-12).log().flatten()
    return maps


def test_bins_are_linear_near_and_logarithmic_far():
    assert bin_coordinates(torch.tensor([-3.0, 0, 512, 900])).tolist() == pytest.approx([0, 0, 15, 15])
    near = bin_coordinates(torch.tensor([0.0, 0.1, 0.2])).diff()
    far = bin_coordinates(torch.tensor([100.0, 200, 400])).diff()
    assert near[0] == pytest.approx(float(near[1]), rel=0.05)
    assert far[0] == pytest.approx(float(far[1]), rel=0.05) and far[0] == pytest.approx(2.11, abs=0.05)


def test_a_box_goes_through_the_maps_and_back():
    boxes = [[3.0, 1.5, 20.25, 37.0], [0.0, 0.0, 48.0, 40.0], [40.5, 30.0, 47.0, 39.0]]
    found, scores, image = find_boxes(maps_of(boxes, [(4, 2), (5, 7), (8, 10)], [0.9, 0.5, 0.25]))
    assert torch.allclose(found, torch.tensor(boxes), atol=1e-3)
    assert scores.tolist() == pytest.approx([0.9, 0.5, 0.25], abs=1e-5) and image.tolist() == [0, 0, 0]


def test_positions_run_row_by_row_as_the_maps_do():
    maps = torch.randn(2, NUM_MAPS, 3, 5)
    scores, bins = split_maps(maps)
    assert torch.equal(scores[1, 7], maps[1, 0, 1, 2])
    assert torch.equal(bins[1, 7, 2], maps[1, 1 + 2 * BINS : 1 + 3 * BINS, 1, 2])
    assert box_positions(3, 5)[7].tolist() == [10, 6]


def test_a_wide_distribution_is_read_at_its_mean_bin():
    bins = torch.full((4, BINS), -30.0)
    bins[:, 4] = bins[:, 8] = 0
    left = 50 - decode_sides(bins, torch.tensor([50.0, 50.0]))[0]
    assert bin_coordinates(left).item() == pytest.approx(6, abs=1e-4)


@pytest.mark.parametrize('kind', [torch.as_tensor, np.asarray])
def test_maps_of_a_mirrored_photo_are_turned(kind):
    there, mirrored = [[8.0, 6, 15, 30], [-4, 0, 30, 40]], [[33.0, 6, 40, 30], [18, 0, 52, 40]]
    maps = maps_of(mirrored, [(4, 8), (5, 6)], [0.6, 0.8])
    np.testing.assert_array_equal(flip_maps(kind(maps)), maps_of(there, [(4, 3), (5, 5)], [0.6, 0.8]))


def test_a_box_is_the_mean_of_those_like_it_that_are_half_as_sure():
    boxes = [[0, 0, 20, 40], [2, 0, 20, 40], [-2, 0, 20, 40], [0, 0, 9, 40]]
    found, scores, _ = find_boxes(maps_of(boxes, [(4, 2), (4, 3), (5, 2), (5, 1)], [0.8, 0.5, 0.3, 0.6]), 0.45, 0.5)
    assert scores.tolist() == pytest.approx([0.8, 0.6], abs=1e-5)
    # the third is too unsure, the fourth is another's; the second counts 0.9 * 0.5, above the threshold or not
    assert found[0, 0].item() == pytest.approx(2 * 0.45 / (0.8 + 0.45), abs=1e-3)
    again, _, _ = find_boxes(maps_of(boxes, [(4, 2), (4, 3), (5, 2), (5, 1)], [0.8, 0.5, 0.3, 0.6]), 0.7, 0.5)
    assert again[0].tolist() == pytest.approx(found[0].tolist(), abs=1e-3)


def test_the_lower_of_two_that_overlap_goes_but_not_across_photos():
    one = maps_of([[0, 0, 20, 40], [1, 0, 20, 40], [25, 0, 45, 40]], [(4, 2), (4, 3), (4, 8)], [0.6, 0.8, 0.7])
    other = maps_of([[0, 0, 20, 40]], [(4, 2)], [0.5])
    boxes, scores, image = find_boxes(torch.cat((one, other)))
    assert image.tolist() == [0, 0, 1] and scores.tolist() == pytest.approx([0.8, 0.7, 0.5], abs=1e-5)
    # the mean of 1 and 0 by IoU times score
    assert boxes[0].tolist() == pytest.approx([0.8 / (0.8 + 0.95 * 0.6), 0, 20, 40], abs=1e-3)
    assert boxes[2, 0].item() == pytest.approx(0, abs=1e-3)
    assert len(find_boxes(one, overlap=1.0)[0]) == 3 and len(find_boxes(one, min_score=0.75)[0]) == 1
    assert find_boxes(one, limit=2)[1].tolist() == pytest.approx([0.8, 0.7], abs=1e-5)


def test_arrays_give_what_tensors_give():
    random = torch.Generator().manual_seed(0)
    maps = torch.randn(2, NUM_MAPS, 10, 12, generator=random)
    for options in ({}, {'min_score': 0.6, 'overlap': 0.3, 'limit': 50}):
        expected, found = find_boxes(maps, **options), find_boxes(maps.numpy(), **options)
        assert len(expected[0]) > 5
        for values, others in zip(expected, found, strict=True):
            assert isinstance(others, np.ndarray)
            np.testing.assert_allclose(others, values, rtol=1e-4, atol=1e-4)
    assert find_boxes(np.full((2, NUM_MAPS, 4, 4), -200, np.float32), 0.1)[0].shape == (0, 4)


def test_nobody_is_an_empty_result_and_pose_maps_are_refused():
    boxes, scores, image = find_boxes(torch.full((2, NUM_MAPS, 4, 4), -9.0))
    assert boxes.shape == (0, 4) and scores.shape == image.shape == (0,)
    with pytest.raises(UserError, match='person finder'):
        find_boxes(torch.zeros(1, 17, 4, 4))
