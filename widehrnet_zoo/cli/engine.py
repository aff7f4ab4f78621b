"""The option `--engine`, shared by the commands that run a network."""

import argparse
from typing import Any

ENGINES = ('auto', 'kernels', 'deployed', 'graphs', 'eager')
"""Those of `widehrnet_zoo.engines.pytorch`, which would import PyTorch."""


class _Fused(argparse.Action):
    """The former name of `--engine kernels`."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, *_: Any) -> None:
        parser._print_message('--fused is deprecated and will be removed: the kernels are the default on a CPU.\n')
        namespace.engine = 'kernels'


def add_engine(parser: Any) -> None:
    """Add `--engine`.

    Args:
        parser: Of the command, or a group of its options.
    """
    parser.add_argument(
        '--engine',
        choices=ENGINES,
        default='auto',
        help="what runs the network: this package's CPU kernels, PyTorch with folded convolutions, PyTorch in half "
        'precision as CUDA graphs, or plain PyTorch (default: the fastest for the device)',
    )
    parser.add_argument('--fused', action=_Fused, nargs=0, help=argparse.SUPPRESS)
