"""Predictions as MMPose 1.x writes and returns them.

The layout is that of `MMPoseInferencer(...)(..., pred_out_dir=...)`: one JSON file for each image, a list with one
entry per person of `keypoints` (K, 2) in image pixels, `keypoint_scores` (K,), `bbox`, which is a list with one box
x1, y1, x2, y2 in it, and `bbox_score`. Of a video there is one file, a list of `frame_id` and `instances`; the scripts
in MMPose's `demo` folder put the same under `instance_info`, beside `meta_info`.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..files import read_json, write_whole
from ..pose.results import PoseResult
from ..pose.skeletons import Skeleton
from .checks import extents, numbers


def to_mmpose(result: PoseResult) -> list[dict[str, Any]]:
    """A result as MMPose's list of instances.

    Args:
        result: People of one image.

    Returns:
        One dict per person: `keypoints`, `keypoint_scores`, `bbox` ([[x1, y1, x2, y2]], as MMPose nests it),
        `bbox_score`.

    Raises:
        UserError: If a number is NaN or infinite, for which the format has no place.
    """
    for name in ('keypoints', 'scores', 'boxes', 'box_scores'):
        if not np.isfinite(getattr(result, name)).all():
            raise UserError(f'{name} of {result.path or "the image"} hold NaN: MMPose predictions are finite numbers.')
    return [
        {
            'keypoints': result.keypoints[i].tolist(),
            'keypoint_scores': result.scores[i].tolist(),
            'bbox': [result.boxes[i].tolist()],
            'bbox_score': float(result.box_scores[i]),
        }
        for i in range(len(result))
    ]


def from_mmpose(
    instances: list[dict[str, Any]], skeleton: Skeleton, image_size: tuple[int, int], path: str | None = None
) -> PoseResult:
    """MMPose's instances of one image as a result.

    Args:
        instances: One dict per person, as in a file of predictions or in `result['predictions'][i]` of an inferencer.
        skeleton: What the keypoints are; the format does not say.
        image_size: Width and height of the image; the format does not say.
        path: File of the image.

    Returns:
        The people in the order given. Without `bbox` (models that find all people at once) the box is the extent of
        the keypoints; without `bbox_score` it is 1.

    Raises:
        UserError: If a field is missing, of the wrong type or shape, or not finite.
    """
    where = f'of {path}' if path else 'of MMPose'
    if not isinstance(instances, list):
        raise UserError(f'The predictions {where} are {type(instances).__name__}; expected a list of people.')
    count = skeleton.num_keypoints
    keypoints = np.zeros((len(instances), count, 2), np.float32)
    scores = np.zeros((len(instances), count), np.float32)
    boxes = np.zeros((len(instances), 4), np.float32)
    box_scores = np.ones(len(instances), np.float32)
    for i, person in enumerate(instances):
        said = f'of person {i} {where}'
        if not isinstance(person, dict):
            raise UserError(f'Person {i} {where} is {type(person).__name__}; expected an object with keypoints.')
        for field in ('keypoints', 'keypoint_scores'):
            if field not in person:
                raise UserError(f'Person {i} {where} has no {field}.')
        keypoints[i] = numbers(person['keypoints'], (count, 2), f'keypoints {said} (skeleton {skeleton.name})')
        scores[i] = numbers(person['keypoint_scores'], (count,), f'keypoint_scores {said}')
        if person.get('bbox') is None:
            boxes[i] = extents(keypoints[i : i + 1])[0]
        else:
            box = person['bbox']
            nested = isinstance(box, (list, tuple)) and len(box) == 1
            boxes[i] = numbers(box[0] if nested else box, (4,), f'bbox {said}')
        if person.get('bbox_score') is not None:
            box_scores[i] = numbers(person['bbox_score'], (), f'bbox_score {said}')
    return PoseResult(keypoints, scores, boxes, box_scores, skeleton, image_size, path)


def write_mmpose(results: Sequence[PoseResult], folder: str | Path) -> list[Path]:
    """Write predictions as MMPose does: a file for each image, named after it.

    Args:
        results: Results with a `path`.
        folder: Where to; made if it is not there.

    Returns:
        The files, `<name of the image>.json`, in the order of the results.

    Raises:
        UserError: If a result has no path, two images have the same name, or a number is not finite.
    """
    stems = check_names(result.path for result in results)
    contents = [json.dumps(to_mmpose(result), indent=2, allow_nan=False) + '\n' for result in results]
    files = []
    for stem, content in zip(stems, contents, strict=True):
        files.append(Path(folder) / f'{stem}.json')
        write_whole(files[-1], content)
    return files


def check_names(paths: Iterable[str | None]) -> list[str]:
    """The names that MMPose gives the files of images.

    Args:
        paths: Files of the images.

    Returns:
        The names without suffix, no two the same on any file system.

    Raises:
        UserError: If an image has no path, or two have the same name.
    """
    stems: list[str] = []
    seen = set()
    for path in paths:
        if not path:
            raise UserError('MMPose predictions are named after their images, and a result here has no path.')
        stems.append(Path(path).stem)
        if stems[-1].casefold() in seen:
            raise UserError(f'Two images are called {stems[-1]}: write their predictions into folders of their own.')
        seen.add(stems[-1].casefold())
    return stems


def read_mmpose(file: str | Path, skeleton: Skeleton, image_size: tuple[int, int]) -> list[PoseResult]:
    """Read a file of MMPose predictions.

    Args:
        file: JSON of an image, of a video, or of one of MMPose's demo scripts.
        skeleton: What the keypoints are.
        image_size: Width and height of the image or of the video's frames.

    Returns:
        One result for an image, or one for each frame of a video, in the order of the file. The path is that of the
        file, as the format does not name the image.

    Raises:
        UserError: If the file cannot be read or is something else.
    """
    content = read_json(file)
    if isinstance(content, dict) and 'instance_info' in content:
        content = content['instance_info']
    if not isinstance(content, list):
        raise UserError(f'{file} holds {type(content).__name__}; MMPose predictions are a list of people or of frames.')
    frames = [frame for frame in content if isinstance(frame, dict) and 'instances' in frame]
    if not frames:
        return [from_mmpose(content, skeleton, image_size, str(file))]
    if len(frames) < len(content):
        raise UserError(f'{file} mixes frames with other things; expected frame_id and instances in every entry.')
    return [from_mmpose(frame['instances'], skeleton, image_size, str(file)) for frame in frames]
