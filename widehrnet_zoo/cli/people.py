"""The options that say how people are found and which of them are kept."""

import argparse
from typing import Any


def add_detector(group: Any, of: str = 'photos without boxes') -> None:
    """Add `--detector`."""
    group.add_argument(
        '--detector',
        metavar='NAME',
        help=f'what finds people in {of}: default (the finder that ships), none (the whole photo is one person), '
        'torchvision, hf-hub:ORG/NAME, ... (default: default, for human skeletons)',
    )


def add_limits(group: Any) -> None:
    """Add the options of `widehrnet_zoo.inference.people.Limits`."""
    group.add_argument(
        '--box-threshold', type=float, metavar='SCORE', help="leave out a detector's lower boxes (default: its own)"
    )
    group.add_argument(
        '--pose-threshold',
        type=float,
        metavar='SCORE',
        help='leave out found people whose chance to be somebody, by box and keypoints, is lower (default: 0.25 in a '
        'photo where somebody reaches 0.43, nobody in others)',
    )
    group.add_argument('--max-people', type=int, metavar='N', help='find at most N people in a photo')
    group.add_argument(
        '--min-size', type=float, metavar='PIXELS', help='leave out found people of a shorter box (default: 24)'
    )
    group.add_argument('--largest', action='store_true', help='find the largest person only')
    group.add_argument(
        '--second-look',
        action=argparse.BooleanOptionalAction,
        help='look again at each person found, in a closer box: better and slower (default: on for photos)',
    )


def people_options(args: argparse.Namespace) -> dict[str, Any]:
    """What the options mean for `PoseEstimator`.

    Args:
        args: What `add_detector` and `add_limits` define, parsed.
    """
    names = ('box_threshold', 'pose_threshold', 'max_people', 'min_size', 'second_look')
    limits = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if args.largest:
        limits['largest'] = True
    detector = {None: 'auto', 'none': None}.get(args.detector, args.detector)
    return {'detector': detector, **limits}
