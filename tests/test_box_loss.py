import pytest
import torch
from test_box_maps import maps_of

from widehrnet_zoo.pose.box_maps import NUM_MAPS, box_positions, decode_sides, split_maps
from widehrnet_zoo.training.box_loss import NOBODY, PERSON, UNSURE, assign, box_losses
from widehrnet_zoo.training.config import BoxConfig


def positions_of(*size):
    return torch.from_numpy(box_positions(*size))


def assigned(boxes, kinds, found, scores, size=(10, 12), top=3):
    return assign(
        scores, found, positions_of(*size), torch.tensor([boxes], dtype=torch.float32), torch.tensor([kinds]), top
    )


def even(size=(10, 12), side=10.0):
    """The same box around every position, and the same score."""
    positions = positions_of(*size)
    return torch.cat((positions - side, positions + side), -1)[None], torch.full((1, len(positions)), 0.1)


def test_the_best_aligned_positions_inside_the_box_are_taken():
    found, scores = even()
    # a person of 20 x 20 around position (4, 5), whose box is right; its neighbours' are a position off
    box = [22 - 10.0, 18 - 10, 22 + 10, 18 + 10]
    places, weights, quality = assigned([box, [0, 0, 0, 0]], [PERSON, NOBODY], found, scores, top=5)
    assert places[0, 0, 0] == 4 * 12 + 5 and quality[0, 0, 0].item() == pytest.approx(1, abs=1e-5)
    assert sorted(places[0, 0].tolist()) == [3 * 12 + 5, 4 * 12 + 4, 4 * 12 + 5, 4 * 12 + 6, 5 * 12 + 5]
    # IoU of boxes a position apart: 16 * 20 / (2 * 400 - 320); its sixth power is the target
    assert quality[0, 0, 1:].tolist() == pytest.approx([(320 / 480) ** 6] * 4, rel=1e-4)
    assert not quality[0, 1].any() and not weights[0, 1].any()
    assert torch.equal(weights[0, 0], quality[0, 0] / quality[0, 0].max())
    # a higher score draws the positions of the same box
    scores[0, 5 * 12 + 5] = 0.4
    places, weights, quality = assigned([box], [PERSON], found, scores, top=2)
    assert places[0, 0].tolist() == [4 * 12 + 5, 5 * 12 + 5]
    assert quality[0, 0, 1].item() == pytest.approx(2 * (320 / 480) ** 6, rel=1e-4)


def test_a_position_belongs_to_the_box_that_its_own_fits_best():
    found, scores = even()
    left, right = [12.0, 8, 32, 28], [16.0, 8, 36, 28]
    places, quality, _ = assigned([left, right], [PERSON, PERSON], found, scores, top=4)
    owned = [set(places[0, i][quality[0, i] > 0].tolist()) for i in (0, 1)]
    assert owned[0] and owned[1] and not owned[0] & owned[1]
    assert 4 * 12 + 5 in owned[0] and 4 * 12 + 6 in owned[1]


def test_a_person_between_positions_is_not_lost():
    found, scores = even()
    _, quality, _ = assigned([[24.5, 12.5, 27, 15]], [PERSON], found, scores)
    assert (quality > 0).any()


def test_a_box_that_is_far_too_large_counts_in_full_and_is_known_to_be_poor():
    found, scores = even(side=30.0)
    _, weights, quality = assigned([[20.0, 16, 25, 28]], [PERSON], found, scores)
    assert weights[0, 0, 0] == 1 and quality[0, 0, 0].item() == pytest.approx(5 * 12 / 3600, rel=1e-4)


def test_the_loss_is_small_for_what_is_right_and_grows_with_each_fault():
    boxes = torch.tensor([[[3.0, 1.5, 20.25, 37.0], [24.0, 4.0, 47.0, 39.0]]])
    kinds = torch.tensor([[PERSON, PERSON]])
    config = BoxConfig(top=1)

    def losses(moved, scores=(0.9999, 0.9999), kinds=kinds):
        maps = maps_of(moved, [(4, 2), (5, 8)], scores)
        # elsewhere: far too large, so that nothing there is aligned
        return box_losses(maps, boxes, kinds, config)

    right = losses(boxes[0].tolist())
    assert right[0] < 1e-3 and right[1] < 1e-4
    loose = boxes[0].clone()
    loose[1] += torch.tensor([-4.0, -4, 0, 0])
    assert losses(loose.tolist())[1] > 0.1 * config.box and losses(loose.tolist())[2] > right[2] + 0.1
    assert losses(boxes[0].tolist(), (0.9999, 0.3))[0] > 0.1
    # a false find costs, unless it lies in a region that is left out
    one = torch.tensor([[PERSON, NOBODY]])
    unsure = torch.tensor([[PERSON, UNSURE]])
    assert losses(boxes[0].tolist(), kinds=one)[0] > 1
    assert losses(boxes[0].tolist(), kinds=unsure)[0] < 1e-3


def test_nobody_teaches_low_scores_and_nothing_else():
    maps = torch.zeros(2, NUM_MAPS, 6, 8, requires_grad=True)
    losses = box_losses(maps, torch.zeros(2, 3, 4), torch.zeros(2, 3, dtype=torch.long), BoxConfig())
    assert losses[0] > 0 and losses[1] == losses[2] == 0
    losses.sum().backward()
    assert (maps.grad[:, 0] > 0).all() and not maps.grad[:, 1:].any() and torch.isfinite(maps.grad).all()


def test_maps_that_follow_the_gradient_find_the_people():
    torch.manual_seed(0)
    boxes = torch.tensor([[[3.0, 1.5, 20.25, 37.0], [22.0, 10.0, 33.0, 33.0], [30.0, 2.0, 47.0, 12.0]]])
    kinds = torch.tensor([[PERSON, PERSON, PERSON]])
    maps = torch.nn.Parameter(torch.randn(1, NUM_MAPS, 10, 12) * 0.1 - torch.eye(NUM_MAPS)[0].view(1, -1, 1, 1) * 3)
    optimizer = torch.optim.Adam([maps], 0.1)
    for _ in range(150):
        optimizer.zero_grad()
        box_losses(maps, boxes, kinds, BoxConfig()).sum().backward()
        optimizer.step()
    logits, bins = split_maps(maps.detach())
    found = decode_sides(bins, positions_of(10, 12))[0]
    best = torch.stack([(found - box).abs().amax(1) for box in boxes[0]])
    sure = logits[0].sigmoid() > 0.7
    assert (best[:, sure].amin(1) < 0.5).all()
    assert (best[:, sure].amin(0) < 2).all()
