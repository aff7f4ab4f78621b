"""`widehrnet bench`: networks and runtimes side by side."""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

HELP = 'time models and runtimes side by side'
DESCRIPTION = 'Time models, runtimes and precisions side by side: same images, same threads, in turn.'
EPILOG = """\
examples:
  widehrnet bench
  widehrnet bench widehrnet_18_attn --paths eager,kernels,onnx,openvino --precisions f32,bf16 --batches 1 8
  widehrnet bench --paths train,train-fused --precisions f32,bf16 --batches 32 --size 128 96 --threads 1 --runs 5
  widehrnet bench widehrnet_10_attn --video --runs 3
  widehrnet bench --vs resnet50 mobilenetv2_100 mine.onnx --out runs/bench --cold
  widehrnet bench --steps --precisions f32,bf16
  widehrnet bench --device cuda --vs hrnet_w18_small resnet50 mobilenetv2_100 --people 8

A path that does not run in a precision is left out. Times are of one call after another of the same kind, the
contenders in turn. Rows are shown, and written to --out, as soon as they are measured.
"""

Measured = tuple[str, str, dict[str, Any]]
"""A line about the machine, the tables so far, which only grow, and all of it for JSON."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        'models', nargs='*', default=['widehrnet_18_attn'], help='variants (default: widehrnet_18_attn)'
    )
    parser.add_argument(
        '--paths',
        help='of eager, deployed, kernels, compiled, aot, torch-export, torchscript, onnx, openvino, train, '
        'train-fused (default: eager,deployed,kernels,onnx,openvino); with --device of eager, compiled, graphs '
        '(default: all)',
    )
    parser.add_argument(
        '--precisions', help='of f32, bf16, int8 (default: f32); with --device of f32, bf16, f16 (default: all)'
    )
    parser.add_argument(
        '--device',
        help='time networks in PyTorch on this device alone, such as cuda: precisions, memory formats, memory, error '
        'and the largest kernels',
    )
    parser.add_argument(
        '--vs',
        nargs='+',
        default=[],
        metavar='MODEL',
        help='timm models, run by the same paths and precisions as far as they can be, and ONNX files',
    )
    parser.add_argument('--weights', metavar='FILE', help='weights of the first model, for int8')
    parser.add_argument('--calibrate', metavar='PATH', type=Path, help='folder of 100 or more photos, for int8')
    parser.add_argument('--size', type=int, nargs=2, default=(256, 192), metavar=('HEIGHT', 'WIDTH'))
    parser.add_argument('--batches', type=int, nargs='+', metavar='N', help='default: 1; with --device 1, 32 and 256')
    parser.add_argument('--threads', type=int, help='threads of every runtime (default: all processors)')
    parser.add_argument('--runs', type=int, default=30, help='default: 30')
    parser.add_argument('--cold', action='store_true', help='also first result and peak memory in a new process')
    parser.add_argument(
        '--people', type=int, metavar='N', help='also the stages from a 1080p photo with N people to their keypoints'
    )
    parser.add_argument(
        '--video',
        nargs='?',
        const='',
        metavar='FILE',
        help='instead: frames per second of a video, by the first model as it is by default (without FILE: one of 720p '
        'with three people)',
    )
    parser.add_argument(
        '--steps', action='store_true', help="where the kernels' time goes, and their share of the processor's peak"
    )
    parser.add_argument('--out', type=Path, metavar='DIR', help='bench.json, bench.md and bench.png')
    parser.add_argument('--quiet', action='store_true', help='no progress bar')


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from ..errors import UserError
    from ..files import check_folder, write_whole

    if args.out is not None:
        check_folder(args.out)
    numbers = (args.runs, args.threads, args.people, *(args.batches or ()))
    if min(number for number in numbers if number is not None) < 1:
        raise UserError('Threads, runs, batches and people are at least 1.')
    if args.device is not None:
        measure = _on_device
    elif args.video is not None:
        measure = _video
    else:
        measure = _steps if args.steps else _models
    shown = ''
    for title, text, content in measure(args):
        sys.stdout.write(text[len(shown) :] if shown else f'{title}\n\n{text}')
        sys.stdout.flush()
        shown = text
        if args.out is not None:
            write_whole(args.out / 'bench.json', json.dumps(content, indent=1))
            write_whole(args.out / 'bench.md', text)
    return 0


def _choose(text: str | None, known: Iterable[str], default: Iterable[str], what: str) -> list[str]:
    """The names of an option, separated by commas."""
    from ..errors import UserError

    chosen = text.split(',') if text else list(default)
    for name in chosen:
        if name not in known:
            raise UserError(f'There is no {what} {name!r}: choose of {", ".join(known)}.')
    return chosen


def _possible(chosen: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The paths and precisions that run on this processor; it is said which are left out."""
    from ..errors import UserError
    from ..kernels.library import choose_variant

    kept, left_out = [], {}
    for path, precision in chosen:
        try:
            if path == 'kernels':
                choose_variant(precision)
            kept.append((path, precision))
        except UserError as error:
            left_out[f'{path} {precision}'] = error
    if not kept and left_out:
        raise next(iter(left_out.values()))
    for name, reason in left_out.items():
        sys.stderr.write(f'{name} is left out. {reason}\n')
    return kept


def _models(args: argparse.Namespace) -> Iterator[Measured]:
    from ..bench.contenders import ALLOWED, OURS, PATHS, PRECISIONS, Contender
    from ..bench.photo import photo_table, time_photo
    from ..bench.report import chart, table
    from ..bench.run import bench, machine
    from ..errors import UserError
    from ..extras import require
    from ..kernels.library import num_processors

    if args.out is not None:
        require('matplotlib', 'export')  # for the chart at the end
    paths = _choose(args.paths, PATHS, ('eager', 'deployed', 'kernels', 'onnx', 'openvino'), 'path')
    precisions = _choose(args.precisions, PRECISIONS, ('f32',), 'precision')
    threads, size, progress = args.threads or num_processors(), tuple(args.size), not args.quiet
    chosen = _possible((path, precision) for precision in precisions for path in paths if path in ALLOWED[precision])
    contenders = [
        Contender(name, path, precision, size, weights=args.weights if name == args.models[0] else None)
        for name in args.models
        for path, precision in chosen
    ]
    for name in args.vs:
        if name.endswith('.onnx'):
            if not Path(name).is_file():
                raise UserError(f'There is no file {name}.')
            contenders.append(Contender(name, 'onnx', 'f32', size, file=name))
            continue
        contenders += [Contender(name, p, q, size) for p, q in chosen if p not in OURS and q != 'int8']
    crops = None
    if args.calibrate is not None:
        from ..export.calibration import folder_crops

        crops = folder_crops(args.calibrate, size)
    about = machine(threads)
    title = f'{about["processor"]}, {threads} threads, {size[0]}x{size[1]}'
    content: dict[str, Any] = {'machine': about, 'size': size, 'rows': [], 'photo': []}
    with tempfile.TemporaryDirectory(prefix='widehrnet-bench-') as folder:
        contenders = [c.prepare(Path(folder), crops) for c in contenders]
        how = {'batches': args.batches or [1], 'threads': threads, 'runs': args.runs, 'cold': args.cold}
        for rows in bench(contenders, **how, progress=progress):
            content['rows'] += rows
            yield title, table(content['rows']), content
        if args.people:
            photo = time_photo(contenders, args.people, threads, min(args.runs, 10), progress)
            content['photo'] = [asdict(stages) for stages in photo]
            told = f'\nA photo of 1080p with {args.people} people, ms:\n\n{photo_table(photo)}' if photo else ''
            yield title, table(content['rows']) + told, content
    if args.out is not None:
        chart(content['rows'], f'{size[0]}x{size[1]}, {about["processor"]}, {threads} threads', args.out / 'bench.png')


def _video(args: argparse.Namespace) -> Iterator[Measured]:
    import torch

    from ..bench.run import machine
    from ..bench.video import time_video, video_table
    from ..inference.estimator import PoseEstimator
    from ..kernels.library import num_processors

    threads = args.threads or num_processors()
    torch.set_num_threads(threads)
    estimator = PoseEstimator(args.models[0], args.weights, 'cpu')
    times = time_video(estimator, Path(args.video) if args.video else None, min(args.runs, 5), not args.quiet)
    about = machine(threads)
    title = f'{args.models[0]}, {about["processor"]}, {threads} threads'
    yield title, video_table(times), {'machine': about, 'video': asdict(times)}


def _steps(args: argparse.Namespace) -> Iterator[Measured]:
    from ..bench.contenders import PRECISIONS
    from ..bench.run import machine
    from ..bench.steps import bench_steps, steps_table

    precisions, size = _choose(args.precisions, PRECISIONS, ('f32',), 'precision'), tuple(args.size)
    precisions = [precision for _, precision in _possible(('kernels', precision) for precision in precisions)]
    about, rows = machine(1), []
    title = f'{about["processor"]}, one image of {size[0]}x{size[1]} on one thread'
    for precision in precisions:
        rows += bench_steps(args.models[0], precision, size, args.runs)
        yield title, steps_table(rows), {'machine': about, 'size': size, 'steps': rows}


def _on_device(args: argparse.Namespace) -> Iterator[Measured]:
    import torch

    from ..bench import device as on
    from ..bench.photo import photo_table
    from ..bench.run import machine
    from ..engines.pytorch import find_device
    from ..errors import UserError

    paths = _choose(args.paths, on.DEVICE_PATHS, on.DEVICE_PATHS, 'path with --device')
    precisions = _choose(args.precisions, on.DTYPES, on.DTYPES, 'precision with --device')
    if args.weights or args.calibrate or args.cold or args.threads:
        raise UserError('--weights, --calibrate, --cold and --threads are not for --device: leave them out.')
    device, size, progress = find_device(args.device), tuple(args.size), not args.quiet
    contenders = [
        on.DeviceContender(model, path, precision, channels_last)
        for model in (*args.models, *args.vs)
        for path in paths
        for precision in precisions
        for channels_last in (False, True)
    ]
    batches = args.batches or [1, 32, 256]
    about = machine(torch.get_num_threads())
    if device.type == 'cuda':
        about['device'] = torch.cuda.get_device_name(device)
    title = f'{about.get("device", device)}, {size[0]}x{size[1]}'
    content: dict[str, Any] = {'machine': about, 'size': size, 'rows': [], 'photo': []}
    for rows in on.bench_device(contenders, device, on.sample_images(size), batches, args.runs, progress):
        content['rows'] += rows
        yield title, on.device_table(content['rows']), content
    if args.people:
        photo = on.time_device_photo(contenders, device, args.people, size, min(args.runs, 10), progress)
        content['photo'] = [asdict(stages) for stages in photo]
        told = f'\nA photo of 1080p with {args.people} people, cut on the device, ms:\n\n{photo_table(photo)}'
        yield title, on.device_table(content['rows']) + told, content
