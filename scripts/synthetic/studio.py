"""One photo of one made-up person."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from .bodies import Bank, Floats
from .camera import draw_camera, draw_cover, photograph
from .clothes import Tailor, dress
from .labels import annotation, visibility
from .paint import Look
from .poses import Pose, draw_pose, drives, rotation, turns
from .render import Picture
from .scenes import draw_backdrop, draw_scene

_FINGERS = ('finger2', 'finger3', 'finger4', 'finger5')


@dataclass
class Photo:
    """What is kept of a person: the picture as JPEG, and the entries of the label file."""

    content: bytes
    image: dict[str, Any]
    annotation: dict[str, Any]


class Studio:
    """Makes photos from a bank of bodies and one of poses."""

    def __init__(self, bank: Bank, poses: list[Pose], seed: int) -> None:
        """Get ready.

        Args:
            bank: Bodies.
            poses: Poses to draw from.
            seed: The photo of a number depends on it and on both banks alone.
        """
        self.bank, self.poses, self.seed = bank, poses, seed
        self.tailor = Tailor(bank)
        self.drives = drives(bank)

    def stand(self, rng: np.random.Generator) -> tuple[int, Floats, float]:
        """A body in a pose: its index, vertices float32 (V, 3) in metres over the ground, and its lift in metres."""
        for _ in range(20):
            body = int(rng.integers(len(self.bank.rest)))
            pose = draw_pose(rng, self.poses)
            moved = turns(pose, self.drives)
            self._curl(rng, moved)
            points = self.bank.posed(body, moved)
            if fits(np.asarray(self.bank.regressor @ points)):
                break
        tall = float(np.ptp(self.bank.rest[body, :, 2]))
        lift = pose.lift * tall
        points[:, :2] -= points[:, :2].mean(0)
        points[:, 2] += lift - points[:, 2].min()
        return body, points, lift

    def _curl(self, rng: np.random.Generator, moved: dict[int, Floats]) -> None:
        """Close the hands a little, or to fists."""
        heads = self.bank.heads[0]
        for letter, sign in (('L', 1), ('R', -1)):
            across = heads[self.bank.bone(f'finger5-1.{letter}')] - heads[self.bank.bone(f'finger2-1.{letter}')]
            across = across / np.linalg.norm(across) * sign
            bend = rng.choice([5.0, 20.0, 45.0, 75.0]) + rng.normal(0, 5)
            for finger in _FINGERS:
                for part in (1, 2, 3):
                    moved[self.bank.bone(f'{finger}-{part}.{letter}')] = rotation(across * bend)

    def photo(self, number: int) -> Photo:
        """Make the photo of a number."""
        rng = np.random.default_rng([self.seed, number])
        body, points, lift = self.stand(rng)
        female = float(self.bank.gender[body])
        shells = dress(rng, self.tailor, female)
        mesh = self.tailor.sew(shells, points)
        look = Look(rng, self.tailor, [shell.name for shell in shells], female)
        keypoints = np.asarray(self.bank.regressor @ points)
        camera = draw_camera(rng, keypoints)
        scene = draw_scene(rng, lift, np.pi / 2)
        picture = Picture(mesh, look, scene)
        backdrop = draw_backdrop(rng, camera.width, camera.height, camera.horizon, scene.sky_light + scene.sun_light)
        middles = [
            (keypoints[a] + keypoints[b]) / 2 for a, b in ((5, 12), (6, 11), (11, 13), (12, 14), (13, 15), (14, 16))
        ]
        light = picture.light(rng, camera, backdrop, np.concatenate([keypoints, middles]))
        places, far = camera.project(keypoints)
        hit = picture.tracer.hits(camera.place, camera.rays(*places.T))
        first = np.where(hit['primID'] >= 0, hit['tfar'], np.inf)
        cover = draw_cover(rng, camera.width, camera.height)
        opacity = None
        if cover is not None:
            opacity, colour = cover
            shown = opacity[..., None]
            light = light * (1 - shown) + colour * scene.sky_light * shown
        flags = visibility(places, far, first, camera.width, camera.height, opacity)
        name = f'synthetic_{number:06d}.jpg'
        image = {'id': number, 'file_name': name, 'width': camera.width, 'height': camera.height, 'source': 'synthetic'}
        label = annotation(number, places, flags, camera.width, camera.height)
        return Photo(photograph(rng, light.astype(np.float32)), image, label)


def fits(keypoints: Floats) -> bool:
    """Whether no hand, elbow, knee or foot is inside the trunk, or a hand inside the head.

    Args:
        keypoints: float (17, 3), metres.
    """
    low, high = (keypoints[11] + keypoints[12]) / 2, (keypoints[5] + keypoints[6]) / 2
    trunk, head = high - low, keypoints[3:5].mean(0)
    for index, room in ((7, 0.11), (8, 0.11), (9, 0.13), (10, 0.13), (13, 0.14), (14, 0.14), (15, 0.15), (16, 0.15)):
        share = np.clip((keypoints[index] - low) @ trunk / (trunk @ trunk), 0.15, 1)
        if np.linalg.norm(keypoints[index] - low - share * trunk) < room:
            return False
        if np.linalg.norm(keypoints[index] - head) < 0.12:
            return False
    return all(np.linalg.norm(keypoints[a] - keypoints[b]) > 0.07 for a, b in ((9, 10), (15, 16), (13, 14)))
