import json
import shutil
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from training_shapes import NAMES, tiny_recipe, write_kites

from widehrnet_zoo.errors import UserError
from widehrnet_zoo.pose.skeletons import SKELETONS, Skeleton
from widehrnet_zoo.training import load_config, shipped_configs
from widehrnet_zoo.training.augment import (
    cut_by_border,
    halves,
    hidden_parts,
    jitter_boxes,
    move_keypoints,
    neighbours,
    sample_views,
)
from widehrnet_zoo.training.batches import Batches
from widehrnet_zoo.training.config import AugmentConfig
from widehrnet_zoo.training.crops import CropCache
from widehrnet_zoo.training.data import open_caches
from widehrnet_zoo.training.draws import Draws
from widehrnet_zoo.training.people import read_people
from widehrnet_zoo.training.pixels import add_neighbours, augment_tones, cut_views, degrade
from widehrnet_zoo.training.targets import (
    gaussian_heatmaps,
    in_view,
    keypoint_losses,
    loss_total,
    mean_loss,
    teacher_losses,
)

pytest.importorskip('yaml')
COCO = SKELETONS['coco']


@pytest.fixture(scope='module')
def kites(tmp_path_factory):
    folder = tmp_path_factory.mktemp('kites')
    write_kites(folder, 10)
    return folder


def dotted_crops(size=160, seed=0):
    """Black crops with a white dot of 5 x 5 pixels on each keypoint."""
    rng = np.random.default_rng(seed)
    crops = np.zeros((12, size, size, 3), np.uint8)
    keypoints = np.full((12, 2, 3), 2, np.float32)
    for crop, points in zip(crops, keypoints, strict=True):
        points[:, :2] = rng.integers(size * 0.4, size * 0.6, 2)
        points[1, :2] += 20
        for x, y in points[:, :2].astype(int):
            crop[y - 2 : y + 3, x - 2 : x + 3] = 255
    return torch.from_numpy(crops), torch.from_numpy(keypoints)


def boxes_of(count, centre, height):
    """Boxes 4:3, with the test-time views of their own height at a padding of 1."""
    half = torch.tensor([height * 0.375, height / 2])
    return torch.cat((centre - half, centre + half)).repeat(count, 1)


@pytest.mark.parametrize('normal', [False, True])
def test_keypoints_move_with_their_pixels(normal):
    crops, keypoints = dotted_crops()
    config = AugmentConfig(rotation=60, rotation_prob=1, any_rotation_prob=0.2, flip_prob=0.5, normal=normal)
    views = sample_views(boxes_of(12, 80, 100), keypoints, (128, 96), 1.0, config, Draws.of(12, 3))
    assert views.mirrored.any() and not views.mirrored.all()
    images = cut_views(crops, views.maps, (128, 96)).mean(1)
    moved = move_keypoints(keypoints, views, [0, 1])
    found = 0
    ys, xs = torch.meshgrid(torch.arange(128.0), torch.arange(96.0), indexing='ij')
    for image, points in zip(images, moved, strict=True):
        for x, y in points[:, :2]:
            if 10 < x < 86 and 10 < y < 118:
                near = image * ((xs - x).abs().maximum((ys - y).abs()) < 9)
                centre = torch.stack(((near * xs).sum(), (near * ys).sum())) / near.sum()
                assert (centre - torch.stack((x, y))).abs().max() < 0.25
                found += 1
    assert found > 12


def test_mirrored_samples_swap_the_sides_of_flip_pairs():
    keypoints = torch.rand(4, 17, 3) * 50 + 1
    mirror = AugmentConfig(rotation=0, scale=1, shift=0, flip_prob=1)
    views = sample_views(boxes_of(4, 50, 100), keypoints, (100, 100), 1.0, mirror, Draws.of(4, 0))
    moved = move_keypoints(keypoints, views, COCO.flip_order)
    # the left wrist of the mirrored picture is the right wrist of the picture, seen from the other side
    assert torch.allclose(moved[:, 9, 0], 100 - keypoints[:, 10, 0], atol=1e-3)
    assert torch.allclose(moved[:, 9, 1], keypoints[:, 10, 1], atol=1e-3)
    assert torch.equal(moved[:, 9, 2], keypoints[:, 10, 2])


def test_the_test_time_view_is_the_box_times_five_quarters(kites):
    people = read_people(kites / 'train.json')
    cache = CropCache.build(people, kites / 'images', kites / 'cache', 96, progress=False)
    views = sample_views(torch.from_numpy(cache.boxes), torch.from_numpy(cache.keypoints), (64, 48))
    moved = move_keypoints(torch.from_numpy(cache.keypoints), views, range(5)).numpy()
    box = people.boxes
    centre, extent = (box[:, :2] + box[:, 2:]) / 2, box[:, 2:] - box[:, :2]
    step = np.maximum(extent[:, 0] / 48, extent[:, 1] / 64) * 1.25
    expected = (people.keypoints[..., :2] - centre[:, None]) / step[:, None, None] + (24, 32)
    assert np.abs(moved[..., :2] - expected)[people.keypoints[..., 2] > 0].max() < 1e-3


def test_half_body_looks_at_one_half_and_needs_names_that_tell():
    config = AugmentConfig(rotation_prob=0, scale=1, shift=0, flip_prob=0, half_body_prob=1)
    lower = halves(COCO, config)
    assert lower.sum() == 6
    keypoints = torch.full((30, 17, 3), 2.0)
    keypoints[..., :2] = torch.rand(30, 17, 2, generator=torch.Generator().manual_seed(0)) * 40 + 60
    keypoints[:, lower, 1] += 60
    views = sample_views(boxes_of(30, 100, 150), keypoints, (128, 96), 1.0, config, Draws.of(30, 1), lower)
    inside = in_view(move_keypoints(keypoints, views, range(17)), (32, 24)) > 0
    for half in (lower, ~lower):
        assert inside[:, half].all(1).any()
    assert all(inside[i, lower].all() or inside[i, ~lower].all() for i in range(30))
    assert views.maps[:, 0, 0].max() < 150 / 128
    with pytest.raises(UserError, match='lower_body'):
        halves(Skeleton('kite', ('tip', 'tail')), config)


def test_from_far_the_person_is_smaller_and_still_in_the_picture():
    config = AugmentConfig(rotation_prob=0, scale=1, shift=0, flip_prob=0, far_prob=1, far=2.2)
    corners = torch.tensor([[40.0, 30, 2], [40, 130, 2], [120, 30, 2], [120, 130, 2]]).expand(50, 4, 3)
    views = sample_views(boxes_of(50, 80, 100), corners, (128, 96), 1.25, config, Draws.of(50, 2))
    zoom = views.maps[:, 0, 0] * 128 / 125
    assert zoom.min() >= 1 and 2 < zoom.max() < 2.2
    moved = move_keypoints(corners, views, range(4))
    assert (moved[..., 0] > -10).all() and (moved[..., 0] < 106).all() and (moved[..., 1] > -10).all()
    assert moved[..., 0].mean(1).std() > 3


VARIED = {
    f'augment__{name}': 0.4
    for name in ('blur_prob', 'cutout_prob', 'grey_prob', 'border_prob', 'neighbour_prob', 'dark_prob', 'noise_prob')
} | {'augment__small_prob': 0.4, 'augment__small': [8, 20], 'augment__box_jitter': 0.1, 'augment__border_keep': 2}


def test_a_sample_looks_the_same_in_one_process_and_in_two(kites):
    recipe = tiny_recipe(kites, kites / 'run', **VARIED)
    config = load_config(recipe)
    cache, _ = open_caches(config, progress=False)
    whole = Batches(cache, config).batch(5)
    parts = [Batches(cache, config, rank=rank, world=2).batch(5) for rank in (0, 1)]
    assert torch.allclose(torch.cat([p.pixels for p in parts]), whole.pixels, atol=1e-2)
    assert torch.equal(torch.cat([p.targets for p in parts]), whole.targets)
    assert [p.total for p in parts] == [whole.total] * 2
    again = next(Batches(cache, config).stream(5))
    assert torch.equal(again.pixels, whole.pixels)
    assert not torch.equal(Batches(cache, config).batch(6).pixels, whole.pixels)


def test_every_person_is_seen_once_in_each_pass(kites):
    config = load_config(tiny_recipe(kites, kites / 'run', batch_size=4))
    cache, _ = open_caches(config, progress=False)
    batches = Batches(cache, config)
    seen = np.concatenate([batches.passes.picked(step) for step in range(5)])
    assert np.array_equal(np.bincount(seen), [2] * 10)
    with pytest.raises(UserError, match='3 processes'):
        Batches(cache, config, world=3)


def test_people_come_in_proportion_to_their_weights(kites):
    data = json.loads((kites / 'train.json').read_text())
    for i, annotation in enumerate(data['annotations']):
        annotation['share'] = 2 if i < 4 else 0.5
    path = kites / 'weights.json'
    path.write_text(json.dumps(data))
    config = load_config(
        tiny_recipe(kites, kites / 'run', batch_size=5, data__labels=str(path), data__sample_weights='share')
    )
    cache, _ = open_caches(config, progress=False)
    batches = Batches(cache, config)
    # 4 and six quarters of a person, rounded down
    assert batches.steps_per_epoch == 1
    passes = [batches.passes.picked(step) for step in range(400)]
    assert all(len(set(p.tolist())) == 5 for p in passes)
    counts = np.bincount(np.concatenate(passes))
    assert np.abs(counts[:4] / 400 - 5 / 5.5).max() < 0.05
    assert np.abs(counts[4:] / counts[:4].mean() - 0.25).max() < 0.08
    data['annotations'][3]['share'] = 0
    path.write_text(json.dumps(data))
    with pytest.raises(UserError, match=r"annotation .* has 0 in 'share'.*above 0"):
        read_people(path, sample_field='share')


def test_hidden_parts_hide_and_stay_inside_their_sample():
    crops = torch.randint(0, 256, (6, 80, 80, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    keypoints = torch.tensor([[[20.0, 30.0, 2.0], [5.0, 5.0, 0.0]]]).repeat(6, 1, 1)
    maps = torch.tensor([[1.0, 0, 5], [0, 1, 9]]).repeat(6, 1, 1)
    draws = Draws.of(6, 9)
    plain = cut_views(crops, maps, (64, 48))
    assert torch.allclose(plain, crops[:, 9:73, 5:53].permute(0, 3, 1, 2).float(), atol=1e-2)
    config = AugmentConfig(colour=0, cutout_prob=1, cutout_keypoint=1, occluder=0.5)
    found = hidden_parts(keypoints, (64, 48), config, draws)
    assert found.by_piece.any() and not found.by_piece.all()
    images = augment_tones(cut_views(crops, maps, (64, 48), hidden=found), config, draws, found)
    changed = (images - plain).abs().amax(1) > 0.1
    assert changed[:, 30, 20].all()
    for i, (left, top, right, bottom) in enumerate(found.boxes.int().tolist()):
        around = changed[i].clone()
        around[top:bottom, left:right] = False
        assert not around.any()
        inside = images[i, :, top:bottom, left:right]
        if found.by_piece[i]:
            x, y = found.pieces[i].int().tolist()
            expected = plain[i, :, y : y + bottom - top, x : x + right - left].flip(2)
        else:
            expected = plain[i].mean((1, 2))[:, None, None].expand_as(inside)
        assert torch.allclose(inside, expected, atol=0.05)
    assert not hidden_parts(keypoints, (64, 48), AugmentConfig(cutout_prob=0), draws).boxes.any()


def standing(count):
    """People of 17 keypoints one below the other in a box of 100 x 200, the last of them unlabelled."""
    keypoints = torch.full((count, 17, 3), 2.0)
    keypoints[..., 0] = 150 + 30 * torch.linspace(-1, 1, 17).roll(5)
    keypoints[..., 1] = torch.linspace(110, 280, 17)
    keypoints[:, 16, 2] = 0
    return torch.tensor([[100.0, 100, 200, 300]]).repeat(count, 1), keypoints


def test_a_border_cuts_photo_box_and_labels_together():
    boxes, keypoints = standing(400)
    config = AugmentConfig(border_prob=0.9, border_keep=4)
    draws = Draws.of(400, 5)
    cut, left, borders = cut_by_border(boxes, keypoints, config, draws)
    ended = borders.isfinite()
    assert 0.85 < ended.any(1).float().mean() < 0.95 and (ended.sum(1) == 2).any()
    # left, top, right, bottom: most often the legs are gone
    assert ended[:, 3].sum() > 1.5 * ended[:, 0].sum() and ended[:, 2].sum() > ended[:, 1].sum() > 0
    kept = (left[..., 2] > 0).sum(1)
    assert (kept.min(), kept.max()) == (4, 16) and (kept < 7).any()
    assert torch.equal(kept == 16, ~ended.any(1))
    xy, labelled = left[..., :2], left[..., 2:] > 0
    assert ((xy >= cut[:, None, :2]) & (xy <= cut[:, None, 2:]) | ~labelled).all()
    assert torch.equal(cut[ended], borders[ended])
    assert (cut[:, :2] >= boxes[:, :2]).all() and (cut[:, 2:] <= boxes[:, 2:]).all()
    assert torch.equal(cut[~ended.any(1)], boxes[~ended.any(1)])
    # black beyond the border, in every direction of the view
    views = sample_views(cut, left, (64, 48), 1.25, AugmentConfig(rotation_prob=1, flip_prob=0.5), draws)
    maps, borders = views.maps[:100], borders[:100]
    images = cut_views(torch.full((100, 400, 400, 3), 255, dtype=torch.uint8), maps, (64, 48), borders)
    ys, xs = torch.meshgrid(torch.arange(64.0), torch.arange(48.0), indexing='ij')
    points = torch.stack((xs, ys, torch.ones_like(xs)), -1).view(-1, 3)
    places = points @ maps.transpose(1, 2)
    low, high = borders.clamp(0, 399)[:, None].split(2, 2)
    clear = ((places - low).abs() > 1).all(2) & ((places - high).abs() > 1).all(2)
    inside = ((places > low) & (places < high)).all(2)
    assert torch.equal((images[:, 0].flatten(1) > 254)[clear], inside[clear])
    same = cut_by_border(boxes, keypoints, AugmentConfig(), draws)
    assert torch.equal(same[0], boxes) and torch.equal(same[1], keypoints) and not same[2].isfinite().any()


def test_detector_boxes_move_each_side_by_itself():
    boxes, _ = standing(300)
    moved = jitter_boxes(boxes, AugmentConfig(box_jitter=0.1), Draws.of(300, 1)) - boxes
    most = torch.tensor([10.0, 20, 10, 20])
    assert (moved.abs().amax(0) <= most).all() and (moved.abs().amax(0) > 0.9 * most).all()
    assert torch.corrcoef(moved.T).fill_diagonal_(0).abs().max() < 0.2
    assert torch.equal(jitter_boxes(boxes, AugmentConfig(), Draws.of(300, 1)), boxes)


def test_a_neighbour_stands_beside():
    boxes, _ = standing(40)
    found = neighbours(boxes, (64, 48), Draws.of(40, 2))
    centre = (found.boxes[:, 0] + found.boxes[:, 2]) / 2
    assert ((centre - 24).abs() > 16).all() and (centre < 24).any() and (centre > 24).any()
    crops = torch.zeros(40, 320, 320, 3, dtype=torch.uint8)
    crops[:, 100:300, 100:200] = 200
    images = add_neighbours(torch.full((50, 3, 64, 48), 9.0), crops, torch.arange(40), found)
    ys, xs = torch.meshgrid(torch.arange(64.0), torch.arange(48.0), indexing='ij')
    left, top, right, bottom = found.boxes[:, :, None, None].unbind(1)
    inner = (xs > left + 1) & (xs < right - 2) & (ys > top + 1) & (ys < bottom - 2)
    outer = (xs < left) | (xs >= right) | (ys < top) | (ys >= bottom)
    assert (images[:40, 0][inner] > 190).all() and (images[:40, 0][outer] == 9).all() and (images[40:] == 9).all()


def test_tones_change_within_range():
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 255
    draws = Draws.of(4, 1)
    assert torch.allclose(augment_tones(images.clone(), AugmentConfig(colour=0), draws), images, atol=1e-3)
    changed = augment_tones(images.clone(), AugmentConfig(colour=0.2), draws)
    assert ((changed.mean((1, 2, 3)) / images.mean((1, 2, 3)) - 1).abs() < 0.21).all()
    grey = augment_tones(images.clone(), AugmentConfig(colour=0.3, grey_prob=1), draws)
    assert torch.allclose(grey[:, 0], grey[:, 2], atol=1e-3)
    assert grey.min() >= 0 and grey.max() <= 255
    dark = augment_tones(images.clone(), AugmentConfig(colour=0, dark_prob=1), draws)
    assert (dark <= images + 1e-3).all() and dark.mean() < 0.7 * images.mean()


def test_blur_is_torchvisions_and_small_people_are_coarse():
    functional = pytest.importorskip('torchvision.transforms.v2.functional')
    images = torch.rand(4, 3, 64, 48, generator=torch.Generator().manual_seed(0)) * 255
    draws = Draws.of(4, 1)
    blurred = degrade(images.clone(), AugmentConfig(blur_prob=1, blur=3), draws, 1.25)
    for was, now, size in zip(images, blurred, draws['blur_size'].tolist(), strict=True):
        expected = functional.gaussian_blur(was, [33, 33], [max(0.1, 3 * size)] * 2)
        assert (expected - now).abs().max() < 1.5
    # a ramp stays where it is, and detail beyond the small photo's pixels is gone
    ramp = torch.arange(48.0).expand(4, 3, 64, 48).contiguous()
    config = AugmentConfig(small_prob=1, small=(12.8, 12.8))
    assert (degrade(ramp.clone(), config, draws, 1.25) - ramp)[..., 12:36].abs().max() < 0.1
    coarse = degrade(images.clone(), config, draws, 1.25)
    fine = torch.fft.rfft2(coarse).abs()[..., 16:48, :].mean()
    assert fine < 0.05 * torch.fft.rfft2(images).abs()[..., 16:48, :].mean()
    noisy = degrade(torch.full((4, 3, 256, 48), 128.0), AugmentConfig(noise_prob=1, noise=20), draws, 1.25)
    assert torch.allclose(noisy.std((1, 2, 3)), 20 * draws['noise_size'], rtol=0.05)
    assert torch.equal(degrade(images.clone(), AugmentConfig(), draws, 1.25), images)


def test_weights_by_keypoint_and_person_reach_the_loss_on_the_right_side(kites):
    data = json.loads((kites / 'train.json').read_text())
    for annotation in data['annotations']:
        annotation['trust'] = [1, 3, 0.25, 0, 1]
    path = kites / 'trust.json'
    path.write_text(json.dumps(data))
    still = {f'augment__{name}': 0 for name in ('rotation_prob', 'shift', 'cutout_prob')}
    recipe = tiny_recipe(kites, kites / 'run', data__labels=str(path), data__keypoint_weights='trust', **still)
    for flip, expected in ((0, [1, 3, 0.25, 0, 1]), (1, [1, 0.25, 3, 0, 1])):
        config = load_config({**recipe, 'augment': {**recipe['augment'], 'flip_prob': flip}})
        cache, _ = open_caches(config, progress=False)
        batch = Batches(cache, config).batch(0)
        labelled = batch.keypoints[..., 2] > 0
        assert torch.equal(batch.weights, torch.tensor(expected) * labelled)
        assert batch.total == pytest.approx(float(batch.weights.sum()))
    for wrong in ([1, 2], [1, 1, 1, 1, -1], None):
        data['annotations'][3]['trust'] = wrong
        path.write_text(json.dumps(data))
        with pytest.raises(UserError, match=r"annotation 3 .*'trust'.*5 numbers.*keypoint_weights=null"):
            read_people(path, keypoint_field='trust')


def test_keypoints_known_to_be_absent_have_empty_heatmaps(kites):
    labels = json.loads((kites / 'train.json').read_text())
    count = len(labels['annotations'][0]['keypoints']) // 3
    for person in labels['annotations']:
        person['keypoints'][2] = person['keypoints'][5] = 0
        # of two unlabelled keypoints the file says of the first alone that it is nowhere to be seen
        person['trust'] = [0.5, 0.0] + [1.0] * (count - 2)
    path = kites / 'absent.json'
    path.write_text(json.dumps(labels))
    still = {'augment__rotation_prob': 0.0, 'augment__flip_prob': 0.0, 'augment__cutout_prob': 0.0}
    recipe = tiny_recipe(kites, kites / 'run', data__labels=str(path), data__keypoint_weights='trust', **still)
    for absent in (0.0, 0.3):
        config = load_config(recipe, {'target': {'absent': absent}})
        batch = Batches(open_caches(config, progress=False)[0], config).batch(0)
        torch.testing.assert_close(batch.weights[:, 0], torch.full((len(batch.weights),), 0.5 * absent))
        assert (batch.weights[:, 1] == 0).all() and (batch.weights[:, 2:] > 0).any()
        assert (batch.targets[:, :2] == 0).all() and (batch.targets[:, 2:].amax((2, 3)) > 0.5).any()
    # an empty target costs the square of what is drawn there, and nothing for its place
    drawn = torch.rand(1, 1, 8, 8)
    assert keypoint_losses(drawn, torch.zeros(1, 1, 8, 8)).item() == pytest.approx(drawn.square().sum().item())


def test_targets_peak_where_the_keypoint_is():
    keypoints = torch.tensor([[[21.0, 42.0, 2.0], [30.0, 10.0, 0.0], [200.0, 10.0, 2.0]]])
    heatmaps, weights = gaussian_heatmaps(keypoints, (16, 16), 2.0), in_view(keypoints, (16, 16))
    assert weights.tolist() == [[1, 0, 0]]
    ys, xs = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing='ij')
    expected = torch.exp(-((xs - 5.25) ** 2 + (ys - 10.5) ** 2) / 8)
    assert torch.allclose(heatmaps[0, 0], expected, atol=1e-6)
    biased = gaussian_heatmaps(keypoints, (16, 16), 2.0, unbiased=False)
    assert biased[0, 0, 11, 5] == 1


def test_unlabelled_keypoints_never_enter_the_loss():
    keypoints = torch.tensor([[[20.0, 20.0, 2.0], [40.0, 30.0, 0.0]]])
    targets, weights = gaussian_heatmaps(keypoints, (16, 16), 2.0), in_view(keypoints, (16, 16))
    heatmaps = torch.rand(1, 2, 16, 16, requires_grad=True)
    with torch.no_grad():
        heatmaps[0, 1] = 1e30
    loss = mean_loss(keypoint_losses(heatmaps, targets), weights, loss_total(weights))
    loss.backward()
    assert torch.isfinite(loss) and heatmaps.grad[0, 1].abs().sum() == 0 and heatmaps.grad[0, 0].abs().sum() > 0


def test_loss_of_a_batch_is_the_sum_of_its_parts():
    losses, weights = torch.rand(6, 5), (torch.rand(6, 5) > 0.3) * torch.tensor([1.0, 2, 0.5, 1, 1])
    for ohkm in (0, 2):
        total = loss_total(weights, ohkm)
        whole = mean_loss(losses, weights, total, ohkm)
        parts = mean_loss(losses[:2], weights[:2], total, ohkm) + mean_loss(losses[2:], weights[2:], total, ohkm)
        assert torch.allclose(whole, parts)
    assert torch.allclose(mean_loss(losses, weights, loss_total(weights)), (losses * weights).sum() / weights.sum())


def test_mining_counts_the_hardest_keypoints_only():
    losses = torch.tensor([[1.0, 5.0, 3.0], [9.0, 2.0, 4.0]])
    weights = torch.tensor([[1.0, 1.0, 1.0], [0.0, 1.0, 1.0]])
    assert mean_loss(losses, weights, loss_total(weights, 2), 2) == (5 + 3 + 4 + 2) / 4


def test_the_best_heatmap_for_a_target_is_the_target():
    targets = gaussian_heatmaps(torch.tensor([[[33.0, 18.0, 2.0]]]), (16, 16), 1.5)
    exact = keypoint_losses(targets, targets, sharpness=0)
    assert exact.item() == 0
    moved = keypoint_losses(targets.roll(1, -1), targets)
    assert moved > keypoint_losses(targets, targets)


def test_a_student_like_its_teacher_has_no_loss_and_temperature_softens():
    teacher, student = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8)
    assert teacher_losses(teacher, teacher).abs().max() < 1e-5
    assert (teacher_losses(student, teacher) > 0).all()
    plain = teacher_losses(student, teacher, 10.0, 1.0) - teacher_losses(student, teacher, 0.0)
    log_p, log_t = (torch.log_softmax(5 * h.flatten(2), -1) for h in (student, teacher))
    expected = 4 * (log_t.exp() * (log_t - log_p)).sum(-1)
    warm = teacher_losses(student, teacher, 10.0, 2.0) - teacher_losses(student, teacher, 0.0)
    assert torch.allclose(warm, expected, atol=1e-4) and not torch.allclose(warm, plain, atol=1e-2)


def test_labels_bring_their_skeleton(kites):
    people = read_people(kites / 'train.json')
    assert people.skeleton.keypoints == tuple(NAMES)
    assert people.skeleton.flip_pairs == ((1, 2),)
    assert people.skeleton.bones[0] == (0, 1)
    assert (people.keypoints[3, 4] == 0).all()
    with pytest.raises(UserError, match='5 keypoints; the skeleton has 17'):
        read_people(kites / 'train.json', 'coco')


def test_mpii_annotations_become_boxes_and_zero_based_joints(tmp_path):
    joints = [[10.0 + i, 20.0 + 2 * i] for i in range(16)]
    entry = {'image': 'a.jpg', 'center': [50, 60], 'scale': 0.5, 'joints': joints, 'joints_vis': [0] + [1] * 15}
    path = tmp_path / 'mpii.json'
    path.write_text(json.dumps([entry]))
    people = read_people(path)
    assert people.skeleton is SKELETONS['mpii']
    assert people.keypoints[0, 1].tolist() == [10, 21, 2] and people.keypoints[0, 0, 2] == 0
    # centre moved down by 15 * scale and made 0-based; side 200 * scale * 1.25, before the crop pads it again
    assert people.boxes[0].tolist() == pytest.approx([49 - 50, 66.5 - 50, 49 + 50, 66.5 + 50])
    path.write_text(json.dumps([{**entry, 'joints': joints[:3]}]))
    with pytest.raises(UserError, match='entry 0'):
        read_people(path)


def change(data, **fields):
    data['annotations'][2].update(fields)


@pytest.mark.parametrize(
    ('broken', 'says'),
    [
        (lambda d: change(d, keypoints=[1, 2]), 'annotation 2'),
        (lambda d: change(d, keypoints=['x'] * 15), 'annotation 2'),
        (lambda d: change(d, keypoints=[float('nan')] * 14 + [2]), 'finite'),
        (lambda d: change(d, bbox=[0, 0, -5, 10]), 'empty bbox'),
        (lambda d: change(d, image_id=99), 'image 99'),
        (lambda d: d.pop('images'), 'not a COCO'),
        (lambda d: d['images'][2].pop('file_name'), 'file_name'),
        (lambda d: d['categories'][0].update(keypoints=['a', 'a', 'b', 'c', 'd']), 'no name twice'),
        (lambda d: d['annotations'].__setitem__(1, 7), 'annotation entry 1'),
        (lambda d: d['images'].__setitem__(1, 7), 'image entry 1'),
    ],
)
def test_a_broken_label_file_is_named(kites, tmp_path, broken, says):
    data = json.loads((kites / 'train.json').read_text())
    broken(data)
    (tmp_path / 'labels.json').write_text(json.dumps(data))
    with pytest.raises(UserError, match=says):
        read_people(tmp_path / 'labels.json')


def test_crops_hold_the_pixels_and_are_cut_once(kites, tmp_path):
    people = read_people(kites / 'train.json')
    cache = CropCache.build(people, kites / 'images', tmp_path / 'cache', 120, margin=1.5, aspect=1.0, progress=False)
    assert cache.crops.shape == (10, 120, 120, 3)
    image = np.asarray(Image.open(kites / 'images' / people.files[0]))
    for k, (x, y) in enumerate(people.keypoints[0, :, :2]):
        cx, cy = cache.keypoints[0, k, :2].round().astype(int)
        colour = cache.crops[0, cy, cx].astype(int)
        assert np.abs(colour - image[round(y), round(x)]).max() < 25
    made = next((tmp_path / 'cache').iterdir())
    stamp = (made / 'crops.raw').stat().st_mtime_ns
    CropCache.build(people, kites / 'images', tmp_path / 'cache', 120, margin=1.5, aspect=1.0, progress=False)
    assert (made / 'crops.raw').stat().st_mtime_ns == stamp
    CropCache.build(people, kites / 'images', tmp_path / 'cache', 120, margin=1.6, aspect=1.0, progress=False)
    assert len(list((tmp_path / 'cache').iterdir())) == 2


def test_crops_of_photos_that_changed_are_cut_anew(tmp_path):
    write_kites(tmp_path, 3)
    people = read_people(tmp_path / 'train.json')
    photo = tmp_path / 'images' / people.files[1]
    whole = photo.read_bytes()
    photo.write_bytes(b'cut off')
    assert len(CropCache.build(people, tmp_path / 'images', tmp_path / 'cache', 64, progress=False)) == 2
    photo.write_bytes(whole)
    before = CropCache.build(people, tmp_path / 'images', tmp_path / 'cache', 64, progress=False)
    assert len(before) == 3
    Image.new('RGB', Image.open(photo).size).save(photo)
    after = CropCache.build(people, tmp_path / 'images', tmp_path / 'cache', 64, progress=False)
    assert not after.crops[1].any() and before.crops[1].any()
    np.testing.assert_array_equal(after.crops[2], before.crops[2])


def test_unreadable_images_are_skipped_so_often_and_then_named(tmp_path):
    write_kites(tmp_path, 5)
    (tmp_path / 'images' / 'train_001.png').write_bytes(b'no picture')
    (tmp_path / 'images' / 'train_003.png').unlink()
    people = read_people(tmp_path / 'train.json')
    with pytest.raises(UserError, match=r'max_bad_images=1; the last.*train_003'):
        CropCache.build(people, tmp_path / 'images', tmp_path / 'cache', 64, max_bad=1, progress=False)
    assert list((tmp_path / 'cache').iterdir()) == []
    cache = CropCache.build(people, tmp_path / 'images', tmp_path / 'cache', 64, max_bad=2, progress=False)
    assert cache.people.ids == (0, 2, 4) and len(cache.keypoints) == len(cache.crops) == 3


def test_a_disk_too_small_for_the_crops_is_named_before_they_are_cut(kites, tmp_path, monkeypatch):
    people = read_people(kites / 'train.json')
    full = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr('shutil.disk_usage', lambda path: full)
    with pytest.raises(UserError, match=r'data\.cache'):
        CropCache.build(people, kites / 'images', tmp_path / 'cache', 64, progress=False)


def test_unknown_and_misfitting_settings_are_refused_by_name(tmp_path):
    with pytest.raises(UserError, match=r'augment\.rotatoin: did you mean augment\.rotation'):
        load_config(None, ['augment.rotatoin=3'])
    with pytest.raises(UserError, match='lr must be a number'):
        load_config({'lr': 'fast'})
    with pytest.raises(UserError, match='size must be 2 values'):
        load_config({'size': [64]})
    with pytest.raises(UserError, match='multiples of 32'):
        load_config({'size': [100, 64]})
    with pytest.raises(UserError, match='key=value'):
        load_config(None, ['lr'])
    with pytest.raises(UserError, match='fused needs'):
        load_config({'fused': True, 'compile': 'blocks'})
    (tmp_path / 'bad.yaml').write_text('lr: [1')
    with pytest.raises(UserError, match='not valid YAML'):
        load_config(tmp_path / 'bad.yaml')
    with pytest.raises(UserError, match=r'Shipped recipes: .*finetune'):
        load_config('nothing_of_the_kind')


def test_overrides_lie_over_the_file_and_yaml_and_toml_say_the_same(tmp_path):
    (tmp_path / 'a.yaml').write_text('lr: 1e-3\naugment:\n  rotation: 10\n  flip_prob: 0\ntarget:\n')
    config = load_config(tmp_path / 'a.yaml', ['augment.rotation=25', 'target.keypoint_weights.nose=2', 'minutes=null'])
    assert (config.lr, config.augment.rotation, config.augment.flip_prob) == (1e-3, 25.0, 0.0)
    assert config.target.keypoint_weights == {'nose': 2.0} and config.minutes is None
    (tmp_path / 'a.toml').write_text('lr = 1e-3\n[augment]\nrotation = 10\nflip_prob = 0\n')
    if sys.version_info >= (3, 11):
        assert load_config(tmp_path / 'a.toml') == load_config(tmp_path / 'a.yaml')
    assert load_config(config.to_dict()) == config


def test_the_authors_recipes_ship_with_their_figures():
    assert {'coco_256x192', 'mpii_256x256', 'finetune', 'people_128x96'} <= set(shipped_configs())
    for name in shipped_configs():
        load_config(name)
    coco, mpii = load_config('coco_256x192'), load_config('mpii_256x256')
    assert (coco.lr, coco.batch_size, mpii.lr, mpii.batch_size) == (5e-4, 32 * 8, 2e-3, 16)
    for config in (coco, mpii):
        assert (config.opt, config.epochs, config.milestones, config.warmup_steps) == ('adam', 210, (170, 200), 500)
        assert config.warmup_lr == pytest.approx(config.lr * 0.001)
        assert (config.augment.rotation, config.augment.scale, config.sigma) == (30, 1.25, 2)
        assert not config.target.unbiased and config.target.sharpness == 0
    assert (coco.augment.half_body_prob, mpii.augment.half_body_prob) == (0.3, 0)


def test_sigma_follows_the_resolution():
    assert [load_config({'size': [h, 96]}).sigma for h in (128, 256, 384)] == [1, 2, 3]
