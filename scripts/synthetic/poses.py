"""Poses as joint angles: limits, base poses of sport, and how new ones are drawn from them.

A pose is float32 (J, 3) in degrees, in the order of `JOINTS`, with three angles a joint; zero is a soldier standing to
attention. The right side mirrors the left: the same numbers move both alike.

| joint | angles |
|---|---|
| spine, neck | forward, to the left, turned to the left |
| shoulder | turned in, raised from the hip (to the side), swung to the front |
| elbow | bent, forearm turned |
| wrist | bent, to the side |
| hip | forward, to the side, toes out |
| knee | bent, - , turned |
| ankle | toes down, tilted |
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from .bodies import Bank, Floats

_SIDED = ('shoulder', 'elbow', 'wrist', 'hip', 'knee', 'ankle')
JOINTS = ('spine', 'neck', *(f'{side}_{name}' for name in _SIDED for side in ('left', 'right')))
_INDEX = {name: i for i, name in enumerate(JOINTS)}
_RANGES: dict[str, tuple[tuple[float, float], ...]] = {
    'spine': ((-45, 80), (-35, 35), (-40, 40)),
    'neck': ((-50, 45), (-30, 30), (-60, 60)),
    'shoulder': ((-60, 60), (-5, 175), (-55, 115)),
    'elbow': ((2, 145), (-60, 60), (0, 0)),
    'wrist': ((-50, 50), (-20, 20), (0, 0)),
    'hip': ((-40, 135), (-20, 75), (-30, 45)),
    'knee': ((0, 145), (0, 0), (-8, 8)),
    'ankle': ((-25, 55), (-12, 12), (0, 0)),
}
LIMITS = np.array([_RANGES[name.split('_')[-1]] for name in JOINTS], np.float32)
"""float32 (J, 3, 2), lowest and highest angles in degrees."""

_MIRROR = np.array(
    [_INDEX[name.replace('left', '?').replace('right', 'left').replace('?', 'right')] for name in JOINTS]
)
_GROUPS = (
    [i for i, name in enumerate(JOINTS) if name.split('_')[-1] in ('shoulder', 'elbow', 'wrist')],
    [i for i, name in enumerate(JOINTS) if name.split('_')[-1] in ('hip', 'knee', 'ankle')],
    [_INDEX[f'left_{name}'] for name in ('shoulder', 'elbow', 'wrist')],
    [_INDEX[f'left_{name}'] for name in ('hip', 'knee', 'ankle')],
    [_INDEX['spine'], _INDEX['neck']],
)


@dataclass(frozen=True)
class Pose:
    """Angles and the attitude of the whole body.

    Attributes:
        angles: float32 (J, 3), degrees.
        root: float32 (3, 3), rotation from the axes of the body at rest to those of the world, z up.
        lift: Height of the lowest point above the ground in body lengths, at most; 0 stands, sits or lies on it.
    """

    angles: Floats
    root: Floats
    lift: float = 0.0


# pitch: 90 lies on the face, 180 is upside down, -90 lies on the back; roll: 90 lies on the left side
_BASE: tuple[tuple[float, float, float, dict[str, tuple[float, ...]]], ...] = (
    (0, 0, 0, {'shoulder': (0, 15, 5), 'elbow': (20,)}),
    (0, 0, 0, {'shoulder': (0, 165, 0), 'elbow': (15,)}),
    (0, 0, 0, {'shoulder': (0, 90, 0), 'elbow': (10,), 'hip': (5, 20, 10)}),
    (0, 0, 0, {'shoulder': (30, 25, -15), 'elbow': (80, -30), 'hip': (0, 12, 10)}),
    (12, 0, 0.1, {'left_hip': (65,), 'left_knee': (80,), 'right_hip': (-20,), 'right_knee': (35,), 'ankle': (25,),
                  'left_shoulder': (0, 20, -45), 'right_shoulder': (0, 20, 50), 'elbow': (95,)}),
    (18, 0, 0, {'left_hip': (95,), 'left_knee': (105,), 'right_hip': (-25,), 'right_knee': (8,),
                'right_ankle': (40,), 'left_shoulder': (0, 25, -50), 'right_shoulder': (0, 25, 60), 'elbow': (85,)}),
    (5, 0, 0, {'left_hip': (95, 5), 'left_knee': (95,), 'right_hip': (-30,), 'right_knee': (40,),
               'shoulder': (0, 30, 20), 'elbow': (40,)}),
    (20, 0, 0, {'hip': (95, 20, 15), 'knee': (100,), 'ankle': (-20,), 'spine': (20,), 'shoulder': (0, 40, 70)}),
    (35, 0, 0, {'hip': (125, 25, 15), 'knee': (140,), 'ankle': (-20,), 'spine': (35,), 'shoulder': (0, 30, 50)}),
    (180, 0, 0, {'shoulder': (0, 172, 5), 'elbow': (5,), 'ankle': (45,), 'neck': (-30,)}),
    (180, 0, 0, {'shoulder': (0, 170, 5), 'elbow': (5,), 'left_hip': (80,), 'right_hip': (-35,), 'neck': (-35,)}),
    (180, 0, 0, {'shoulder': (0, 165, 5), 'elbow': (10,), 'hip': (20, 60, 10), 'neck': (-25,)}),
    (170, 0, 0, {'shoulder': (0, 160, 15), 'elbow': (10,), 'hip': (70, 10), 'knee': (100,), 'neck': (-30,)}),
    (200, 0, 0.8, {'hip': (125, 10), 'knee': (130,), 'spine': (45,), 'neck': (25,), 'shoulder': (0, 25, 75),
                   'elbow': (50,)}),
    (90, 0, 0.8, {'hip': (120, 10), 'knee': (125,), 'spine': (40,), 'shoulder': (0, 25, 80), 'elbow': (40,)}),
    (150, 0, 0.8, {'hip': (110,), 'knee': (5,), 'spine': (35,), 'shoulder': (0, 40, 95), 'ankle': (40,)}),
    (-140, 0, 0.6, {'spine': (-35,), 'hip': (-20,), 'knee': (15,), 'shoulder': (0, 165, 0), 'neck': (-35,)}),
    (-110, 0, 0.5, {'spine': (-40,), 'hip': (-10, 15), 'knee': (70,), 'shoulder': (0, 100, -20), 'neck': (-20,)}),
    (0, 120, 0, {'shoulder': (0, 120, 0), 'hip': (5, 60, 10), 'neck': (-10,)}),
    (0, 180, 0, {'shoulder': (0, 150, 0), 'hip': (5, 65, 10), 'neck': (-10,)}),
    (20, 100, 0.6, {'hip': (100, 30), 'knee': (110,), 'spine': (30,), 'shoulder': (0, 40, 60), 'elbow': (70,)}),
    (50, 0, 0.4, {'shoulder': (0, 20, 60), 'elbow': (10,), 'hip': (95, 20), 'knee': (110,), 'spine': (20,)}),
    (60, 40, 0.4, {'left_shoulder': (0, 30, 50), 'right_shoulder': (0, 60, 0), 'left_hip': (90, 30),
                   'left_knee': (60,), 'right_hip': (60, 50), 'right_knee': (20,)}),
    (-10, 0, 0.5, {'hip': (80, 15), 'knee': (90,), 'shoulder': (0, 110, 40), 'elbow': (20,), 'spine': (15,)}),
    (0, 0, 0.5, {'shoulder': (0, 170, 10), 'elbow': (10,), 'hip': (5,), 'ankle': (30,)}),
    (-15, 0, 0.5, {'shoulder': (0, 165, 30), 'elbow': (40,), 'left_hip': (100,), 'left_knee': (110,),
                   'right_hip': (40,), 'right_knee': (60,)}),
    (-100, 0, 0, {'shoulder': (0, 165, -10), 'spine': (-45,), 'hip': (-25, 12), 'knee': (75,), 'neck': (-40,)}),
    (80, 0, 0, {'shoulder': (0, 40, 90), 'elbow': (5,), 'ankle': (-20,), 'neck': (-25,)}),
    (70, 0, 0, {'shoulder': (0, 40, 85), 'elbow': (80,), 'ankle': (-20,), 'neck': (-20,)}),
    (-15, 0, 0, {'hip': (90, 25), 'knee': (10,), 'shoulder': (0, 30, -20), 'elbow': (10,)}),
    (0, 0, 0, {'left_hip': (100,), 'right_hip': (-40,), 'shoulder': (0, 90, 0), 'ankle': (45,)}),
    (60, 0, 0, {'left_hip': (60,), 'right_hip': (-35,), 'right_ankle': (45,), 'shoulder': (0, 90, 10), 'neck': (-30,)}),
    (-10, 15, 0, {'left_hip': (120, 20), 'left_knee': (10,), 'right_hip': (-5,), 'shoulder': (0, 50, 20),
                  'elbow': (70,)}),
    (-15, 0, 0, {'spine': (-15, 10, -25), 'right_shoulder': (0, 120, -45), 'right_elbow': (60,),
                 'left_shoulder': (0, 80, 50), 'left_hip': (45, 10), 'right_hip': (-20, 10), 'right_knee': (30,)}),
    (35, 0, 0.5, {'left_hip': (105,), 'left_knee': (20,), 'right_hip': (50, 70), 'right_knee': (115,),
                  'right_shoulder': (0, 40, 80), 'left_shoulder': (0, 40, -20), 'elbow': (50,)}),
    (-20, 0, 0.5, {'hip': (100, 8), 'knee': (25,), 'shoulder': (0, 130, 30), 'spine': (30,)}),
    (55, 0, 0, {'spine': (50,), 'hip': (60,), 'knee': (15,), 'shoulder': (0, 25, 80)}),
    (130, 0, 0, {'spine': (60,), 'hip': (120,), 'knee': (110,), 'neck': (40,), 'shoulder': (0, 40, 100)}),
)  # fmt: skip


def rotation(degrees: npt.ArrayLike) -> Floats:
    """Rotation vectors (..., 3) in degrees to matrices (..., 3, 3), float32."""
    vector = np.radians(np.asarray(degrees, np.float32))
    angle = np.linalg.norm(vector, axis=-1)[..., None, None]
    x, y, z = np.moveaxis(vector, -1, 0)
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*vector.shape[:-1], 3, 3)
    safe = np.maximum(angle, 1e-8)
    turned = np.eye(3) + np.sin(safe) / safe * cross + (1 - np.cos(safe)) / safe**2 * (cross @ cross)
    return turned.astype(np.float32)


def mirrored(pose: Pose) -> Pose:
    """What a mirror between left and right shows."""
    angles = pose.angles[_MIRROR].copy()
    angles[:2, 1:] *= -1
    sign = np.array([-1, 1, 1], np.float32)
    return replace(pose, angles=angles, root=pose.root * sign[:, None] * sign)


def base_poses() -> list[Pose]:
    """The poses made by hand."""
    poses = []
    for pitch, roll, lift, joints in _BASE:
        angles = np.zeros((len(JOINTS), 3), np.float32)
        # names without a side go first, so that a side can differ
        for name in sorted(joints, key=lambda name: '_' in name):
            for i, joint in enumerate(JOINTS):
                if joint == name or ('_' not in name and joint.endswith(f'_{name}')):
                    angles[i, : len(joints[name])] = joints[name]
        poses.append(Pose(angles, rotation([0, roll, 0]) @ rotation([pitch, 0, 0]), lift))
    return poses


def drives(bank: Bank) -> dict[int, tuple[int, Floats, Floats]]:
    """How the angles of a pose turn the bones of a bank of bodies.

    Args:
        bank: The bodies; axes are taken from the first.

    Returns:
        For each bone the index of its joint, the axes (3, 3) in rest, a row for an angle, scaled by the bone's share of
        the turn, and the angles (3,) of the joint at rest.
    """
    heads = bank.heads[0]

    def along(start: str, end: str) -> Floats:
        vector = heads[bank.bone(end)] - heads[bank.bone(start)]
        return vector / np.linalg.norm(vector)

    upper, fore = along('upperarm01.L', 'lowerarm01.L'), along('lowerarm01.L', 'wrist.L')
    leg = along('upperleg01.L', 'foot.L')
    bend = np.cross(upper, fore)
    bent = float(np.degrees(np.arcsin(np.linalg.norm(bend))))
    bend /= np.linalg.norm(bend)
    front = np.cross(upper, [0, -1, 0])
    front /= np.linalg.norm(front)
    x, y, z = np.eye(3)
    none = np.zeros(3)
    raised = float(np.degrees(np.arctan2(upper[0], -upper[2])))
    spread = float(np.degrees(np.arctan2(leg[0], -leg[2])))
    out: dict[int, tuple[int, Floats, Floats]] = {}

    def drive(bone: str, joint: str, axes: list[Any], rest: tuple[float, float, float] = (0, 0, 0)) -> None:
        out[bank.bone(bone)] = (_INDEX[joint], np.array(axes, np.float32), np.array(rest, np.float32))

    for bone in ('spine05', 'spine04', 'spine03', 'spine02', 'spine01'):
        drive(bone, 'spine', [x / 5, y / 5, z / 5])
    for bone in ('neck01', 'neck02', 'neck03', 'head'):
        drive(bone, 'neck', [x / 4, y / 4, z / 4])
    for side, letter in (('left', 'L'), ('right', 'R')):
        # a mirror between left and right keeps the x of an axis of rotation and turns the rest around
        m = np.ones(3) if letter == 'L' else np.array([1, -1, -1])
        rest = (0.0, raised, 0.0)
        # the collar bone takes its part when an arm is raised
        drive(f'clavicle.{letter}', f'{side}_shoulder', [none, -0.17 * y * m, none], rest)
        drive(f'upperarm01.{letter}', f'{side}_shoulder', [upper * m, -0.83 * y * m, front * m], rest)
        drive(f'lowerarm01.{letter}', f'{side}_elbow', [bend * m, none, none], (bent, 0, 0))
        drive(f'lowerarm02.{letter}', f'{side}_elbow', [none, fore * m, none])
        drive(f'wrist.{letter}', f'{side}_wrist', [bend * m, np.cross(bend, fore) * m, none])
        drive(f'upperleg01.{letter}', f'{side}_hip', [-x * m, -y * m, z * m], (0, spread, 0))
        drive(f'lowerleg01.{letter}', f'{side}_knee', [x * m, none, z * m])
        drive(f'foot.{letter}', f'{side}_ankle', [x * m, y * m, none])
    return out


def turns(pose: Pose, moved: dict[int, tuple[int, Floats, Floats]]) -> dict[int, Floats]:
    """Rotations of the bones (`Bank.posed`) in a pose."""
    bones = list(moved)
    vectors = np.stack([(pose.angles[joint] - rest) @ axes for joint, axes, rest in moved.values()])
    return {0: pose.root, **dict(zip(bones, rotation(vectors), strict=True))}


def draw_pose(rng: np.random.Generator, bank: list[Pose], strangeness: float = 0.1) -> Pose:
    """Draw a new pose from a bank: mixed limbs, mirror, play in every joint, turned to a random side.

    Args:
        rng: Source of chance.
        bank: Poses to start from.
        strangeness: Share that is drawn from the joint limits alone.

    Returns:
        A pose within the limits.
    """
    pose = bank[rng.integers(len(bank))]
    angles = pose.angles.copy()
    low, high = LIMITS[..., 0], LIMITS[..., 1]
    if rng.random() < strangeness:
        angles = (low + (high - low) * rng.beta(1.6, 1.6, low.shape)).astype(np.float32)
        # a body bent to every limit at once is no athlete's
        angles[:2] *= 0.5
        angles[_GROUPS[0], 0] *= 0.6
    elif rng.random() < 0.4:
        other = bank[rng.integers(len(bank))]
        group = _GROUPS[rng.integers(len(_GROUPS))]
        angles[group] = (mirrored(other) if rng.random() < 0.5 else other).angles[group]
    spread = rng.gamma(2.0, 0.025)
    angles = angles + rng.normal(0, 1, angles.shape) * (high - low) * spread
    drawn = replace(pose, angles=np.clip(angles, low, high).astype(np.float32))
    if rng.random() < 0.5:
        drawn = mirrored(drawn)
    root = rotation(rng.normal(0, 1, 3) * rng.gamma(2.0, 5.0)) @ drawn.root
    lift = drawn.lift
    if rng.random() < 0.12:
        # somersaults pass every attitude
        root, lift = rotation(rng.normal(0, 1, 3) * 120) @ root, 0.8
    return Pose(drawn.angles, rotation([0, 0, rng.uniform(-180, 180)]) @ root, float(lift * rng.uniform(0.1, 1)))
