"""Whole evaluations: from labels and a model, or from results, to a report."""

import io
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt

from ..errors import UserError
from ..files import sha256, write_whole
from ..formats.coco import CocoLabels, detected_boxes, labelled_boxes, read_labels
from ..formats.fit import check_labels
from ..inference.estimator import PoseEstimator
from ..metrics import mpii
from ..metrics.coco import CocoScore, read_results, to_results
from ..metrics.people import PckScore
from ..pose.crops import PADDING
from ..pose.skeletons import SKELETONS, Skeleton
from .predict import PredictConfig, predict
from .report import Report
from .store import PredictionStore
from .subject import UNKNOWN, describe_data, describe_model

PROTOCOLS = ('coco', 'mpii', 'pck')


@dataclass(frozen=True)
class Protocol:
    """The switches that change a figure.

    Attributes:
        name: `'coco'`, `'mpii'` or `'pck'`.
        predict: How predictions are made.
        clip: Clip annotated boxes to the image as mmpose 0.24 does.
        padding: Growth of a box to the network's view (MPII's views have their own); `None` for the model's own, 1.25
            where it does not say.
        min_box_score: Detector boxes below it are left out.
        rescoring: Keypoint scores above it make the person's score; `None` keeps the box's score.
        nms: OKS above which the lower score of a photo goes; `None` keeps all.
    """

    name: str
    predict: PredictConfig = field(default_factory=PredictConfig)
    clip: bool = True
    padding: float | None = None
    min_box_score: float = 0.0
    rescoring: float | None = 0.2
    nms: float | None = 0.9

    @classmethod
    def published(cls, name: str) -> 'Protocol':
        """A protocol as its figures are published.

        `coco` and `mpii` are mmpose 0.24's: flip test with shift, quarter-pixel decoding; `coco` clips, rescores and
        suppresses at 0.9. `pck` looks once at each annotated box as it is, keeps every prediction, and decodes by
        `dark`, since the weights that ship learnt from unbiased targets.

        Args:
            name: `'coco'`, `'mpii'` or `'pck'`.

        Returns:
            The protocol.

        Raises:
            UserError: If there is no such protocol.
        """
        if name not in PROTOCOLS:
            raise UserError(f'There is no protocol {name!r}; choose from {", ".join(PROTOCOLS)}.')
        if name == 'pck':
            return cls(name, PredictConfig(decoder='dark'), clip=False, nms=None)
        return cls(name, PredictConfig(flip_test=True))

    def switches(self) -> dict[str, Any]:
        """What the report says of the protocol."""
        how = self.predict
        said: dict[str, Any] = {'protocol': self.name, 'flip_test': how.flip_test}
        if how.flip_test:
            said['shift_heatmap'] = how.shift
        said['decoder'] = how.decoder
        if self.name != 'mpii':
            said.update(padding=self.padding, clip_boxes=self.clip, rescoring=self.rescoring, oks_nms=self.nms)
        return said


def evaluate(
    protocol: Protocol,
    data: str | Path,
    images: str | Path | None = None,
    estimator: PoseEstimator | None = None,
    *,
    boxes: str | Path | None = None,
    ground_truth: str | Path | None = None,
    results: str | Path | None = None,
    out: str | Path | None = None,
    restart: bool = False,
    draws: int = 0,
    worst: int = 12,
    by_joint: bool = False,
    name: str | None = None,
) -> Report:
    """Measure a model, or results that are there already.

    Args:
        protocol: How to measure.
        data: COCO-keypoints JSON, or MPII's JSON annotations.
        images: Folder of the photos; needed for predicting and for the image.
        estimator: The model to measure, an exported one or another backend included.
        boxes: A detector's boxes in COCO's results format (`coco` only); without it annotated boxes are used.
        ground_truth: MPII's `mpii_gt_val.mat`; without it the file of that name beside `data`.
        results: Score this COCO-results file and predict nothing.
        out: Folder for `report.json`, `report.md`, `results.json`, `worst.png` and the predictions as they come, where
            a run that was cut off goes on; not one of a backend whose weights cannot be seen.
        restart: Throw away predictions of another or an interrupted run in `out`.
        draws: Resamplings for the confidence intervals; 0 gives none.
        worst: People in the image of the worst; 0 gives none.
        by_joint: PCK or PCKh of each joint too (`mpii`, `pck`).
        name: What the report calls the model.

    Returns:
        The report.

    Raises:
        UserError: If inputs are missing, broken or do not fit together.
    """
    if (estimator is None) == (results is None):
        raise UserError('Give either a model to measure or a file of results to score.')
    if estimator is not None and images is None:
        raise UserError('A folder of images is needed to predict on.')
    if boxes is not None and protocol.name != 'coco':
        raise UserError(f"A detector's boxes fit --protocol coco only; {protocol.name} looks at the annotated people.")
    is_mpii = protocol.name == 'mpii'
    padding = protocol.padding or (PADDING if estimator is None else estimator.padding)
    protocol = replace(protocol, padding=padding)
    labels = None if is_mpii else read_labels(data)
    if labels is not None:
        check_labels(labels, images)
    folder = Path(images or '.')
    if labels is None:
        samples = mpii.read_annotations(data, folder)
        truth = mpii.read_ground_truth(ground_truth or Path(data).with_name('mpii_gt_val.mat'))
        if len(truth.joints) != len(samples):
            raise UserError(
                f'{data} has {len(samples)} people and the ground truth {len(truth.joints)}: they are not '
                'of the same split.'
            )
    elif boxes is not None:
        samples = detected_boxes(labels, folder, boxes, protocol.min_box_score, padding)
    else:
        samples = labelled_boxes(labels, folder, protocol.clip and estimator is not None, padding)
    skeleton = measured_skeleton(estimator, labels)
    check_skeleton(skeleton, labels, protocol)

    if estimator is not None:
        described = describe_model(estimator, name)
        keypoints = predict(
            estimator, samples, protocol.predict, _store(out, described, protocol, data, boxes, len(samples), restart)
        )
        found = to_results(
            samples,
            keypoints,
            skeleton.sigmas,
            estimator.size,
            1 if labels is None else labels.category['id'],
            protocol.rescoring,
            protocol.nms if labels is not None else None,
        )
    else:
        assert results is not None
        described = {'results': f'{Path(results).name}, sha256 {sha256(results)[:16]}'}
        found = read_results(results, skeleton.num_keypoints)

    subject = {**described, **describe_data(data, boxes, len(samples))}
    figures: Callable[[Any], dict[str, float]]
    if labels is None:
        in_order = _in_order(found, len(samples))
        score: Any = mpii.MpiiScore(in_order, truth, samples.image_ids)
        num_images, figures = score.num_images, partial(score.figures, by_joint=by_joint)
    else:
        num_images, figures, averaged = _coco_figures(labels, found, skeleton, protocol, by_joint)
    switches = protocol.switches() if estimator is not None else {'protocol': protocol.name}
    if labels is not None:
        if averaged:
            switches['evaluator'] = 'pycocotools'
        switches['boxes'] = 'annotated' if boxes is None else Path(boxes).name
        if boxes is not None:
            switches.pop('clip_boxes', None)  # a detector's are taken as they are
    report = Report.of(figures, num_images, switches, subject, draws, protocol.predict.progress)
    if out is not None:
        report.save(out, found)
        if worst and images is not None:
            from .worst import worst_of_coco, worst_of_mpii

            image = (
                worst_of_mpii(samples, in_order, truth, score, worst)
                if labels is None
                else worst_of_coco(labels, folder, found, skeleton, worst)
            )
            buffer = io.BytesIO()
            image.save(buffer, 'png')
            write_whole(Path(out) / 'worst.png', buffer.getvalue())
    return report


def _store(
    out: str | Path | None,
    described: dict[str, Any],
    protocol: Protocol,
    data: str | Path,
    boxes: str | Path | None,
    total: int,
    restart: bool,
) -> PredictionStore | None:
    if out is None:
        return None
    how = asdict(protocol.predict)
    for unimportant in ('batch_size', 'workers', 'progress'):
        del how[unimportant]
    run = {
        **{key: described[key] for key in ('model', 'weights', 'precision')},
        'labels': sha256(data),
        'boxes': None if boxes is None else sha256(boxes),
        'protocol': protocol.name,
        'clip': protocol.clip,
        'padding': protocol.padding,
        'min_box_score': protocol.min_box_score,
        **how,
    }
    if run['weights'] == UNKNOWN:
        run['weights'] = f'{UNKNOWN}, {uuid4().hex}'  # so that nobody else's predictions are taken for theirs
    return PredictionStore(Path(out) / 'predictions', run, total, restart)


def measured_skeleton(estimator: PoseEstimator | None, labels: CocoLabels | None) -> Skeleton:
    """What the keypoints are by the model, else by the labels, with the labels' sigmas where they have any."""
    if labels is None:
        return SKELETONS['mpii'] if estimator is None else estimator.skeleton
    of_labels = labels.skeleton()
    if estimator is None:
        return of_labels or Skeleton('custom', tuple(f'keypoint_{i}' for i in range(labels.num_keypoints)))
    sigmas = labels.category.get('sigmas') and of_labels and of_labels.sigmas
    own = estimator.skeleton
    return replace(own, sigmas=sigmas) if sigmas and len(sigmas) == own.num_keypoints else own


def check_skeleton(skeleton: Skeleton, labels: CocoLabels | None, protocol: Protocol) -> None:
    """Whether keypoints can be measured on labels.

    Args:
        skeleton: What the keypoints are.
        labels: The labels; `None` for MPII's.
        protocol: How they are measured.

    Raises:
        UserError: If they cannot.
    """
    expected = 16 if labels is None else labels.num_keypoints or skeleton.num_keypoints
    if skeleton.num_keypoints != expected:
        raise UserError(
            f'The labels have {expected} keypoints and the model {skeleton.num_keypoints}: choose a model '
            'of the same data set.'
        )
    if (
        labels is not None
        and labels.names
        and labels.names != skeleton.keypoints
        and not skeleton.keypoints[0].startswith('keypoint_')
    ):
        raise UserError(
            'The keypoints of the labels and of the model have different names or another order: '
            f'{", ".join(labels.names)} and {", ".join(skeleton.keypoints)}.'
        )
    if protocol.name == 'coco' and skeleton.sigmas is None:
        raise UserError(
            'OKS needs sigmas, and this skeleton has none: give the category of the labels a list "sigmas", or use '
            '--protocol pck.'
        )


def _coco_figures(
    labels: CocoLabels,
    found: list[dict[str, Any]],
    skeleton: Skeleton,
    protocol: Protocol,
    by_joint: bool,
) -> tuple[int, Callable[[Any], dict[str, float]], bool]:
    average = None
    if skeleton.sigmas is not None and (protocol.name == 'coco' or all('area' in a for a in labels.annotations)):
        average = CocoScore(labels, found, skeleton.sigmas)
        if protocol.name == 'coco':
            return average.num_images, average.figures, True
    score = PckScore(labels, found, skeleton.keypoints)
    if average is None:
        return score.num_images, partial(score.figures, by_joint=by_joint), False

    def figures(images: npt.NDArray[np.intp] | None) -> dict[str, float]:
        whole = average.figures(None if images is None else average.positions([score.image_ids[i] for i in images]))
        return {**score.figures(images, by_joint), 'OKS AP': whole['AP'], 'OKS AP50': whole['AP50']}

    return score.num_images, figures, True


def _in_order(found: list[dict[str, Any]], count: int) -> npt.NDArray[np.float64]:
    rows = {r.get('ann'): r['keypoints'] for r in found}
    if set(rows) != set(range(count)):
        raise UserError(
            f'MPII results need "ann", the index of the person in the annotations, from 0 to {count - 1}, once each.'
        )
    return np.array([rows[i] for i in range(count)], float).reshape(count, -1, 3)
