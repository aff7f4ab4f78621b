"""Average what a run began as with what it became: often better on new photos than either.

    python scripts/weights/average_weights.py start.safetensors trained.safetensors out.safetensors --share 0.75

The line between the two, as in WiSE-FT (Wortsman et al., CVPR 2022). It means something only where the second was
trained from the first; choose the share on validation photos, and say so.
"""

import argparse
import sys
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from widehrnet_zoo.errors import UserError
from widehrnet_zoo.files import write_whole
from widehrnet_zoo.weights.checkpoints import misfits, read_checkpoint


def average(start: dict[str, Tensor], trained: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """Weights on the line between two.

    Args:
        start: Weights by name.
        trained: Weights of the same network.
        share: How much of `trained`, in 0..1.

    Returns:
        The average in float32; tensors of whole numbers as in `trained`.

    Raises:
        UserError: If the two are of different networks, or the share is not in 0..1.
    """
    if not 0 <= share <= 1:
        raise UserError(f'The share must be in 0..1, not {share}.')
    if wrong := misfits(start, trained):
        raise UserError(f'These are weights of different networks: {wrong}.')
    return {
        name: start[name].float().lerp(tensor.float(), share) if tensor.is_floating_point() else tensor
        for name, tensor in trained.items()
    }


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('start', type=Path, help='weights that the run began with')
    parser.add_argument('trained', type=Path, help='weights that it ended with')
    parser.add_argument('out', type=Path)
    parser.add_argument('--share', type=float, required=True, help='how much of the trained ones, in 0..1')
    args = parser.parse_args()
    try:
        weights = average(read_checkpoint(args.start), read_checkpoint(args.trained), args.share)
    except UserError as error:
        sys.exit(str(error))
    write_whole(args.out, save(weights))


if __name__ == '__main__':
    main()
