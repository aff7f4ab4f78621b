import numpy as np
import pytest
import torch

from widehrnet_zoo.errors import UserError
from widehrnet_zoo.pose.decoding import DECODERS, decode_heatmaps
from widehrnet_zoo.pose.flip import flip_heatmaps


def gaussians(points, size=(64, 48), sigma=2.0, height=1.0):
    y, x = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing='ij')
    points = torch.as_tensor(points, dtype=torch.float64)
    square = (x - points[:, 0, None, None]) ** 2 + (y - points[:, 1, None, None]) ** 2
    return (height * torch.exp(-square / (2 * sigma**2)))[None].float()


def test_a_quarter_pixel_towards_the_larger_neighbour():
    heatmaps = torch.zeros(1, 3, 8, 8)
    heatmaps[0, 0, 4, 3], heatmaps[0, 0, 4, 4], heatmaps[0, 0, 3, 3] = 0.9, 0.5, 0.1
    heatmaps[0, 1, 1, 5], heatmaps[0, 1, 1, 6] = 0.8, 0.5
    heatmaps[0, 2, 5, 5] = -0.1
    heatmaps[0, 2] -= 1
    points, scores = decode_heatmaps(heatmaps)
    # the second lies on row 1, where the published decoder does not look at neighbours, in neither direction
    assert points[0].tolist() == [[3.25, 3.75], [5, 1], [0, 0]]
    np.testing.assert_allclose(scores[0], [0.9, 0.8, -1])


@pytest.mark.parametrize(('decoder', 'error'), [('quarter', 0.36), ('dark', 0.001), ('soft', 0.01)])
@pytest.mark.parametrize('height', [1.0, 0.3])
def test_decoders_find_gaussians_between_pixels(decoder, error, height):
    centres = np.random.default_rng(0).uniform((9, 9), (38, 54), (200, 2))
    points, scores = decode_heatmaps(gaussians(centres, height=height), decoder)
    distance = np.linalg.norm(points[0].numpy() - centres, axis=1)
    assert distance.max() < error
    assert (scores <= height).all() and (scores > 0.9 * height).all()


@pytest.mark.parametrize('decoder', DECODERS)
@pytest.mark.parametrize('heatmaps', [torch.zeros(2, 3, 16, 12), -torch.rand(2, 3, 16, 12), torch.rand(1, 1, 1, 1)])
def test_decoders_stay_on_the_heatmap_whatever_it_is(decoder, heatmaps):
    points, scores = decode_heatmaps(heatmaps, decoder)
    assert torch.isfinite(points).all() and torch.isfinite(scores).all()
    limit = torch.tensor([heatmaps.shape[3], heatmaps.shape[2]])
    assert (points >= -0.5).all() and (points <= limit).all()


@pytest.mark.parametrize('decoder', DECODERS)
def test_noise_moves_no_keypoint_far_from_its_maximum(decoder):
    heatmaps = torch.rand(4, 17, 32, 24, generator=torch.Generator().manual_seed(0))
    points, _ = decode_heatmaps(heatmaps, decoder)
    index = heatmaps.flatten(2).argmax(2)
    maxima = torch.stack((index % 24, index // 24), -1)
    assert (points - maxima).abs().max() <= {'quarter': 0.25, 'dark': 2, 'soft': 4}[decoder]


def test_dark_follows_its_formula():
    # a smooth bump without symmetry, worked by hand: Newton's step from the maximum on the smoothed logarithm
    heatmap = (gaussians([[20.3, 30.2]]) + 0.4 * gaussians([[22.1, 27.4]], sigma=3))[0, 0].double()
    row, column = divmod(int(heatmap.argmax()), 48)
    steps = torch.arange(-5, 6).double()
    kernel = torch.exp(-(steps**2) / 8)
    kernel = torch.outer(kernel, kernel) / kernel.sum() ** 2
    smooth = torch.nn.functional.conv2d(heatmap[None, None], kernel[None, None], padding=5)[0, 0].log()
    at = lambda dx, dy: smooth[row + dy, column + dx].item()  # noqa: E731
    gradient = np.array([at(1, 0) - at(-1, 0), at(0, 1) - at(0, -1)]) / 2
    cross = (at(1, 1) - at(-1, 1) - at(1, -1) + at(-1, -1)) / 4
    hessian = [[(at(2, 0) - 2 * at(0, 0) + at(-2, 0)) / 4, cross], [cross, (at(0, 2) - 2 * at(0, 0) + at(0, -2)) / 4]]
    expected = np.array([column, row]) - np.linalg.solve(hessian, gradient)
    points, _ = decode_heatmaps(heatmap[None, None].float(), 'dark')
    np.testing.assert_allclose(points[0, 0], expected, atol=2e-3)


@pytest.mark.parametrize(('size', 'sigma'), [((64, 48), 2.0), ((32, 24), 1.2), ((96, 72), 3.0)])
def test_dark_is_as_exact_at_the_border_as_in_the_middle(size, sigma):
    random = np.random.default_rng(0)
    along = random.uniform((-0.5, 12), (10, size[0] - 12), (200, 2))
    # the left border, the right one, the top, and the corners
    right, top = along * (-1, 1) + (size[1] - 1, 0), along[:, ::-1] * (0.5, 1)
    corners = random.uniform(-0.5, 3, (50, 2))
    for centres in (along, right, top, corners):
        points, _ = decode_heatmaps(gaussians(centres, size, sigma), 'dark')
        assert np.abs(points[0].numpy() - centres).max() < 0.01


def test_dark_at_the_border_follows_noise_no_more_than_in_the_middle():
    random = np.random.default_rng(0)
    centres = np.concatenate([random.uniform((1, 12), (3, 52), (200, 2)), random.uniform((20, 20), (28, 44), (200, 2))])
    noise = 0.02 * torch.randn(1, 400, 64, 48, generator=torch.Generator().manual_seed(0))
    points, _ = decode_heatmaps(gaussians(centres) + noise, 'dark')
    border, middle = np.sqrt((points[0].numpy() - centres) ** 2).reshape(2, 200, 2).mean((1, 2))
    assert border < 1.5 * middle


@pytest.mark.parametrize('decoder', DECODERS)
def test_arrays_give_what_tensors_give(decoder):
    centres = np.random.default_rng(0).uniform((-1, -1), (48, 64), (100, 2))
    heatmaps = gaussians(centres) + 0.05 * torch.rand(1, 100, 64, 48, generator=torch.Generator().manual_seed(0))
    expected, found = decode_heatmaps(heatmaps, decoder), decode_heatmaps(heatmaps.numpy(), decoder)
    for values, others in zip(expected, found, strict=True):
        assert isinstance(others, np.ndarray) and others.dtype == np.float32
        np.testing.assert_allclose(others, values, atol=1e-4)
    order = np.roll(np.arange(100), 1)
    for shift in (True, False):
        back = flip_heatmaps(heatmaps.numpy(), order, shift)
        np.testing.assert_array_equal(back, flip_heatmaps(heatmaps, order.tolist(), shift))
    assert decode_heatmaps(np.zeros((0, 17, 64, 48), np.float32), decoder)[0].shape == (0, 17, 2)


def test_mirrored_heatmaps_come_back_with_pairs_swapped_and_one_pixel_on():
    heatmaps = torch.arange(2 * 3 * 2 * 4.0).reshape(2, 3, 2, 4)
    back = flip_heatmaps(heatmaps, [0, 2, 1], shift=False)
    assert torch.equal(back[:, 1], heatmaps[:, 2].flip(2))
    assert torch.equal(back[:, 0], heatmaps[:, 0].flip(2))
    shifted = flip_heatmaps(heatmaps, [0, 2, 1])
    assert torch.equal(shifted[..., 1:], back[..., :-1])
    assert torch.equal(shifted[..., 0], back[..., 0])


def test_unknown_decoders_and_shapes_are_refused():
    with pytest.raises(UserError, match='quarter, dark, soft'):
        decode_heatmaps(torch.zeros(1, 1, 4, 4), 'udp')
    with pytest.raises(UserError, match='B, K, h, w'):
        decode_heatmaps(torch.zeros(1, 4, 4))


def test_dark_smooths_small_heatmaps_less():
    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(24.0), indexing='ij')
    bump = lambda x, y: torch.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 2.88)  # noqa: E731
    points, _ = decode_heatmaps((bump(8.3, 12.2) + 0.7 * bump(12.0, 12.2))[None, None], 'dark')
    # the kernel of 64 rows answers 9.2
    assert abs(points[0, 0, 0] - 8.3) < 0.4 and abs(points[0, 0, 1] - 12.2) < 0.01
