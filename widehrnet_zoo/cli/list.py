"""`widehrnet list`: the models of the zoo."""

import argparse
import json
import sys

HELP = 'the models: parameters, MACs, weights, figures'
DESCRIPTION = 'The models of the zoo with their parameters, multiply-accumulates, weights and figures.'
EPILOG = """\
examples:
  widehrnet list
  widehrnet list '*_attn' --json
  widehrnet list --pretrained

The authors' code computes a part of the exchange between resolutions twice; their MACs count that.
weights: shipped (in the package), hub (downloaded when used), convert (the authors' file, through
`widehrnet convert`), none (untrained). Official weights have the authors' figures.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument('filter', nargs='?', default='', help='wildcards on the name (quote them)')
    parser.add_argument('--pretrained', action='store_true', help='only models whose weights are there to load')
    parser.add_argument('--json', action='store_true', help='as JSON')


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from ..errors import UserError
    from ..models.catalogue import entries
    from ..models.registry import list_pretrained

    loadable = set(list_pretrained()) if args.pretrained else set()
    found = [e for e in entries(args.filter) if not args.pretrained or e.name in loadable]
    if args.json:
        sys.stdout.write(json.dumps([e.to_dict() for e in found], indent=1) + '\n')
        return 0
    if not found:
        raise UserError(
            f'No model{f" matches {args.filter!r}" if args.filter else ""}{" with weights" * args.pretrained}.'
        )
    rows = [('model', 'input', 'keypoints', 'params', 'MACs', "authors' MACs", 'weights', 'figures')]
    rows += [
        (
            e.name,
            f'{e.size[0]}x{e.size[1]}',
            str(e.num_keypoints or 'boxes'),
            f'{e.parameters / 1e6:.2f} M',
            f'{e.macs / 1e9:.3f} G',
            f'{e.official_macs / 1e9:.3f} G',
            e.weights,
            ', '.join(f'{name} {value:g}' for name, value in e.figures.items()),
        )
        for e in found
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = [
            c.rjust(w) if i in (2, 3, 4, 5) else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ]
        sys.stdout.write('  '.join(cells).rstrip() + '\n')
    return 0
