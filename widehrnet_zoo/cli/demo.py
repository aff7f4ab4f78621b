"""`widehrnet demo`: a page to try models on one's own photos."""

import argparse

from .engine import add_engine
from .people import add_detector, add_limits, people_options

HELP = 'a page in the browser to try models on your photos'
DESCRIPTION = 'Serve a page: drop a photo, draw boxes, see and download keypoints; or stand before a camera.'
EPILOG = """\
examples:
  widehrnet demo
  widehrnet demo runs/mine/model exported.onnx
  widehrnet demo --host 0.0.0.0 --port 8080
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        'models', nargs='*', metavar='MODEL', help='names, folders or files to offer besides the models that ship'
    )
    add_engine(parser)
    people = parser.add_argument_group('people')
    add_detector(people, 'photos where no box is drawn')
    add_limits(people)
    parser.add_argument(
        '--host', default='127.0.0.1', help='address to listen on (default: 127.0.0.1, only this machine reaches it)'
    )
    parser.add_argument('--port', type=int, help='port (default: the first free one from 7860)')
    parser.add_argument('--open', action='store_true', help='open it in a browser')
    parser.add_argument('--max-mb', type=float, default=20, help='largest file that is taken (default: 20)')
    parser.add_argument('--max-megapixels', type=float, default=50, help='largest photo that is taken (default: 50)')


def run(args: argparse.Namespace) -> int:
    """Run the command; gives 0, when the page was interrupted."""
    from ..errors import UserError

    if not (0 < args.max_mb < 1e6 and 0 < args.max_megapixels < 1e6):
        raise UserError('--max-mb and --max-megapixels must be above 0.')
    if args.port is not None and not 0 < args.port < 65536:
        raise UserError(f'--port must be from 1 to 65535, not {args.port}.')
    from ..demo import DemoModels, launch

    launch(
        DemoModels.find(args.models, args.device, args.engine, **people_options(args)),
        host=args.host,
        port=args.port,
        max_upload=int(args.max_mb * 1024**2),
        max_pixels=int(args.max_megapixels * 1e6),
        open_browser=args.open,
    )
    return 0
