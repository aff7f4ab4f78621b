"""The options that say how a network is run, shared by the commands that run one."""

import argparse
from typing import Any

from ..engines import ENGINES


def add_engine(parser: Any) -> None:
    """Add `--device` and `--engine`.

    Args:
        parser: Of the command, or a group of its options.
    """
    parser.add_argument('--device', help='cpu, cuda, mps, ... (default: the best there is)')
    parser.add_argument(
        '--engine',
        choices=ENGINES,
        default='auto',
        help="what runs the network: this package's CPU kernels, PyTorch with folded convolutions, PyTorch in half "
        'precision as CUDA graphs, or plain PyTorch (default: the fastest for the device)',
    )


def add_precision(parser: Any) -> None:
    """Add `--bf16` and `--int8`."""
    parser.add_argument('--bf16', action='store_true', help='run the network in bfloat16')
    parser.add_argument(
        '--int8', action='store_true', help='run the network in 8-bit integers, on CPUs with AVX512-VNNI'
    )


def engine_options(args: argparse.Namespace) -> dict[str, Any]:
    """What the options mean for `PoseEstimator` and `PersonFinder`.

    Args:
        args: What `add_engine` and `add_precision` define, parsed.
    """
    return {name: getattr(args, name) for name in ('device', 'bf16', 'int8', 'engine')}
