"""What a person wears: shells around the mesh of the body, cut where a garment ends, and hair.

Garments are defined once, on the average body at rest ("cloth space"); bodies and poses share their vertices, so the
same cut fits all of them.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from .bodies import Bank, Floats, Ints

Field = Floats
THIN = 5  # of so many vertices one is asked how much sky it sees


@dataclass
class Shell:
    """A piece of cloth or hair as a layer over the body.

    Attributes:
        name: `skin`, `top`, `bottom`, `shoes`, `socks` or `hair`.
        inside: float32 (V,), positive where it covers, about metres from its edge; None covers all.
        offset: float32 (V,), distance from the skin in metres.
        smooth: How often neighbours are averaged: loose cloth bridges hollows.
    """

    name: str
    inside: Field | None
    offset: Field
    smooth: int = 0


@dataclass
class Mesh:
    """Triangles of a dressed person.

    Attributes:
        points: float32 (P, 3), metres.
        normals: float32 (P, 3).
        cloth: float32 (P, 3), the same points on the average body at rest.
        faces: int32 (F, 3).
        layer: int32 (F,), index of the shell.
        source: int32 (P,), the vertex of the body that a point lies on or near.
        near: int32 (V, 3), places of the nearest among every `THIN`th vertex.
    """

    points: Floats
    normals: Floats
    cloth: Floats
    faces: Ints
    layer: Ints
    source: Ints
    near: Ints

    @property
    def vertices(self) -> int:
        """Number of vertices of the body."""
        return len(self.near)

    def spread(self, values: Floats) -> Floats:
        """Values of every `THIN`th vertex of the body to all points: float32 (P,)."""
        return values[self.near].mean(1)[self.source].astype(np.float32)


class Tailor:
    """Measures of the average body and the shells that fit it."""

    def __init__(self, bank: Bank) -> None:
        self.bank = bank
        self.cloth = bank.rest[0]
        self.arm = bank.share('upperarm', 'lowerarm', 'wrist', 'finger', 'metacarpal')
        self.leg = bank.share('upperleg', 'lowerleg', 'foot', 'toe')
        self.head = bank.share('head', 'eye')
        self.features = np.asarray(bank.regressor @ self.cloth)

    def bone_head(self, name: str) -> Floats:
        """Where a bone begins on the average body: float32 (3,), metres."""
        return self.bank.heads[0, self.bank.bone(name)]

    @cached_property
    def along_arm(self) -> Field:
        """0 at the shoulder, 1 at the elbow, 2 at the wrist."""
        points = np.abs(self.cloth * [1, 0, 0]) + self.cloth * [0, 1, 1]
        total = np.zeros(len(points), np.float32)
        stops = [self.bone_head(name) for name in ('upperarm01.L', 'lowerarm01.L', 'wrist.L')]
        for i in range(2):
            way = stops[i + 1] - stops[i]
            share = (points - stops[i]) @ way / (way @ way)
            total += np.clip(share, -1 if i == 0 else 0, 1 if i == 0 else 2).astype(np.float32)
        return total

    @cached_property
    def along_leg(self) -> Field:
        """0 at the hip, 1 at the knee, 2 at the ankle."""
        stops = [self.bone_head(name)[2] for name in ('upperleg01.L', 'lowerleg01.L', 'foot.L')]
        return np.interp(-self.cloth[:, 2], [-stop for stop in stops], [0, 1, 2]).astype(np.float32)

    @cached_property
    def near(self) -> Ints:
        """For each vertex the nearest three of every `THIN`th: int32 (V, 3)."""
        from scipy.spatial import cKDTree

        return cKDTree(self.cloth[::THIN]).query(self.cloth, 3)[1].astype(np.int32)

    @cached_property
    def _corner_sum(self) -> Any:
        from scipy.sparse import csr_matrix

        faces = self.bank.faces
        rows = faces.ravel()
        columns = np.repeat(np.arange(len(faces)), 3)
        return csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), (len(self.cloth), len(faces)))

    @cached_property
    def _neighbours(self) -> Any:
        from scipy.sparse import csr_matrix, diags

        faces = self.bank.faces
        rows, columns = faces[:, [0, 1, 2, 1, 2, 0]].T.ravel(), faces[:, [1, 2, 0, 0, 1, 2]].T.ravel()
        count = len(self.cloth)
        links = csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), (count, count))
        return diags(1 / np.maximum(np.asarray(links.sum(1)).ravel(), 1)) @ links

    def normals(self, points: Floats) -> Floats:
        """Unit normals of the vertices: float32 (V, 3)."""
        a, b, c = np.moveaxis(points[self.bank.faces], 1, 0)
        total = self._corner_sum @ np.cross(b - a, c - a)
        return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)

    def top(self, sleeve: float, hem: float, neck: float) -> Field:
        """Shirt: down to the height `hem`, sleeves to `sleeve` along the arm, a hole of radius `neck`."""
        x, y, z = self.cloth.T
        collar = self.bone_head('neck01')
        hole = np.sqrt(x**2 + (y - collar[1] + 0.02) ** 2 + (z - collar[2] - 0.02) ** 2) - neck
        hole = np.minimum(hole, collar[2] + 0.01 - z)
        body = np.minimum(z - hem, hole)
        return np.where(self.arm > 0.5, np.minimum((sleeve - self.along_arm) * 0.25, hole), body).astype(np.float32)

    def bottom(self, length: float, waist: float) -> Field:
        """Shorts or trousers: from the height `waist` to `length` along the leg."""
        # cut higher at the outside, so that the shortest still cover what they should
        crotch = 0.3 * np.clip(1 - np.abs(self.cloth[:, 0]) / 0.14, 0, 1)
        inside = np.minimum(waist - self.cloth[:, 2], (length + crotch - self.along_leg) * 0.45)
        return np.where(self.arm > 0.5, -1, inside).astype(np.float32)

    def below(self, height: float) -> Field:
        """Shoes or socks: up to a height above the ankle."""
        return (self.bone_head('foot.L')[2] + height - self.cloth[:, 2]).astype(np.float32)

    def scalp(self, low: float) -> Field:
        """Hair: from a line that falls from the forehead to the nape, `low` metres lower than usual."""
        x, y, z = self.cloth.T
        eye, ear = self.features[1], self.features[3]
        crown = eye[2] + 0.065 - low
        back = np.clip(y - (eye[1] + 0.005), 0, None)
        line = crown - 0.72 * back
        # the ears stay free
        ears = np.hypot(y - ear[1], z - ear[2] - 0.005) - 0.035
        ears = np.where(np.abs(x) > 0.055, ears, 1)
        return np.where(self.head > 0.5, np.minimum(z - line, ears), -1).astype(np.float32)

    def wrinkles(self, rng: np.random.Generator, size: float) -> Field:
        """Smooth noise of about -1..1 over cloth space with folds of a size in metres."""
        total = np.zeros(len(self.cloth), np.float32)
        for _ in range(4):
            wave = rng.normal(0, 1, 3)
            wave *= 2 * np.pi / (size * rng.uniform(0.6, 1.6)) / np.linalg.norm(wave)
            total += np.sin(self.cloth @ wave.astype(np.float32) + np.float32(rng.uniform(0, 6.3)))
        return total / 2

    def sew(self, shells: list[Shell], posed: Floats) -> Mesh:
        """Put the shells on a posed body.

        Args:
            shells: From the skin outwards.
            posed: float32 (V, 3), the body.

        Returns:
            All of it as one mesh.
        """
        normals = self.normals(posed)
        parts: dict[str, list[Any]] = {name: [] for name in ('points', 'normals', 'cloth', 'faces', 'layer', 'source')}
        start = 0
        for index, shell in enumerate(shells):
            points = posed
            for _ in range(shell.smooth):
                points = self._neighbours @ points
            points = points + normals * shell.offset[:, None]
            if shell.smooth:
                # averages shrink: cloth stays outside the skin
                deep = np.clip(0.003 - ((points - posed) * normals).sum(1), 0, None)
                points = points + normals * deep[:, None]
            around = normals if shell.inside is None else self.normals(points)
            faces, mix = (self.bank.faces, None) if shell.inside is None else cut(self.bank.faces, shell.inside)
            for name, values in (('points', points), ('normals', around), ('cloth', self.cloth)):
                parts[name].append(values)
                if mix is not None:
                    first, second, share = mix
                    parts[name].append(values[first] * (1 - share[:, None]) + values[second] * share[:, None])
            parts['source'].append(np.arange(len(points)))
            if mix is not None:
                parts['source'].append(mix[0])
            parts['faces'].append(faces + start)
            parts['layer'].append(np.full(len(faces), index, np.int32))
            start += len(points) + (0 if mix is None else len(mix[0]))
        joined = {name: np.concatenate(values) for name, values in parts.items()}
        return Mesh(
            points=joined['points'].astype(np.float32),
            normals=joined['normals'].astype(np.float32),
            cloth=joined['cloth'].astype(np.float32),
            faces=joined['faces'].astype(np.int32),
            layer=joined['layer'],
            source=joined['source'].astype(np.int32),
            near=self.near,
        )


def cut(faces: Ints, inside: Field) -> tuple[Ints, tuple[Ints, Ints, Floats]]:
    """Keep the part of a mesh where a field is positive, cutting triangles along its zero.

    Args:
        faces: int (F, 3).
        inside: float (V,).

    Returns:
        The faces, in which vertices V, V + 1, ... are new, and for these the two old vertices that each lies between
        with its share of the second.
    """
    positive = inside[faces] > 0
    count = positive.sum(1)
    kept = [faces[count == 3]]
    ends: list[Ints] = []
    total = len(inside)
    for number in (1, 2):
        rows = faces[count == number]
        # the vertex that differs from the two others comes first
        odd = (positive[count == number] == (number == 1)).argmax(1)
        a, b, c = (np.take_along_axis(rows, ((odd + i) % 3)[:, None], 1)[:, 0] for i in range(3))
        ab, ac = total + np.arange(len(rows)), total + len(rows) + np.arange(len(rows))
        ends += [np.stack([a, b], 1), np.stack([a, c], 1)]
        total += 2 * len(rows)
        if number == 1:
            kept.append(np.stack([a, ab, ac], 1))
        else:
            kept += [np.stack([b, c, ac], 1), np.stack([b, ac, ab], 1)]
    first, second = np.concatenate(ends).T
    share = inside[first] / (inside[first] - inside[second])
    return np.concatenate(kept).astype(np.int32), (first, second, share.astype(np.float32))


def dress(rng: np.random.Generator, tailor: Tailor, female: float) -> list[Shell]:
    """Choose sport clothes.

    Args:
        rng: Source of chance.
        tailor: Measures.
        female: 0..1.

    Returns:
        Shells from the skin outwards; the first is the skin.
    """
    z = tailor.cloth[:, 2]
    flat = np.zeros(len(z), np.float32)
    hip, neck = tailor.bone_head('upperleg01.L')[2], tailor.bone_head('neck01')[2]
    shells = [Shell('skin', None, flat)]
    chance = rng.random

    def pick(values: list[float], odds: list[float]) -> float:
        return float(rng.choice(values, p=odds))

    if chance() < 0.6:
        shells.append(Shell('socks', tailor.below(rng.choice([0.06, 0.12, 0.25])), flat + 0.003))
    leotard = chance() < 0.12 + 0.1 * female
    length = pick([0.12, 0.35, 0.75, 1.2, 1.95], [0.12, 0.2, 0.28, 0.1, 0.3])
    waist = hip + rng.uniform(0.03, 0.12)
    loose = rng.uniform(0.006, 0.035) if length > 0.3 and chance() < 0.75 else 0.004
    if leotard:
        length, loose, waist = pick([0.05, 0.1, 1.9], [0.5, 0.2, 0.3]), 0.003, hip + 0.12
    away = np.clip((waist - z) / 0.25, 0.2, 1).astype(np.float32)
    folds = tailor.wrinkles(rng, rng.uniform(0.06, 0.15)) * min(loose, 0.012) * 0.6
    shells.append(Shell('bottom', tailor.bottom(length, waist), 0.004 + loose * away + folds, int(loose > 0.01) * 4))
    bare = chance() < 0.16 * (1 - female)
    if not bare:
        sleeve = pick([0.06, 0.4, 0.65, 1.95], [0.3, 0.25, 0.25, 0.2])
        short = female > 0.5 and chance() < 0.25
        hem = hip + (0.28 if short else rng.uniform(-0.12, 0.02))
        loose = 0.003 if short or chance() < 0.3 else rng.uniform(0.006, 0.03)
        if leotard:
            sleeve, hem, loose = pick([0.04, 1.95], [0.6, 0.4]), hip, 0.003
        away = np.clip((neck - z) / 0.35, 0.25, 1).astype(np.float32)
        folds = tailor.wrinkles(rng, rng.uniform(0.06, 0.2)) * min(loose, 0.012) * 0.7
        inside = tailor.top(sleeve, hem, rng.uniform(0.07, 0.12))
        shells.append(Shell('top', inside, 0.007 + loose * away + folds, int(loose > 0.01) * 5))
    if chance() < 0.8:
        shells.append(Shell('shoes', tailor.below(rng.choice([0.0, 0.03, 0.07])), flat + 0.011, 3))
    if chance() < 0.95:
        thick = rng.choice([0.006, 0.012, 0.022]) + 0.008 * female
        hair = thick * (1 + 0.5 * tailor.wrinkles(rng, 0.05))
        shells.append(Shell('hair', tailor.scalp(rng.uniform(-0.01, 0.02)), hair.astype(np.float32), 2))
    return shells
