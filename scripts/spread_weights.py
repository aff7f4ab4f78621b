"""Start one variant from the weights of another: modules are taken over, repeated or left out.

    python scripts/spread_weights.py trained.safetensors widehrnet_18_attn widehrnet_30_attn start.safetensors
    widehrnet train people_128x96 --set model.name=widehrnet_30_attn --weights start.safetensors ...

Module i of n of a stage comes from the module that stands at the same share of the way in the source (stacking, Gong
et al., Efficient Training of BERT by Progressively Stacking, ICML 2019). What the source lacks by name or shape is new.
The result is a start for training, not a model to use.
"""

import argparse
import re
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save

import widehrnet_zoo
from widehrnet_zoo.files import write_whole


def spread(
    source: dict[str, torch.Tensor], target: dict[str, torch.Tensor], modules: tuple[list[int], list[int]]
) -> tuple[dict[str, torch.Tensor], int]:
    """Weights of the target from the source's.

    Args:
        source: State dict.
        target: State dict with new weights.
        modules: Number of modules of each stage, of source and target.

    Returns:
        The state dict, and how many of its values were taken.
    """
    taken, state = 0, {}
    for name, new in target.items():
        given = name
        if found := re.match(r'stages\.(\d+)\.(\d+)\.(.*)', name):
            stage, module = int(found[1]), int(found[2])
            given = f'stages.{stage}.{module * modules[0][stage] // modules[1][stage]}.{found[3]}'
        old = source.get(given)
        fits = old is not None and old.shape == new.shape
        state[name] = (old.to(new.dtype) if fits else new).clone()
        taken += new.numel() * fits
    return state, taken


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('weights', type=Path)
    parser.add_argument('source', help='variant that the weights are of')
    parser.add_argument('target', help='variant to start')
    parser.add_argument('out', type=Path)
    args = parser.parse_args()
    models = [widehrnet_zoo.create_model(name) for name in (args.source, args.target)]
    modules = tuple([len(stage) for stage in model.stages] for model in models)
    weights = {k: v.float() if v.is_floating_point() else v for k, v in load_file(args.weights).items()}
    if weights.keys() != models[0].state_dict().keys():
        sys.exit(f'{args.weights} are not weights of {args.source}.')
    state, taken = spread(weights, models[1].state_dict(), modules)
    write_whole(args.out, save(state))
    share = taken / sum(v.numel() for v in state.values())
    sys.stdout.write(f'{args.out}: {share:.0%} of {args.target} from {args.source}\n')


if __name__ == '__main__':
    main()
