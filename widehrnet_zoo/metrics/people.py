"""PCK of COCO-format labels, LSP-style and by box."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import UserError
from ..formats.coco import CocoLabels
from .bootstrap import rows_by_image
from .pck import BODY, LSP, auc, box_size, nme, normalised_errors, pck, torso_size


def match_results(
    annotations: list[dict[str, Any]],
    results: list[dict[str, Any]],
    num_keypoints: int,
) -> npt.NDArray[np.float64]:
    """The prediction of each labelled person.

    Args:
        annotations: Labelled people.
        results: Predictions in COCO's results format. An `ann` entry names the annotation; without it the photo's
            only prediction is meant.
        num_keypoints: Keypoints per person.

    Returns:
        (N, K, 3), NaN where there is none.

    Raises:
        UserError: If a result does not say which of several people of a photo it is of, or two are of one.
    """
    of_annotation: dict[Any, dict[str, Any]] = {}
    of_image: dict[Any, list[dict[str, Any]]] = {}
    for entry in results:
        key = entry['image_id'], entry.get('ann')
        if key[1] is None:
            of_image.setdefault(key[0], []).append(entry)
        elif key in of_annotation:
            raise UserError(f'Image {key[0]} has more than one result for the annotation {key[1]}.')
        else:
            of_annotation[key] = entry
    if of_annotation and not of_annotation.keys() & {(a['image_id'], a['id']) for a in annotations}:
        raise UserError('None of the results is of a labelled person: image_id and ann fit no annotation.')
    people: dict[Any, int] = {}
    for annotation in annotations:
        people[annotation['image_id']] = people.get(annotation['image_id'], 0) + 1
    matched = np.full((len(annotations), num_keypoints, 3), np.nan)
    for row, annotation in enumerate(annotations):
        image_id = annotation['image_id']
        result = of_annotation.get((image_id, annotation['id']))
        loose = of_image.get(image_id, [])
        if result is None and loose:
            if people[image_id] > 1 or len(loose) > 1:
                raise UserError(
                    f'Image {image_id} has {people[image_id]} labelled people and {len(loose)} results '
                    'without "ann": PCK needs to know which result is of whom. Predict from the annotated '
                    'boxes, or give each result the id of its annotation as "ann".'
                )
            result = loose[0]
        if result is not None:
            if len(result['keypoints']) != 3 * num_keypoints:
                raise UserError(
                    f'The results have {len(result["keypoints"]) / 3:g} keypoints, the labels {num_keypoints}.'
                )
            matched[row] = np.reshape(result['keypoints'], (num_keypoints, 3))
    return matched


class PckScore:
    """PCK, NME and AUC of predictions on COCO-format labels.

    The figures, as far as the labels have what they need:

    - `PCK@0.2 torso`: over the twelve limb joints of LSP (shoulders to ankles), a keypoint is right if it is nearer
      than 0.2 torsos (right shoulder to left hip). One per `source` of the photos, where the labels name sources.
    - `PCK@0.2 torso, human`: the same against `lsp_keypoints` (14 x [x, y, v] in LSP's order).
    - `PCK@0.05 box`, `PCK@0.2 box`, `NME box`, `AUC box`: all keypoints, in longer sides of the annotated box.

    People without a prediction count as wrong in PCK and AUC, and are left out of NME.

    Args:
        labels: The labels.
        results: Predictions in COCO's results format.
        names: (K,) keypoint names.

    Attributes:
        image_ids: Ids of the photos with a labelled person, in the order of the indices.

    Raises:
        UserError: If labels and results do not fit together.
    """

    def __init__(self, labels: CocoLabels, results: list[dict[str, Any]], names: Sequence[str]):
        annotations = labels.people
        truth = labels.keypoints(annotations)
        if truth.shape[1] != len(names):
            raise UserError(f'The labels have {truth.shape[1]} keypoints and the skeleton has {len(names)}.')
        self._names = tuple(names)
        found = match_results(annotations, results, len(names))
        sources = np.array([labels.images[a['image_id']].get('source') or '' for a in annotations])
        by_image = rows_by_image(a['image_id'] for a in annotations)
        self.image_ids, self._members = list(by_image), list(by_image.values())
        everyone = np.ones(len(annotations), bool)
        self._torso: dict[str, tuple] = {}
        if set(BODY) <= set(names):
            body = [list(names).index(name) for name in BODY]
            size = torso_size(truth, names)
            groups = {s: sources == s for s in sorted(set(sources)) if s} or {'': everyone}
            for source, chosen in groups.items():
                self._torso[f'PCK@0.2 torso{", " if source else ""}{source}'] = (
                    *normalised_errors(found[:, body], truth[:, body], np.where(chosen, size, 0)),
                )
            human = self._human(annotations)
            if human is not None:
                self._torso['PCK@0.2 torso, human'] = normalised_errors(
                    found[:, body], human[:, : len(BODY)], torso_size(human, LSP)
                )
        self._box = normalised_errors(found, truth, box_size([a['bbox'] for a in annotations]))
        self._predicted = np.isfinite(found[..., 0])

    @staticmethod
    def _human(annotations: list[dict[str, Any]]) -> npt.NDArray[np.float64] | None:
        if not any('lsp_keypoints' in a for a in annotations):
            return None
        nothing = [0] * 3 * len(LSP)
        return np.array([a.get('lsp_keypoints', nothing) for a in annotations], float).reshape(-1, len(LSP), 3)

    @property
    def num_images(self) -> int:
        """Number of photos with a labelled person."""
        return len(self.image_ids)

    def figures(self, images: npt.NDArray[np.intp] | None = None, by_joint: bool = False) -> dict[str, float]:
        """All figures, fractions.

        Args:
            images: Indices of photos, repetitions allowed; `None` counts each once.
            by_joint: The PCK of each joint too, as `PCK@0.2 torso: left_knee`.

        Returns:
            Figures by name; NaN where nothing counts.
        """
        everything = range(self.num_images) if images is None else images
        rows = np.concatenate([self._members[i] for i in everything])
        values = {name: pck(errors[rows], counts[rows], 0.2) for name, (errors, counts) in self._torso.items()}
        if by_joint:
            for name, (errors, counts) in self._torso.items():
                for k, joint in enumerate(BODY):
                    values[f'{name}: {joint}'] = pck(errors[rows, k : k + 1], counts[rows, k : k + 1], 0.2)
        errors, counts = self._box[0][rows], self._box[1][rows]
        for threshold in (0.05, 0.2):
            values[f'PCK@{threshold} box'] = pck(errors, counts, threshold)
        if by_joint:
            for k, joint in enumerate(self._names):
                values[f'PCK@0.2 box: {joint}'] = pck(errors[:, k : k + 1], counts[:, k : k + 1], 0.2)
        values['NME box'] = nme(errors, counts & self._predicted[rows])
        values['AUC box'] = auc(errors, counts, 0.2)
        return values
