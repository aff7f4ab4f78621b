"""Poses of real people from their keypoints: the joint angles whose picture is nearest to the labels.

One batch for everybody: Adam on the angles (kept inside the joint limits by a sigmoid) and on the attitude of the body,
with a camera far away whose scale and place have a closed form. Four starts, turned by 90 degrees; the best stays.
Depth is a guess that joint limits make: the poses are plausible, not those that were photographed.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from widehrnet_zoo.pose.skeletons import SKELETONS

from .bodies import Bank, Floats, save_arrays
from .poses import LIMITS, Pose, drives, rotation

LABELLED = 15  # keypoints that a person must have
_STARTS = 4
_FAR = 0.06  # of the person's length: errors beyond it count less and less
_PRIOR = 0.01
_FACE = 5


def read_people(path: Path, most: int, seed: int) -> Floats:
    """Keypoints of people with most of them labelled.

    Args:
        path: COCO labels.
        most: At most so many, drawn by chance.
        seed: Of the draw.

    Returns:
        float32 (N, 17, 3), x and y in pixels and COCO's flag.
    """
    try:
        people = json.loads(path.read_text())['annotations']
        points = [np.array(person['keypoints'], np.float32).reshape(-1, 3) for person in people]
    except (OSError, ValueError, KeyError, TypeError) as error:
        sys.exit(f'{path} cannot be read as COCO labels: {error!r}.')
    count = len(SKELETONS['coco'].keypoints)
    whole = [rows for rows in points if len(rows) == count and (rows[:, 2] > 0).sum() >= LABELLED]
    if not whole:
        sys.exit(f'{path} has nobody with {LABELLED} of the {count} keypoints labelled.')
    order = np.random.default_rng(seed).permutation(len(whole))[:most]
    return np.stack([whole[i] for i in order])


def fit_poses(bank: Bank, people: Floats, steps: int = 130, worst: float = 0.045) -> list[Pose]:
    """Find poses that look like people do.

    Args:
        bank: Bodies; the average one is fitted.
        people: float32 (N, 17, 3), x and y in pixels and COCO's flag.
        steps: Of the optimiser, with all starts; the best start then gets as many again.
        worst: People whose mean error stays above this share of their length are left out.

    Returns:
        The poses of the others.
    """
    import torch

    body = _Body(bank)
    known = torch.tensor((people[..., 2] > 0).astype(np.float32))
    share = known[..., None] / known.sum(1)[:, None, None]
    target = torch.tensor(people[..., :2])
    target = (target - (target * share).sum(1, keepdim=True)) * known[..., None]
    size = (target.amax(1) - target.amin(1)).amax(1)
    target = target / size[:, None, None]
    up = (target[:, 5:7] - target[:, 11:13]).mean(1).numpy()
    lean = np.degrees(np.arctan2(up[:, 0], -up[:, 1]))
    starts = []
    for start in range(_STARTS):
        yaw = rotation(np.array([0, 0, 360 * start / _STARTS + 20]))
        starts.append(rotation(lean[:, None] * np.array([[0, 1, 0]])) @ yaw)
    low, high = torch.tensor(LIMITS[..., 0]), torch.tensor(LIMITS[..., 1])
    ranges = (high - low).clamp(min=1e-3)
    rest = ((0 - low) / ranges).clamp(0.08, 0.92)
    first = torch.logit(rest)

    def run(root: Any, free: Any, goal: Any, share: Any) -> tuple[Any, Any, Any, Any]:
        """Descend from a start: attitudes, free angles, errors and losses of each person."""
        known = share > 0
        turn = torch.zeros(len(root), 3, requires_grad=True)
        free = free.clone().requires_grad_(True)
        optimiser = torch.optim.Adam([turn, free], lr=0.06)
        weight = torch.ones(goal.shape[1])  # faces are small and often turned away
        weight[:_FACE] = 0.5
        for step in range(steps + 1):
            angles = low + ranges * torch.sigmoid(free)
            points = body.keypoints(angles, _matrices(turn) @ root)
            flat = torch.stack([points[..., 0], -points[..., 2]], -1)
            flat = (flat - (flat * share).sum(1, keepdim=True)) * known
            scale = (flat * goal).sum((1, 2)) / (flat**2).sum((1, 2)).clamp(min=1e-6)
            error = (flat * scale[:, None, None] - goal).square().sum(-1)
            cost = (error / (error + _FAR**2) * weight * share[..., 0]).sum(1) * _FAR
            loss = cost + _PRIOR * (torch.sigmoid(free) - rest).square().mean((1, 2))
            if step == steps:
                break
            optimiser.zero_grad()
            loss.sum().backward()
            optimiser.step()
        with torch.no_grad():
            return _matrices(turn) @ root, free.detach(), (error.sqrt() * share[..., 0]).sum(1).detach(), loss.detach()

    count = len(people)
    free = first.expand(_STARTS * count, *first.shape)
    root, free, _, loss = run(
        torch.tensor(np.concatenate(starts)), free, target.repeat(_STARTS, 1, 1), share.repeat(_STARTS, 1, 1)
    )
    best = loss.reshape(_STARTS, count).argmin(0) * count + torch.arange(count)
    root, free, error, _ = run(root[best], free[best], target, share)
    angles = (low + ranges * torch.sigmoid(free)).numpy()
    kept = np.flatnonzero(error.numpy() < worst)
    # every second may be in the air: a single photo does not tell
    return [Pose(angles[i], root[i].numpy(), 0.4 * (i % 2)) for i in kept]


class _Body:
    """Keypoints of the average body as a function of a pose, without its mesh.

    A keypoint is a weighted mean of vertices and a vertex one of bones, so a keypoint is one of bones too.
    """

    def __init__(self, bank: Bank) -> None:
        import torch

        self.drives = drives(bank)
        driven = sorted({0, *self.drives})
        place = {bone: i for i, bone in enumerate(driven)}
        carrier: list[int] = []
        for bone, parent in enumerate(bank.parents):
            carrier.append(place[bone] if bone in place else carrier[parent])
        self.parents = [carrier[bank.parents[bone]] if bone else -1 for bone in driven]
        self.heads = torch.tensor(bank.heads[0, driven])
        rest = np.concatenate([bank.rest[0], np.ones((len(bank.rest[0]), 1), np.float32)], 1)
        lever = np.zeros((len(bank.keypoint_weights), len(driven), 4), np.float32)
        skinning = bank.skinning.toarray()
        for k, weights in enumerate(bank.keypoint_weights):
            rows = np.flatnonzero(weights)
            each = np.einsum('v,vb,vi->bi', weights[rows], skinning[rows], rest[rows])
            np.add.at(lever[k], carrier, each)
        self.lever = torch.tensor(lever)
        moved = [self.drives[bone] for bone in driven[1:]]
        self.joint = [joint for joint, _, _ in moved]
        self.axes = torch.tensor(np.stack([axes for _, axes, _ in moved]))
        self.rest = torch.tensor(np.stack([rest for _, _, rest in moved]))

    def keypoints(self, angles: Any, root: Any) -> Any:
        """Keypoints (N, 17, 3) in metres for angles (N, J, 3) in degrees and attitudes (N, 3, 3)."""
        import torch

        vectors = torch.einsum('nbi,bij->nbj', angles[:, self.joint] - self.rest, self.axes)
        turn = _matrices(torch.deg2rad(vectors))
        turns, shifts = [root], [torch.zeros(len(root), 3)]
        for i in range(1, len(self.parents)):
            parent, head = self.parents[i], self.heads[i]
            local = turn[:, i - 1]
            shift = head - local @ head
            shifts.append(shifts[parent] + (turns[parent] @ shift[..., None])[..., 0])
            turns.append(turns[parent] @ local)
        whole = torch.cat([torch.stack(turns, 1), torch.stack(shifts, 1)[..., None]], -1)
        return torch.einsum('nbij,kbj->nki', whole, self.lever)


def _matrices(vectors: Any) -> Any:
    """Rotation vectors (..., 3) in radians to matrices (..., 3, 3), by Rodrigues' formula."""
    import torch

    angle = (vectors.square().sum(-1) + 1e-12).sqrt()[..., None, None]
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*vectors.shape[:-1], 3, 3)
    return torch.eye(3) + angle.sin() / angle * cross + (1 - angle.cos()) / angle**2 * (cross @ cross)


def save_poses(path: Path, poses: list[Pose]) -> None:
    """Write as NumPy archive."""
    columns = {name: np.array([getattr(pose, name) for pose in poses]) for name in ('angles', 'root', 'lift')}
    save_arrays(path, **columns)


def load_poses(path: Path) -> list[Pose]:
    """Read what `save_poses` wrote."""
    with np.load(path) as data:
        return [Pose(*row) for row in zip(data['angles'], data['root'], data['lift'].tolist(), strict=True)]
