"""`widehrnet export`: a network for another runtime."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .web import add_runtime

if TYPE_CHECKING:
    from torch import nn

    from ..pose.skeletons import Skeleton

HELP = 'write a model for ONNX Runtime, OpenVINO, the kernels, torch.export, TorchScript or the browser'
DESCRIPTION = 'Write a model for another runtime; the file is run and compared with PyTorch before it is kept.'
EPILOG = """\
examples:
  widehrnet export widehrnet_18_attn --format onnx --out pose.onnx
  widehrnet export widehrnet_18_attn --format openvino --precision bf16 --out pose.xml
  widehrnet export widehrnet_18_attn --format openvino --precision int8 --calibrate photos/ --out pose.xml
  widehrnet export runs/mine --format onnx --pipeline --out pose.onnx
  widehrnet export widehrnet_18_attn --format kernels --finder runs/finder --out pose.kernels
  widehrnet export widehrnet_10_attn --format web --out site
  widehrnet predict photo.jpg --model pose.onnx --out poses

With --pipeline, or --format kernels, a person finder is written beside the file, as pose.finder.onnx, and predict takes
it for photos without boxes: the one that ships, for models of human skeletons, or another by --finder. Files for ONNX
Runtime, OpenVINO and the kernels can be used where PyTorch is not installed.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument('model', help='variant, variant.tag, hf-hub:ORG/NAME or folder')
    parser.add_argument('--weights', metavar='FILE', help='.safetensors, or an official .pth')
    parser.add_argument(
        '--format',
        required=True,
        choices=('onnx', 'openvino', 'kernels', 'torch-export', 'torchscript', 'web'),
        dest='fmt',
    )
    parser.add_argument(
        '--out',
        type=Path,
        metavar='FILE',
        help='the file (default: the model name, with .onnx, .xml, .kernels, .pt2 or .torchscript), or the folder of a '
        'page (default: site)',
    )
    parser.add_argument('--size', type=int, nargs=2, metavar=('HEIGHT', 'WIDTH'), help="instead of the model's own")
    parser.add_argument(
        '--pipeline',
        action=argparse.BooleanOptionalAction,
        default=None,
        help='uint8 crops in, keypoints out: normalise and decode inside the file (default for person finders)',
    )
    parser.add_argument(
        '--finder',
        metavar='MODEL',
        help='person finder to write beside the file, or into the page: a folder, file of weights or name',
    )
    parser.add_argument('--precision', choices=('f32', 'bf16', 'int8'), default='f32', help='default: f32')
    parser.add_argument(
        '--calibrate', metavar='PATH', type=Path, help='folder of 100 or more photos of one person each, for int8'
    )
    add_runtime(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from ..engines.exported import open_backend as open_exported
    from ..engines.opening import open_backend
    from ..engines.pytorch import TorchBackend
    from ..errors import UserError
    from ..export.export import FORMATS, export
    from ..pose.box_maps import gives_boxes

    if args.fmt == 'web':
        return _write_page(args)
    if args.runtime is not None:
        raise UserError('--runtime is for --format web: leave it out.')
    if args.precision == 'int8' and args.fmt != 'kernels' and args.calibrate is None:
        raise UserError('int8 is calibrated on photos of people: give --calibrate FOLDER.')
    size = tuple(args.size) if args.size else None
    backend = open_backend(args.model, args.weights, 'cpu', size)
    if not isinstance(backend, TorchBackend):
        raise UserError(f'{args.model} is an exported file already: give the model that it was made from.')
    crops = None
    if args.calibrate is not None:
        from ..export.calibration import folder_crops

        crops = folder_crops(args.calibrate, backend.size)
    finder = _finder(args, backend.skeleton)
    name = Path(args.model).name.replace(':', '_')
    path = args.out or Path(f'{name}{FORMATS[args.fmt]}')
    difference = export(
        backend.module,
        path,
        args.fmt,
        size=backend.size,
        skeleton=backend.skeleton,
        pipeline=args.pipeline,
        precision=args.precision,
        crops=crops,
        finder=finder,
    )
    pipeline = open_exported(path).metadata.pipeline
    places = 'boxes' if gives_boxes(backend.skeleton) else 'keypoints' if pipeline else 'heatmaps'
    unit = 'pixels' if pipeline else 'of the largest value'
    said = f"at most {difference:.2g} {unit} from PyTorch's" if difference else "equal to PyTorch's"
    sys.stdout.write(f'{path}: {args.fmt} {args.precision}; its {places} are {said}.\n')
    if finder is not None:
        sys.stdout.write(f'{path.with_suffix(f".finder{path.suffix}")}: the person finder that belongs to it.\n')
    elif (args.pipeline or args.fmt == 'kernels') and not gives_boxes(backend.skeleton):
        sys.stdout.write(
            'No person finder is beside it: without boxes the whole photo is one person. Give --finder for one.\n'
        )
    return 0


def _finder(args: argparse.Namespace, skeleton: 'Skeleton') -> 'nn.Module | None':
    from ..detection import PersonFinder, finder_ships
    from ..engines.opening import torch_module
    from ..errors import UserError
    from ..pose.skeletons import is_human

    if args.finder is None and not ((args.pipeline or args.fmt == 'kernels') and is_human(skeleton) and finder_ships()):
        return None
    finder = torch_module(PersonFinder(args.finder, device='cpu').backend)
    if finder is None:
        raise UserError(f'{args.finder} is an exported file already: give the finder that it was made from.')
    return finder


def _write_page(args: argparse.Namespace) -> int:
    from ..errors import UserError
    from ..web import write_site

    if args.pipeline is False or args.precision != 'f32' or args.calibrate is not None:
        raise UserError('A page has its networks in f32 with the pipeline inside: leave the other options out.')
    folder = write_site(
        [args.model],
        args.out or Path('site'),
        weights=args.weights,
        finder=args.finder,
        runtime=args.runtime,
        size=tuple(args.size) if args.size else None,
    )
    sys.stdout.write(f'{folder}: a page for any static host; `widehrnet web` shows one on this machine.\n')
    return 0
