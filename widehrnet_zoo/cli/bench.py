"""`widehrnet bench`: networks and runtimes side by side."""

import argparse
import sys
import tempfile
from pathlib import Path

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
contenders in turn.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        'models', nargs='*', default=['widehrnet_18_attn'], help='variants (default: widehrnet_18_attn)'
    )
    parser.add_argument(
        '--paths',
        help='of eager, deployed, kernels, compiled, aot, torch-export, torchscript, onnx, onnx-plain, openvino, '
        'openvino-plain, train, train-fused (default: eager,deployed,kernels,onnx,openvino); with --device of eager, '
        'compiled, graphs (default: all)',
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
    import json
    from dataclasses import asdict

    from ..bench.contenders import ALLOWED, OURS, PATHS, PRECISIONS, Contender, default_threads
    from ..bench.photo import photo_table, time_photo
    from ..bench.report import chart, table
    from ..bench.run import bench, machine
    from ..errors import UserError
    from ..files import check_folder, write_whole

    if args.out is not None:
        check_folder(args.out)
    if args.device is not None:
        return _on_device(args)
    args.batches = args.batches or [1]
    paths = (args.paths or 'eager,deployed,kernels,onnx,openvino').split(',')
    precisions = (args.precisions or 'f32').split(',')
    unknown = [p for p in paths if p not in PATHS] + [p for p in precisions if p not in PRECISIONS]
    if unknown:
        raise UserError(
            f'There is no {unknown[0]!r}: paths are {", ".join(PATHS)}; precisions {", ".join(PRECISIONS)}.'
        )
    threads = args.threads or default_threads()
    if threads < 1 or args.runs < 1 or min(args.batches) < 1 or (args.people or 1) < 1:
        raise UserError('Threads, runs, batches and people are at least 1.')
    if args.video is not None:
        return _bench_video(args, threads)
    size = tuple(args.size)
    if args.steps:
        return _steps(args, precisions, size)
    chosen = [(path, precision) for precision in precisions for path in paths if path in ALLOWED[precision]]
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
    with tempfile.TemporaryDirectory(prefix='widehrnet-bench-') as folder:
        contenders = [c.prepare(Path(folder), crops) for c in contenders]
        rows = bench(
            contenders,
            batches=args.batches,
            threads=threads,
            runs=args.runs,
            cold=args.cold,
            progress=not args.quiet,
        )
        photo = []
        if args.people:
            photo = time_photo(contenders, args.people, threads, min(args.runs, 10), progress=not args.quiet)
    about = machine(threads)
    text = table(rows)
    if photo:
        text += f'\nA photo of 1080p with {args.people} people, ms:\n\n{photo_table(photo)}'
    sys.stdout.write(f'{about["processor"]}, {threads} threads, {size[0]}x{size[1]}\n\n{text}')
    if args.out is not None:
        content = {'machine': about, 'size': size, 'rows': rows, 'photo': [asdict(stages) for stages in photo]}
        write_whole(args.out / 'bench.json', json.dumps(content, indent=1))
        write_whole(args.out / 'bench.md', text)
        chart(rows, f'{size[0]}x{size[1]}, {about["processor"]}, {threads} threads', args.out / 'bench.png')
    return 0


def _bench_video(args: argparse.Namespace, threads: int) -> int:
    import json
    from dataclasses import asdict

    import torch

    from ..bench.run import machine
    from ..bench.video import time_video, video_table
    from ..files import write_whole
    from ..inference.estimator import PoseEstimator

    torch.set_num_threads(threads)
    estimator = PoseEstimator(args.models[0], args.weights, 'cpu')
    times = time_video(estimator, Path(args.video) if args.video else None, min(args.runs, 5), not args.quiet)
    about, text = machine(threads), video_table(times)
    sys.stdout.write(f'{args.models[0]}, {about["processor"]}, {threads} threads\n\n{text}')
    if args.out is not None:
        write_whole(args.out / 'bench.json', json.dumps({'machine': about, 'video': asdict(times)}, indent=1))
        write_whole(args.out / 'bench.md', text)
    return 0


def _steps(args: argparse.Namespace, precisions: list[str], size: tuple[int, int]) -> int:
    import json

    from ..bench.run import machine
    from ..bench.steps import bench_steps, steps_table
    from ..files import write_whole

    rows = [row for precision in precisions for row in bench_steps(args.models[0], precision, size, args.runs)]
    about = machine(1)
    sys.stdout.write(f'{about["processor"]}, one image of {size[0]}x{size[1]} on one thread\n\n{steps_table(rows)}')
    if args.out is not None:
        write_whole(args.out / 'bench.json', json.dumps({'machine': about, 'size': size, 'steps': rows}, indent=1))
        write_whole(args.out / 'bench.md', steps_table(rows))
    return 0


def _on_device(args: argparse.Namespace) -> int:
    import json
    from dataclasses import asdict

    import torch

    from ..bench.device import (
        DEVICE_PATHS,
        DTYPES,
        DeviceContender,
        bench_device,
        device_table,
        sample_images,
        time_stages,
    )
    from ..bench.photo import photo_table
    from ..bench.run import machine
    from ..engines.pytorch import find_device
    from ..errors import UserError
    from ..files import write_whole

    paths = args.paths.split(',') if args.paths else list(DEVICE_PATHS)
    precisions = args.precisions.split(',') if args.precisions else list(DTYPES)
    unknown = [p for p in paths if p not in DEVICE_PATHS] + [p for p in precisions if p not in DTYPES]
    batches = args.batches or [1, 32, 256]
    if unknown:
        raise UserError(
            f'There is no {unknown[0]!r} with --device: paths are {", ".join(DEVICE_PATHS)}; precisions '
            f'{", ".join(DTYPES)}.'
        )
    if args.weights or args.calibrate or args.cold or args.threads:
        raise UserError('--weights, --calibrate, --cold and --threads are not for --device: leave them out.')
    if args.runs < 1 or min(batches) < 1 or (args.people or 1) < 1:
        raise UserError('Runs, batches and people are at least 1.')
    device, size, progress = find_device(args.device), tuple(args.size), not args.quiet
    contenders = [
        DeviceContender(model, path, precision, channels_last)
        for model in (*args.models, *args.vs)
        for path in paths
        for precision in precisions
        for channels_last in (False, True)
    ]
    rows = bench_device(contenders, device, sample_images(size), batches, args.runs, progress)
    text, photo = device_table(rows), []
    if args.people:
        photo = time_stages(contenders, device, args.people, size, min(args.runs, 10), progress)
        text += f'\nA photo of 1080p with {args.people} people, cut on the device, ms:\n\n{photo_table(photo)}'
    about = machine(torch.get_num_threads())
    if device.type == 'cuda':
        about['device'] = torch.cuda.get_device_name(device)
    sys.stdout.write(f'{about.get("device", device)}, {size[0]}x{size[1]}\n\n{text}')
    if args.out is not None:
        content = {'machine': about, 'size': size, 'rows': rows, 'photo': [asdict(stages) for stages in photo]}
        write_whole(args.out / 'bench.json', json.dumps(content, indent=1))
        write_whole(args.out / 'bench.md', text)
    return 0
