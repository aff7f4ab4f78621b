"""`widehrnet convert`: an official checkpoint to a folder that timm loads."""

import argparse
import sys
from pathlib import Path

HELP = 'turn an official checkpoint into a folder that timm loads'
DESCRIPTION = (
    'Turn an official checkpoint (mmpose .pth) into config.json and model.safetensors. The variant '
    'and the number of keypoints are found in the file.'
)
EPILOG = """\
examples:
  widehrnet convert wide_hrnet_18_attn_coco_256x192.pth models/coco_18_attn
  widehrnet convert best.pth models/mpii_18 --size 256 256
  widehrnet convert my_birds.pth models/birds --skeleton birds.json

then, in Python:
  import timm, widehrnet_zoo
  model = timm.create_model('local-dir:models/coco_18_attn', pretrained=True)
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument('checkpoint', type=Path, metavar='CHECKPOINT', help='mmpose .pth')
    parser.add_argument('out_dir', type=Path, metavar='OUT_DIR', help='folder to write, for local-dir:OUT_DIR')
    parser.add_argument(
        '--size',
        type=int,
        nargs=2,
        metavar=('HEIGHT', 'WIDTH'),
        help="input size (default: from the file's configuration or name, else 256 192, or 256 256 for 16 keypoints)",
    )
    parser.add_argument(
        '--skeleton',
        metavar='NAME|FILE',
        help='coco, mpii, or a JSON file with name, keypoints, flip_pairs, bones, sigmas (default: coco for 17 '
        'keypoints, mpii for 16, else keypoint_0, keypoint_1, ...)',
    )
    parser.add_argument(
        '--ema',
        action='store_true',
        help='take the second copy of the weights (default: the plain one, which mmpose tests with)',
    )
    parser.add_argument('--force', action='store_true', help='replace an earlier conversion in OUT_DIR')


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from ..errors import UserError
    from ..hub.convert import convert_checkpoint
    from ..pose.skeletons import read_skeleton

    try:
        done = convert_checkpoint(
            args.checkpoint,
            args.out_dir,
            size=tuple(args.size) if args.size else None,
            skeleton=None if args.skeleton is None else read_skeleton(args.skeleton),
            ema=args.ema,
            overwrite=args.force,
        )
    except UserError as error:
        if 'already' in str(error) and not args.force:
            raise UserError(f'{error} (--force)') from error
        raise
    found = done.architecture
    arguments = ''.join(f', {k}={v}' for k, v in found.model_args.items())
    lines = [
        f'{found.variant}{arguments}, {done.num_parameters / 1e6:.2f} M parameters',
        f'{found.num_classes} keypoints ({done.skeleton.name}), input {done.size[0]}x{done.size[1]} '
        f'({done.size_source})',
        *done.notes,
        f"wrote {done.folder}: timm.create_model('local-dir:{done.folder}', pretrained=True)",
    ]
    sys.stdout.write('\n'.join(lines) + '\n')
    return 0
