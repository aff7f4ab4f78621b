"""`widehrnet predict`: photos to joints."""

import argparse
import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from .engine import add_engine, add_precision, engine_options
from .people import add_detector, add_limits, people_options
from .photos import STDIN, check_pictures, find_photos, name_outputs

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ..pose.results import PoseResult

HELP = 'find the keypoints of people in photos'
DESCRIPTION = 'Find the keypoints of people in photos; write an image and a JSON for each, or JSON lines to a pipe.'
EPILOG = """\
examples:
  widehrnet predict photo.jpg
  widehrnet predict photos/ 'more/*.png' --out poses --flip-test
  widehrnet predict photo.jpg --out poses --boxes 40,20,310,600
  widehrnet predict photos/ --out poses --boxes boxes.json --no-picture
  widehrnet predict photos/ --out poses --detector torchvision --max-people 5
  widehrnet predict photos/ --out poses --format csv --no-picture
  widehrnet predict s3://bucket/photos --ray --actors 16 --out s3://bucket/poses
  widehrnet predict video.mp4 --out poses --detector torchvision
  widehrnet predict /dev/video0 --json | jq --unbuffered .people
  widehrnet predict rtsp://192.168.1.20/stream --out poses
  curl -s https://example.org/photo.jpg | widehrnet predict - --json | jq .people
  widehrnet predict photo.jpg --out poses --model widehrnet_18_attn.coco_256x192 --weights official.pth

For photo.jpg, DIR gets photo_pose.json (all keypoints, whatever their score) and photo_pose.jpg. The photos of a
folder keep their place in it; names that would meet get the extension or the folder added. A photo that cannot be
read does not stop the others.

"-" is a photo that comes from stdin. --json writes a line of JSON for each photo to stdout, as soon as it is done, and
nothing else, unless --out is given as well.

--format puts the people of all photos into one file besides, at the end: DIR/poses.json, poses.jsonl, poses.csv,
poses.parquet, poses_coco.json, or the folder poses_mmpose. It can be given several times.

For video.mp4, DIR gets video_pose.mp4 and video_pose.jsonl, a line per frame; --boxes are then those of its first
frame, or, in a file, of frames by their number. Cameras (/dev/video0) and streams (rtsp://, http://, ...) go on until
Ctrl-C, which ends them as the end of a file does; they are taken up again when they break off. With --json the lines of
one video, camera or stream go to stdout as they are made.

--boxes FILE is {"photo.jpg": [[x1, y1, x2, y2, score], ...], ...} or COCO detections.
"""

TOGETHER = {
    'json': 'poses.json',
    'jsonl': 'poses.jsonl',
    'csv': 'poses.csv',
    'parquet': 'poses.parquet',
    'coco': 'poses_coco.json',
    'mmpose': 'poses_mmpose',
}
"""Names of the files for all photos, by the formats of `widehrnet_zoo.formats`."""

_WRITERS = 2
"""Threads that draw and write images."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        'paths',
        nargs='+',
        metavar='PATH',
        help='photos, videos, folders of photos (with their subfolders), wildcards, a camera, the address of a stream; '
        '- is a photo from stdin',
    )
    parser.add_argument(
        '--out', type=Path, metavar='DIR', help='folder for the results, made if absent (default: poses)'
    )
    people = parser.add_argument_group('people')
    where = people.add_mutually_exclusive_group()
    where.add_argument(
        '--boxes',
        metavar='FILE|X1,Y1,X2,Y2',
        help='a JSON file, or boxes in pixels (several: "x1,y1,x2,y2; x1,y1,x2,y2") that hold for every photo',
    )
    add_detector(where)
    add_limits(people)
    model = parser.add_argument_group('model')
    model.add_argument(
        '--model',
        metavar='NAME',
        help='variant, variant.tag, hf-hub:ORG/NAME, folder or exported file (default: widehrnet_18_attn)',
    )
    model.add_argument('--weights', metavar='FILE', help='.safetensors, or an official .pth')
    model.add_argument(
        '--flip-test', action='store_true', help='average with the mirrored crop: better, twice the work'
    )
    model.add_argument('--decoder', choices=('quarter', 'dark', 'soft'), default='dark', help='default: dark')
    add_engine(model)
    add_precision(model)
    model.add_argument('--batch-size', type=int, default=16, metavar='N', help='people per step (default: 16)')
    video = parser.add_argument_group('video')
    video.add_argument(
        '--detect-every',
        type=int,
        default=15,
        metavar='FRAMES',
        help='frames between looks of the detector for new people; 0: only when nobody is followed (default: 15)',
    )
    video.add_argument(
        '--smooth',
        type=float,
        default=1.0,
        metavar='HZ',
        help='smoothing of somebody at rest: less is calmer, 0 is none (default: 1)',
    )
    machines = parser.add_argument_group('many machines')
    machines.add_argument(
        '--ray', action='store_true', help='on a Ray cluster, or this machine: photos, folders or Parquet to Parquet'
    )
    machines.add_argument('--actors', type=int, metavar='N', help='models at work with --ray (default: 2)')
    output = parser.add_argument_group('output')
    output.add_argument(
        '--threshold', type=float, default=0.2, metavar='SCORE', help='do not draw keypoints below (default: 0.2)'
    )
    output.add_argument('--draw-boxes', action='store_true', help='draw the boxes too')
    output.add_argument('--no-picture', action='store_true', help='write the JSON only')
    output.add_argument(
        '--format',
        action='append',
        choices=tuple(TOGETHER),
        default=[],
        help='all photos in one file besides: json, jsonl, csv, parquet (extra parquet), coco (results), mmpose (a '
        'folder)',
    )
    output.add_argument('--json', action='store_true', help='write a line of JSON for each photo, or frame, to stdout')
    output.add_argument('--quiet', action='store_true', help='no progress bar')


def run(args: argparse.Namespace) -> int:
    """Run the command; gives 0, or 1 if some photos failed."""
    if args.ray:
        from .predict_ray import run_ray

        return run_ray(args)

    from ..errors import UserError
    from ..files import check_folder
    from ..formats import check_format, save_results
    from ..pose.images import PHOTO_SUFFIXES
    from ..progress import progress_bar
    from ..video import is_stream, is_video, shown, stream_name

    if args.actors is not None:
        raise UserError('--actors is the number of models on a Ray cluster: give --ray as well, or leave it out.')
    # in a pipe nothing is written beside it, unless it is asked for
    out = args.out if args.out is not None or (args.json and not args.format) else Path('poses')
    streams = [path for path in args.paths if is_stream(path)]
    for stream in streams:
        if Path(urlsplit(stream).path).suffix.lower() in PHOTO_SUFFIXES:
            raise UserError(
                f'{shown(stream)} is the address of a photo: download it, or pipe it in: curl -s ADDRESS | widehrnet '
                'predict -'
            )
    found, missing, skipped = find_photos([path for path in args.paths if path not in streams], out)
    photos = [pair for pair in found if not is_video(pair[0])]
    files = [pair for pair in found if is_video(pair[0])]
    videos: list[tuple[str | Path, Path]] = [(v[0], t) for v, t in zip(files, name_outputs(files), strict=True)]
    videos += [(stream, Path(stream_name(stream))) for stream in streams]
    failed = list(missing)
    if not found and not streams:
        reasons = [reason for _, reason in failed] + ([_skipped(skipped)] if skipped else [])
        raise UserError(f'No photos found: {"; ".join(reasons) or "the folders hold none"}.')
    if videos and args.json and len(videos) + len(photos) > 1:
        raise UserError(
            'With --json a video comes alone, so that its lines are not mixed with others: give '
            f'{shown(videos[0][0])} a command of its own, or leave --json out.'
        )
    if args.format and not photos:
        raise UserError('--format is for photos: a video has its own .jsonl, a line for each frame.')
    if len(streams) > 1:
        raise UserError('A camera or stream goes on until it is stopped: give each a command of its own.')
    if not 0 <= args.threshold <= 1:
        raise UserError(f'The threshold is a score from 0 to 1, not {args.threshold:g}.')
    targets = name_outputs(photos)
    if out is not None:
        check_folder(out)
        if not args.no_picture:
            check_pictures(out, targets + [target for _, target in videos], found)
    for name in args.format:
        check_format(name, [str(photo) for photo, _ in photos])
    boxes_of = _boxes(args, [str(photo) for photo, _ in photos])

    from ..inference.estimator import PoseEstimator
    from ..inference.photo import Photo

    estimator = PoseEstimator(
        args.model,
        args.weights,
        decoder=args.decoder,
        flip_test=args.flip_test,
        batch_size=args.batch_size,
        **engine_options(args),
        **people_options(args),
    )
    if args.boxes is None:
        estimator.detector()  # what hinders it is said once, before any photo
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    together: list[PoseResult] = []
    begun: list[int] = []  # which photos went in
    people = done = nobody = 0
    with (
        progress_bar(len(photos), 'photo', disable=args.quiet or not photos) as bar,
        ThreadPoolExecutor(_WRITERS) as pool,
    ):

        def inputs() -> Iterator[Photo]:
            for index, (photo, _) in enumerate(photos):
                try:
                    item = Photo(sys.stdin.buffer.read() if photo == STDIN else str(photo), *boxes_of(str(photo)))
                except UserError as error:
                    fail(index, error)
                    continue
                begun.append(index)
                yield item

        def fail(index: int, error: UserError) -> None:
            failed.append((str(photos[index][0]), str(error)))
            bar.update()

        writing: deque[Future[None]] = deque()
        stream = estimator.look(inputs(), skip=lambda place, error: fail(begun[place], error))
        for place, image, result in stream:
            if result.path is None:
                result = replace(result, path=str(STDIN))
            if args.json:
                sys.stdout.write(result.to_json(indent=None) + '\n')
                sys.stdout.flush()
            if out is not None:
                # drawing and encoding take as long as the network on the compiled kernels
                writing.append(pool.submit(_save, image, result, out / targets[begun[place]], args))
            while len(writing) > 2 * _WRITERS:
                writing.popleft().result()
            if args.format:
                together.append(result)
            people += len(result)
            nobody += not len(result)
            done += 1
            bar.update()
        for future in writing:
            future.result()
    for name in args.format if done else ():
        assert out is not None
        save_results(together, out / TOGETHER[name], name)
    frames = 0
    for video, target in videos:
        from .predict_video import run_video

        try:
            summary = run_video(video, None if out is None else out / target, estimator, args)
        except UserError as error:
            failed.append((shown(video), str(error)))
            continue
        frames += summary.frames
        people += summary.people
        if summary.problem:
            failed.append((shown(video), summary.problem))
        if summary.skipped:
            sys.stderr.write(
                f'widehrnet: {shown(video)}: {summary.skipped} frames left out, which came faster than they were done\n'
            )
    for name, reason in failed:
        sys.stderr.write(f'widehrnet: {reason if name in reason else f"{name}: {reason}"}\n')
    if skipped:
        sys.stderr.write(f'widehrnet: {_skipped(skipped)}\n')
    asked = len(photos) + len(missing)
    (sys.stderr if args.json else sys.stdout).write(
        (f'{frames} frames of {_counted(len(videos), "video")}, ' if videos else '')
        + (f'{done} of ' if done < asked else '')
        + (f'{_counted(asked, "photo")}, ' if asked else '')
        + ('1 person' if people == 1 else f'{people} people')
        + (f', {_counted(nobody, "photo")} of nobody' if nobody else '')
        + (f': {out}' if out is not None else '')
        + (f'; {len(failed)} failed' if failed else '')
        + (f'; {len(skipped)} skipped\n' if skipped else '\n')
    )
    return 1 if failed else 0


def _skipped(files: list[tuple[Path, str]]) -> str:
    """What was passed over in folders, and why."""
    named = ', '.join(f'{path} ({reason})' for path, reason in files[:20])
    more = f' and {len(files) - 20} more' if len(files) > 20 else ''
    return f'{_counted(len(files), "file")} in folders skipped: {named}{more}'


def _counted(number: int, thing: str) -> str:
    return f'{number} {thing}' if number == 1 else f'{number} {thing}s'


def _boxes(args: argparse.Namespace, photos: list[str]) -> Callable[[str], tuple[Any, Any]]:
    """What has boxes and scores by the name of a photo."""
    if args.boxes is None:
        return lambda path: (None, None)

    from ..formats.boxes import BoxFile
    from .boxes import read_boxes

    boxes = read_boxes(args.boxes)
    if not isinstance(boxes, BoxFile):
        return lambda path: (boxes, None)
    boxes.check(photos)
    return boxes.of_photo


def _save(image: 'npt.NDArray[np.uint8]', result: 'PoseResult', target: Path, args: argparse.Namespace) -> None:
    import io

    from ..files import write_whole

    if not args.no_picture:
        # a large photo was shrunk as it was read, and is drawn so
        shrink = result.image_size[0] / image.shape[1], result.image_size[1] / image.shape[0]
        shown = replace(
            result, keypoints=(result.keypoints + 0.5) / shrink - 0.5, boxes=result.boxes / [*shrink, *shrink]
        )
        picture = shown.draw(image, threshold=args.threshold, boxes=args.draw_boxes)
        buffer = io.BytesIO()
        # JPEG ends at 65535 pixels a side
        suffix = '.jpg' if max(picture.size) < 65_500 else '.png'
        picture.save(buffer, 'JPEG' if suffix == '.jpg' else 'PNG', **({'quality': 92} if suffix == '.jpg' else {}))
        write_whole(target.with_name(f'{target.name}_pose{suffix}'), buffer.getvalue())
    result.save_json(target.with_name(f'{target.name}_pose.json'))
