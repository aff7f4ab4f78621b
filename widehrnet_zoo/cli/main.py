"""The command `widehrnet`."""

import argparse
import importlib
import logging
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path

from ..errors import UserError
from ..extras import needs_pytorch

COMMANDS = ('predict', 'list', 'info', 'convert', 'eval', 'train', 'pack', 'export', 'bench', 'demo', 'web')
"""Modules of this package in the order of the help.

Each has `HELP`, `DESCRIPTION`, `EPILOG`, `add_arguments(parser)`, and `run(args)`, which gives the exit code, 0 where
all is done, and raises `UserError` for wrong input, `ImportError` for a package that is not installed.
"""

_EXTRAS = {
    'eval': 'eval',
    'train': 'train',
    'pack': 'train',
    'export': 'export',
    'bench': 'export',
    'demo': 'demo',
    'web': 'export',
}
"""Of commands that need more than the core, or mostly do."""

EPILOG = """\
examples:
  widehrnet predict photo.jpg --out poses
  widehrnet list
  widehrnet info widehrnet_18_attn
  widehrnet COMMAND --help

exit codes: 0 done, 1 done in part or failed, 2 wrong input or use, 130 interrupted
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser with all commands."""
    from ..version import __version__

    parser = argparse.ArgumentParser(
        prog='widehrnet',
        description='Lightweight human-pose networks: find keypoints, measure, train, export.',
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--version', action='version', version=f'widehrnet_zoo {__version__}')
    parser.add_argument('--debug', action='store_true', help='show the traceback of an error')
    subparsers = parser.add_subparsers(dest='command', metavar='COMMAND', required=True)
    for name in COMMANDS:
        module = f'{__package__}.{name}'
        command = importlib.import_module(module)
        added = subparsers.add_parser(
            name,
            help=command.HELP,
            description=command.DESCRIPTION,
            epilog=command.EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_arguments(added)
        added.register('type', Path, _path)  # for all arguments of `type=Path`
        added.set_defaults(run=command.run)
        # after the command as well; SUPPRESS keeps the value given before it
        added.add_argument(
            '--debug', action='store_true', default=argparse.SUPPRESS, help='show the traceback of an error'
        )
    return parser


def _path(text: str) -> Path:
    """A path of the command line: Path('') would be the current folder, which nobody named."""
    if not text:
        raise argparse.ArgumentTypeError('the path is empty (the current folder is .)')
    return Path(text)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        The exit code: 0 done, 1 done in part or failed, 2 wrong input, 130 interrupted.
    """
    for stream in (sys.stdout, sys.stderr):
        # a file's name need not be text, and a console need not know all letters
        if hasattr(stream, 'reconfigure'):
            stream.reconfigure(errors='backslashreplace')
    args = None
    try:
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        args = build_parser().parse_args(argv)
        logging.basicConfig(level=logging.INFO if args.debug else logging.WARNING, format='%(message)s')
        # what is too large is refused with a sentence; what is only large is read
        warnings.filterwarnings('ignore', message='.*decompression bomb DOS attack')
        with needs_pytorch(f'widehrnet {args.command}', _EXTRAS.get(args.command)):
            return args.run(args)
    except KeyboardInterrupt:
        sys.stderr.write('interrupted\n')
        return 130
    except BrokenPipeError:
        # the reader of our output has gone; the interpreter must not complain about it at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if args and args.debug:
            traceback.print_exc()
        return _explain(error)


def _explain(error: Exception) -> int:
    text = ' '.join(str(error).split())
    if isinstance(error, OSError) and error.strerror:
        # of stdout there is no name
        text = (f'{error.filename}: ' if isinstance(error.filename, str) else '') + f'{error.strerror}.'
    if isinstance(error, (UserError, ImportError, OSError)):
        sys.stderr.write(f'widehrnet: {text}\n')
        return 2
    sys.stderr.write(f'widehrnet: unexpected {type(error).__name__}: {text} (--debug shows where)\n')
    return 1


if __name__ == '__main__':
    sys.exit(main())
