"""`widehrnet pack`: what a recipe learns from, in files to take to another machine."""

import argparse
import sys
from pathlib import Path

from .train import add_recipe, read_recipe

HELP = 'put crops and labels into portable files'
DESCRIPTION = (
    'Cut the people of a recipe out of their photos and write them, with their labels, into files below a given size. '
    '`widehrnet train --packs FOLDER` learns from them where neither photos nor label files are.'
)
EPILOG = """\
examples:
  widehrnet pack everyday_256x192 --labels mix.json --images photos --val-labels val.json --to packs
  widehrnet train everyday_256x192 --packs packs --out runs/everyday      # on the other machine
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_recipe(parser)
    packs = parser.add_argument_group('packs')
    packs.add_argument('--to', type=Path, required=True, metavar='FOLDER', help='where to write the packs')
    packs.add_argument('--megabytes', type=float, default=50.0, help='largest size of a file (default: 50)')
    packs.add_argument('--quality', type=int, default=85, help='of the WebP crops, 1 to 100 (default: 85)')
    packs.add_argument('--quiet', action='store_true', help='no progress bar')


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from ..files import check_folder
    from ..training.data import pack

    check_folder(args.to, '--to')
    for path in pack(read_recipe(args), args.to, args.quality, args.megabytes, not args.quiet):
        sys.stdout.write(f'{path} {path.stat().st_size / 1e6:.1f} MB\n')
    return 0
