"""`widehrnet predict --ray`: a collection of photos, on many machines."""

import argparse
import re
import sys

from ..collection import predict_collection
from ..errors import UserError
from .engine import engine_options
from .people import people_options


def run_ray(args: argparse.Namespace) -> int:
    """Do the photos, and say how many.

    Args:
        args: What `widehrnet predict` parsed.

    Returns:
        0, or 1 if some photos failed.

    Raises:
        UserError: As `predict_collection`; or if an option is not for collections.
    """
    for name in ('boxes', 'format', 'json', 'draw_boxes'):
        if getattr(args, name):
            raise UserError(f'--ray writes Parquet for each photo: leave --{name.replace("_", "-")} out.')
    # pathlib makes one slash of the two of an address
    out = re.sub(r'^(\w\w+):/(?!/)', r'\1://', str(args.out or 'poses'))
    names = ('model', 'weights', 'decoder', 'flip_test', 'batch_size')
    options = {name: getattr(args, name) for name in names} | engine_options(args) | people_options(args)
    counts = predict_collection(
        args.paths, out, actors=2 if args.actors is None else args.actors, progress=not args.quiet, **options
    )
    failed = f'; {counts["failed"]} failed' if counts['failed'] else ''
    sys.stdout.write(f'{counts["photos"]} photos, {counts["people"]} people: {out}{failed}\n')
    return 1 if counts['failed'] else 0
