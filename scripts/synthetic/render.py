"""Ray casting with Embree, and light: a sun with soft shadows, the sky dimmed where things are near."""

from typing import Any

import numpy as np
import numpy.typing as npt

from .bodies import Floats, Ints
from .camera import Camera
from .clothes import THIN, Mesh
from .paint import Look
from .scenes import Scene

SAMPLES = 2  # by 2 in a pixel


class Tracer:
    """Answers what rays hit first."""

    def __init__(self, points: Floats, faces: Ints) -> None:
        """Build the tree.

        Args:
            points: float32 (P, 3), metres.
            faces: int32 (F, 3).
        """
        from embreex.mesh_construction import TriangleMesh
        from embreex.rtcore_scene import EmbreeScene

        self._scene = EmbreeScene()
        self._mesh = TriangleMesh(self._scene, np.ascontiguousarray(points, np.float32), faces.astype(np.int32))

    def hits(self, origins: Floats, rays: Floats) -> dict[str, Any]:
        """First hits: `primID` (N,), -1 for none, `tfar` (N,), and the barycentric `u` and `v` (N,)."""
        origins = np.ascontiguousarray(np.broadcast_to(origins, rays.shape), np.float32)
        result: dict[str, Any] = self._scene.run(origins, np.ascontiguousarray(rays, np.float32), output=True)
        return result

    def blocked(self, origins: Floats, rays: Floats, reach: float = 1e4) -> npt.NDArray[np.bool_]:
        """Whether anything is hit within a distance: bool (N,)."""
        hit = self.hits(origins, rays)
        return (hit['primID'] >= 0) & (hit['tfar'] < reach)


def scatter(rng: np.random.Generator, normals: Floats) -> Floats:
    """Random directions above surfaces, more of them near the normal: float32 (N, 3), unit length."""
    rays = rng.normal(0, 1, normals.shape).astype(np.float32)
    rays = rays / np.linalg.norm(rays, axis=1, keepdims=True) + normals * 1.001
    return rays / np.linalg.norm(rays, axis=1, keepdims=True)


class Picture:
    """A dressed person in a scene."""

    def __init__(self, mesh: Mesh, look: Look, scene: Scene) -> None:
        """Put both together.

        Args:
            mesh: The person.
            look: Its colours.
            scene: All else.
        """
        self.mesh, self.look, self.scene = mesh, look, scene
        self.points = np.concatenate([mesh.points, scene.points])
        self.faces = np.concatenate([mesh.faces, scene.faces + len(mesh.points)])
        self.tracer = Tracer(self.points, self.faces)

    def openness(self, rng: np.random.Generator, rays: int = 10) -> Floats:
        """Share of the sky's light that reaches each vertex of the person past its own limbs: float32 (P,)."""
        chosen = np.arange(0, self.mesh.vertices, THIN)
        points, normals = self.mesh.points[chosen], self.mesh.normals[chosen]
        origins = np.repeat(points + 0.035 * normals, rays, 0)
        blocked = self.tracer.blocked(origins, scatter(rng, np.repeat(normals, rays, 0)), 0.7)
        share = 1 - 0.85 * blocked.reshape(-1, rays).mean(1)
        return self.mesh.spread(share)

    def light(self, rng: np.random.Generator, camera: Camera, backdrop: Floats, joints: Floats) -> Floats:
        """Light that falls into a camera.

        Args:
            rng: Source of chance.
            camera: The camera.
            backdrop: float32 (height, width, 3), linear, seen where nothing is hit.
            joints: float32 (J, 3), points of the body that dim the light on things near them.

        Returns:
            float32 (height, width, 3), linear.
        """
        step = np.arange(max(camera.width, camera.height) * SAMPLES) / SAMPLES + 0.5 / SAMPLES - 0.5
        y, x = np.meshgrid(step[: camera.height * SAMPLES], step[: camera.width * SAMPLES], indexing='ij')
        rays = camera.rays(x.ravel(), y.ravel()).astype(np.float32)
        hit = self.tracer.hits(camera.place, rays)
        out = np.repeat(np.repeat(backdrop, SAMPLES, 0), SAMPLES, 1).reshape(-1, 3).copy()
        rows = np.flatnonzero(hit['primID'] >= 0)
        out[rows] = self._shade(rng, rays[rows], {name: values[rows] for name, values in hit.items()}, camera, joints)
        out = out.reshape(camera.height, SAMPLES, camera.width, SAMPLES, 3)
        return out.mean((1, 3))

    def _shade(
        self, rng: np.random.Generator, rays: Floats, hit: dict[str, Any], camera: Camera, joints: Floats
    ) -> Floats:
        mesh, scene = self.mesh, self.scene
        face = hit['primID']
        points = (camera.place + rays * hit['tfar'][:, None]).astype(np.float32)
        share = np.stack([1 - hit['u'] - hit['v'], hit['u'], hit['v']], 1).astype(np.float32)
        person = np.flatnonzero(face < len(mesh.faces))
        things = np.flatnonzero(face >= len(mesh.faces))
        normals, colour = np.empty_like(points), np.empty_like(points)
        open_sky = np.ones(len(points), np.float32)
        corners, weights = mesh.faces[face[person]], share[person]

        def mix(values: Floats) -> Floats:
            return np.einsum('nk,nkc->nc', weights, values[corners])

        around = mix(mesh.normals)
        normals[person] = around / np.maximum(np.linalg.norm(around, axis=1, keepdims=True), 1e-9)
        colour[person] = self.look.colours(mesh.layer[face[person]], mix(mesh.cloth))
        open_sky[person] = (self.openness(rng)[corners] * weights).sum(1)
        a, b, c = np.moveaxis(self.points[self.faces[face[things]]], 1, 0)
        flat = np.cross(b - a, c - a)
        normals[things] = flat / np.linalg.norm(flat, axis=1, keepdims=True)
        # both sides of cloth are seen
        away = (normals * rays).sum(1) > 0
        away[person] &= mesh.layer[face[person]] > 0
        normals[away] *= -1
        surface = scene.surface[face[things] - len(mesh.faces)]
        colour[things] = scene.colours(surface, points[things], normals[things])
        open_sky[things] = shade_of(joints, points[things], normals[things])
        up = normals[:, 2:] * 0.5 + 0.5
        bounce = np.array([0.28, 0.26, 0.23]) * (scene.sky_light + scene.sun_light * scene.sun[2])
        total = (scene.sky_light * up + bounce * (1 - up)) * open_sky[:, None]
        facing = normals @ scene.sun
        if scene.sun_light.max() > 0:
            lit = np.flatnonzero(facing > 0)
            soft = scene.sun + rng.normal(0, 0.025, (len(lit), 3)).astype(np.float32)
            shadow = self.tracer.blocked(points[lit] + normals[lit] * 0.008, soft)
            total[lit] += scene.sun_light * (facing[lit] * ~shadow)[:, None]
        return colour * total


def shade_of(joints: Floats, points: Floats, normals: Floats, radius: float = 0.11) -> Floats:
    """Share of the sky that balls about the joints leave to points near them: float32 (N,)."""
    out = np.ones(len(points), np.float32)
    near = np.flatnonzero(np.abs(points - joints.mean(0)).max(1) < 2)
    hidden = np.zeros(len(near), np.float32)
    for joint in joints.astype(np.float32):
        to = joint - points[near]
        square = np.maximum((to**2).sum(1), radius**2)
        hidden += np.clip((to * normals[near]).sum(1), 0, None) * radius**2 / (square * np.sqrt(square))
    out[near] = np.exp(-1.2 * hidden)
    return out
