"""Bodies of the package `anny` as plain arrays, and their movement by linear blend skinning.

`anny` (code Apache-2.0, body data CC0 of MakeHuman) is asked once for a few dozen shapes; all else works on the arrays
it gave. Only its own topology is used: the SMPL ones would fetch data under a non-commercial licence.

Axes in rest: x to the person's left, y to the back, z up; metres; arms hang at 45 degrees.
"""

import io
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from widehrnet_zoo.files import write_whole
from widehrnet_zoo.pose.skeletons import SKELETONS

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.integer[Any]]

# ranges of anny's parameters, all in 0..1; age 0.67 is a young adult
_SHAPE = {
    'gender': (0.0, 1.0),
    'age': (0.5, 0.8),
    'muscle': (0.4, 0.95),
    'weight': (0.25, 0.65),
    'height': (0.3, 0.8),
    'proportions': (0.4, 0.95),
}


@dataclass(frozen=True)
class Bank:
    """Shapes that share one mesh; the first is the average adult.

    Attributes:
        rest: float32 (N, V, 3), vertices at rest in metres.
        heads: float32 (N, B, 3), where each bone begins and turns about.
        gender: float32 (N,), 0 male to 1 female as anny counts it.
        faces: int32 (F, 3), triangles.
        parents: int32 (B,), parent of each bone, -1 for the root; parents come before their children.
        bones: str (B,), names.
        weight_bones: int32 (V, S), bones that move a vertex.
        weights: float32 (V, S), by how much; rows sum to 1.
        keypoint_weights: float32 (17, V), COCO keypoints as weighted means of vertices.
    """

    rest: Floats
    heads: Floats
    gender: Floats
    faces: Ints
    parents: Ints
    bones: npt.NDArray[np.str_]
    weight_bones: Ints
    weights: Floats
    keypoint_weights: Floats

    @cached_property
    def skinning(self) -> Any:
        """Sparse (V, B), the weights."""
        from scipy.sparse import csr_matrix

        vertices, slots = self.weights.shape
        rows = np.repeat(np.arange(vertices), slots)
        shape = (vertices, len(self.bones))
        return csr_matrix((self.weights.ravel(), (rows, self.weight_bones.ravel())), shape, dtype=np.float32)

    @cached_property
    def regressor(self) -> Any:
        """Sparse (17, V), from vertices to keypoints."""
        from scipy.sparse import csr_matrix

        return csr_matrix(self.keypoint_weights)

    def bone(self, name: str) -> int:
        """Index of a bone."""
        return int(np.flatnonzero(self.bones == name)[0])

    def share(self, *prefixes: str) -> Floats:
        """How much of each vertex moves with the bones whose names begin so: float32 (V,)."""
        chosen = np.array([name.startswith(prefixes) for name in self.bones], np.float32)
        return np.asarray(self.skinning @ chosen)

    def posed(self, body: int, turns: dict[int, Floats]) -> Floats:
        """Vertices of a body with some bones turned.

        Args:
            body: Index of the shape.
            turns: Rotation (3, 3) of bones relative to their parents, in the axes of the rest pose; the root's turns
                the whole body.

        Returns:
            float32 (V, 3).
        """
        moves = np.zeros((len(self.bones), 3, 4), np.float32)
        for bone, parent in enumerate(self.parents):
            turn = turns.get(bone)
            if parent < 0:
                turn = np.eye(3, dtype=np.float32) if turn is None else turn
                moves[bone, :, :3] = turn
                continue
            moves[bone] = moves[parent]
            if turn is not None:
                head = self.heads[body, bone]
                moves[bone, :, 3] += moves[parent, :, :3] @ (head - turn @ head)
                moves[bone, :, :3] = moves[parent, :, :3] @ turn
        blended = (self.skinning @ moves.reshape(-1, 12)).reshape(-1, 3, 4)
        return np.einsum('vij,vj->vi', blended[:, :, :3], self.rest[body]) + blended[:, :, 3]

    def save(self, path: Path) -> None:
        """Write as NumPy archive."""
        save_arrays(path, **{field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def load(cls, path: Path) -> 'Bank':
        """Read what `save` wrote."""
        with np.load(path) as arrays:
            return cls(**{field.name: arrays[field.name] for field in fields(cls)})


def save_arrays(path: Path, **arrays: npt.NDArray[Any]) -> None:
    """Write a NumPy archive, whole or not at all."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_whole(path, buffer.getvalue())


def make_bank(count: int, seed: int) -> Bank:
    """Ask anny for bodies.

    Args:
        count: How many.
        seed: Of their shapes.

    Returns:
        The bodies.

    Raises:
        ImportError: If anny is missing.
    """
    import torch
    from anny import Anny
    from anny.keypoints import KeypointsRegressor

    model = Anny(local_changes='default')
    rng = np.random.default_rng(seed)
    shapes = {name: rng.uniform(*_SHAPE[name], count) for name in sorted(_SHAPE)}
    # most people are clearly one or the other
    shapes['gender'] = rng.beta(0.5, 0.5, count)
    for name, (low, high) in _SHAPE.items():
        shapes[name][0] = (low + high) / 2
    identity = torch.eye(4, dtype=model.dtype).expand(1, model.bone_count, 4, 4)
    rest, heads = [], []
    with torch.no_grad():
        for i in range(count):
            shape = {name: float(shapes[name][i]) for name in model.phenotype_labels if name in shapes}
            out = model(pose_parameters=identity, phenotype_kwargs=shape)
            rest.append(out['rest_vertices'][0].numpy())
            heads.append(out['rest_bone_heads'][0].numpy())
        keypoints = KeypointsRegressor.coco(model, labels=list(SKELETONS['coco'].keypoints))
    return Bank(
        rest=np.stack(rest).astype(np.float32),
        heads=np.stack(heads).astype(np.float32),
        gender=shapes['gender'].astype(np.float32),
        faces=model.faces.numpy().astype(np.int32),
        parents=np.array(model.bone_parents, np.int32),
        bones=np.array(model.bone_labels),
        weight_bones=model.vertex_bone_indices.numpy().astype(np.int32),
        weights=model.vertex_bone_weights.numpy().astype(np.float32),
        keypoint_weights=keypoints.regression_weights.numpy().astype(np.float32),
    )
