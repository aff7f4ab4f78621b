"""`widehrnet web`: the page that runs in the browser, served on this machine."""

import argparse
import sys
from pathlib import Path

HELP = 'a page that runs wholly in the browser: photo, video, camera'
DESCRIPTION = 'Export a person finder and pose models, and serve the page that runs them in the browser.'
EPILOG = """\
examples:
  widehrnet web
  widehrnet web runs/mine/model --open
  widehrnet export widehrnet_10_attn --format web --out site    (the folder, for any static host)

Photos, videos and the camera's frames stay in the browser. With WebGPU it loads ONNX Runtime Web, without --runtime
from a public CDN.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        'models', nargs='*', metavar='MODEL', help='pose models (default: widehrnet_10_attn, widehrnet_18_attn)'
    )
    parser.add_argument('--port', type=int, default=0, help='port (default: any free one)')
    parser.add_argument('--open', action='store_true', help='open it in a browser')
    parser.add_argument(
        '--finder',
        metavar='MODEL',
        help='person finder: a folder, file of weights or name (default: the light one that ships)',
    )
    add_runtime(parser)


def add_runtime(parser: argparse.ArgumentParser) -> None:
    """Add `--runtime`, for `widehrnet export` too."""
    parser.add_argument(
        '--runtime',
        type=Path,
        metavar='DIR',
        help='the unpacked npm package onnxruntime-web, for a page that loads nothing from elsewhere (default: from a '
        'public CDN)',
    )


def run(args: argparse.Namespace) -> int:
    """Run the command; gives 0, when the page was interrupted."""
    import tempfile
    import webbrowser

    from ..errors import UserError
    from ..web import DEFAULT_MODELS, serve, write_site

    if not 0 <= args.port < 65536:
        raise UserError(f'--port must be from 0 to 65535, not {args.port}.')
    with tempfile.TemporaryDirectory(prefix='widehrnet-') as folder:
        site = write_site(
            args.models or DEFAULT_MODELS, Path(folder) / 'site', finder=args.finder, runtime=args.runtime
        )
        with serve(site, args.port) as server:
            address = f'http://127.0.0.1:{server.server_address[1]}/'
            sys.stdout.write(f'{address} (Ctrl-C ends it)\n')
            sys.stdout.flush()
            if args.open:
                webbrowser.open(address)
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                sys.stdout.write('\n')
    return 0
