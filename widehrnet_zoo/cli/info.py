"""`widehrnet info`: all that is known of a model."""

import argparse
import json
import sys

HELP = 'all that is known of a model'
DESCRIPTION = 'Size, cost, weights, licence, paper and keypoints of a model.'
EPILOG = """\
examples:
  widehrnet info widehrnet_18_attn
  widehrnet info widehrnet_18.mpii_256x256 --json
  widehrnet info local-dir:models/mine
"""

_WEIGHTS = {
    'shipped': 'shipped with the package',
    'hub': 'on the Hugging Face Hub, downloaded when used',
    'convert': "the authors' file, through `widehrnet convert CHECKPOINT OUT_DIR`",
    'none': 'none, untrained',
    'hf-hub': 'on the Hugging Face Hub, downloaded when used',
    'local-dir': 'in that folder',
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument('model', metavar='MODEL', help='variant, variant.tag, hf-hub:ORG/NAME or local-dir:FOLDER')
    parser.add_argument('--json', action='store_true', help='as JSON')


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from ..models.catalogue import describe

    entry, skeleton = describe(args.model)
    if args.json:
        sys.stdout.write(json.dumps({**entry.to_dict(), 'skeleton': skeleton.to_dict()}, indent=1) + '\n')
        return 0
    names = skeleton.keypoints
    lines = {
        'model': entry.name,
        'input': f'{entry.size[0]}x{entry.size[1]} (height x width)',
        'parameters': f'{entry.parameters:,}',
        'MACs': f"{entry.macs:,} ({entry.official_macs:,} in the authors' code, which computes a part twice)",
        'weights': _WEIGHTS[entry.weights],
        'figures': ', '.join(f'{name} {value:g}' for name, value in entry.figures.items()) or 'none',
        'licence': f'{entry.license or "not stated"} ({"weights" if entry.weights != "none" else "code"})',
        'paper': entry.paper or 'not stated',
        'origin': entry.origin or 'this project',
        'skeleton': f'{skeleton.name}, {len(names)} keypoints, {len(skeleton.bones)} bones, '
        f'OKS sigmas {"known" if skeleton.sigmas else "not known"}',
        'keypoints': ', '.join(names),
        'flip pairs': ', '.join(f'{names[a]} / {names[b]}' for a, b in skeleton.flip_pairs) or 'none',
    }
    for name, value in lines.items():
        sys.stdout.write(f'{name:<11} {value}\n')
    return 0
