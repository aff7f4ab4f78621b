r"""Start one variant from the weights of another, as the same function: more modules, no attention.

    python scripts/weights/grow_weights.py trained.safetensors widehrnet_18_attn widehrnet_30_attn start.safetensors \
        --labels people/train.json --images people/images
    widehrnet train people_256x192 --set model.name=widehrnet_30_attn --weights start.safetensors ...

A deeper network begins where the shallower one ended (Net2Net, Chen et al., ICLR 2016): what is added passes its input
on, and learns from there. That is exact but for one thing in the way: a block shuffles its channels, so a block that
adds nothing still moves them. The blocks that are added move channels of their second half too, so that after the last
of them all are back at their places (`route`). The one module that is added at the end leaves them where they are, and
the neck reads them there. An exchange doubles its first branch; the added blocks halve it, channel by channel.

Without attention each channel has its mean gate over the photos in its norm; that is near, not exact.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

import widehrnet_zoo
from widehrnet_zoo.files import write_whole
from widehrnet_zoo.formats.coco import labelled_boxes, read_labels
from widehrnet_zoo.models.blocks import shuffle_halves
from widehrnet_zoo.weights.checkpoints import read_checkpoint


@dataclass
class Round:
    """What one added block does to one branch of n channels.

    Attributes:
        pick: (n/2,) for each place of the second half the place in it that its channel comes from.
        scale: (n/2,) the factor that the channel gets there.
        order: (n,) after the block, the channel at each place.
    """

    pick: Tensor
    scale: Tensor
    order: Tensor


def route(channels: int, rounds: int) -> list[Tensor]:
    """Orders of the second half before each shuffle, so that all channels are back at their places after the last.

    A shuffle sends place p of the first half to 2p and place j of the second half to 2j + 1. So a channel at p > 0 is
    in the second half again after some shuffles, and channel c = odd * 2^v ends at c if v rounds before the end it goes
    to the place `odd`. Until then it waits in places from which it is back in time: of those that must leave again
    soonest, each takes the place that gives it back soonest.

    Args:
        channels: Even number n of channels.
        rounds: Number of shuffles, at least log2(n).

    Returns:
        For each round (n/2,) the channels of the second half before the shuffle.

    Raises:
        ValueError: If there are too few rounds.
    """
    half = channels // 2

    def launch(channel: int) -> tuple[int, int]:
        twos = (channel & -channel).bit_length() - 1
        return rounds - 1 - twos, ((channel >> twos) - 1) // 2

    def away(slot: int) -> int:
        place, count = 2 * slot + 1, 1
        while place < half:
            place, count = 2 * place, count + 1
        return count

    order, orders = list(range(channels)), []
    for now in range(rounds):
        second: list[int | None] = [None] * half
        waiting = []
        for channel in order[half:]:
            when, slot = launch(channel)
            if when < now:
                raise ValueError(f'{rounds} shuffles cannot bring {channels} channels back.')
            if when == now:
                second[slot] = channel
            else:
                waiting.append((when, channel))
        free = sorted((slot for slot in range(half) if second[slot] is None), key=away)
        for (_, channel), slot in zip(sorted(waiting), free, strict=True):
            second[slot] = channel
        full = [c for c in second if c is not None]
        orders.append(torch.tensor(full))
        order = [c for pair in zip(order[:half], full, strict=True) for c in pair]
    if order != list(range(channels)):
        raise ValueError(f'{rounds} shuffles cannot bring {channels} channels back.')
    return orders


def _shuffled(first: Tensor, second: Tensor) -> Tensor:
    return shuffle_halves(first[None, :, None, None], second[None, :, None, None])[0, :, 0, 0]


def plan(channels: int, modules: int, blocks: int, doubled: bool) -> tuple[list[list[Round]], float]:
    """The rounds of a branch, module by module, and the factor that its channel 0 needs before them.

    Channel 0 never leaves its place in the first half, where nothing scales it.

    Args:
        channels: Of the branch.
        modules: Number of added modules.
        blocks: Blocks of each.
        doubled: Whether the exchange at the end of each module doubles the branch.
    """
    left = modules if doubled else 0
    factor = torch.ones(channels)
    factor[0] = first = 0.5**left
    order, found = torch.arange(channels), []
    for index, second in enumerate(route(channels, modules * blocks)):
        before = order[channels // 2 :]
        place = {int(c): i for i, c in enumerate(before)}
        pick = torch.tensor([place[int(c)] for c in second])
        scale = 0.5**left / factor[second]
        factor[second] *= scale
        order = _shuffled(order[: channels // 2], second)
        found.append(Round(pick, scale, order))
        if doubled and (index + 1) % blocks == 0:
            factor, left = factor * 2, left - 1
    return [found[k : k + blocks] for k in range(0, len(found), blocks)], first


def passing(rounds: int, channels: int) -> list[Round]:
    """Rounds that only shuffle."""
    half, order, found = channels // 2, torch.arange(channels), []
    for _ in range(rounds):
        order = _shuffled(order[:half], order[half:])
        found.append(Round(torch.arange(half), torch.ones(half), order))
    return found


@torch.no_grad()
def _write_block(block: Any, step: Round) -> None:
    half = len(step.pick)
    for conv in (block.conv_pw.conv, block.conv_dw.conv):
        nn.init.kaiming_normal_(conv.weight)
    block.conv_pw.conv.weight[:half] = torch.eye(half)[..., None, None]
    block.conv_dw.conv.weight[:half] = 0
    block.conv_dw.conv.weight[:half, :, 1, 1] = 1
    gate = 1.0
    if not isinstance(block.attn, nn.Identity):
        nn.init.kaiming_normal_(block.attn.fc1.weight)
        nn.init.zeros_(block.attn.fc2.weight)
        nn.init.zeros_(block.attn.fc2.bias)
        gate = 0.5  # sigmoid(0)
    move = torch.eye(half)[step.pick] * step.scale[:, None] - torch.eye(half)
    block.conv_pwl.conv.weight.zero_()
    block.conv_pwl.conv.weight[:, :half] = (move / gate)[..., None, None]


@torch.no_grad()
def _write_module(module: Any, steps: list[list[Round]]) -> None:
    for branch, rounds in zip(module.branches, steps, strict=True):
        for block, step in zip(branch, rounds, strict=True):
            _write_block(block, step)
    for conv in module.fuse.modules():
        if isinstance(conv, nn.Conv2d):
            nn.init.kaiming_normal_(conv.weight)
    for norm in _norms(module):
        pass_on(norm, torch.zeros_like(norm.bias), torch.ones_like(norm.bias))
    for path in (p for row in module.fuse.paths for p in row):
        if norms := _norms(path):
            nn.init.zeros_(norms[-1].weight)


def _norms(module: nn.Module) -> list[BatchNormAct2d]:
    return [m for m in module.modules() if isinstance(m, BatchNormAct2d)]


@torch.no_grad()
def pass_on(norm: BatchNormAct2d, mean: Tensor, var: Tensor) -> None:
    """Make a norm hand on what it gets, for inputs of this mean and variance (C,), before its activation."""
    assert norm.running_mean is not None and norm.running_var is not None
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(var)
    norm.weight.copy_((var + norm.eps).sqrt())
    norm.bias.copy_(mean)


def _reorder(separable: Any, order: Tensor) -> None:
    """Read channels where they are now: place p holds channel order[p]."""
    _reorder_rows(separable.conv_dw, order)
    separable.conv_pw.conv.weight.copy_(separable.conv_pw.conv.weight[:, order].clone())


def _reorder_rows(layer: Any, order: Tensor) -> None:
    """Give channels out in that order."""
    norm = layer.bn
    for values in (layer.conv.weight, norm.weight, norm.bias, norm.running_mean, norm.running_var):
        values.copy_(values[order].clone())


@torch.no_grad()
def grow(source: Any, target: Any) -> list[BatchNormAct2d]:
    """Write the weights of a shallower network of three stages into a deeper one of the same widths.

    One module may be added at the end of the first stage and one at the end of the last, and enough to the middle one,
    at its beginning, that 2^(blocks) reaches the channels of its widest branch.

    Args:
        source: The trained `WideHRNet`.
        target: The deeper one, with attention if the source has it.

    Returns:
        The norms of the added modules, for `calibrate`.

    Raises:
        ValueError: If the networks do not fit.
    """
    old, new = ([len(s) for s in model.stages] for model in (source, target))
    added = [b - a for a, b in zip(old, new, strict=True)]
    if len(added) != 3 or min(added) < 0 or added[0] > 1 or added[2] > 1:
        raise ValueError(f'cannot grow stages of {old} modules to {new}.')
    state, given = target.state_dict(), source.state_dict()
    for name in state:
        parts = name.split('.')
        if parts[0] == 'stages':
            parts[2] = str(int(parts[2]) - (added[1] if parts[1] == '1' else 0))
            if not 0 <= int(parts[2]) < old[int(parts[1])]:
                continue
        state[name] = given['.'.join(parts)]
    target.load_state_dict(state)

    widths = [branch[0].conv_pw.conv.in_channels * 2 for branch in target.stages[2][0].branches]
    blocks = len(target.stages[0][0].branches[0])
    modules = [*target.stages[0][old[0] :], *target.stages[1][: added[1]]]
    if modules:
        plans = []
        for i, width in enumerate(widths[:3]):
            steps, first = plan(width, added[1] + (added[0] if i < 2 else 0), blocks, doubled=i == 0)
            plans.append(steps)
            if i == 0:
                _shrink_channel_0(target, old[0], first)
        if added[0]:
            _reorder(target.transitions[1].new, plans[1][0][-1].order)
            plans[2].insert(0, [])
        for k, module in enumerate(modules):
            _write_module(module, [p[k] for p in plans if p[k]])
    if added[2]:
        modules.append(target.stages[2][-1])
        rounds = [passing(blocks, width) for width in widths]
        _write_module(modules[-1], rounds)
        orders = [r[-1].order for r in rounds][::-1]
        for i, project in enumerate(target.neck.projects):
            _reorder(project, orders[i])
            if i < len(orders) - 1:
                _reorder_rows(project.conv_pw, orders[i + 1])
        # the exchange doubled the first branch: what is added to it is doubled too, and the sum halved where it is read
        above, last = target.neck.projects[-2:]
        above.conv_pw.bn.weight.mul_(2)
        above.conv_pw.bn.bias.mul_(2)
        last.conv_dw.conv.weight.div_(2)
    return [norm for module in modules for norm in _norms(module)]


def _shrink_channel_0(target: Any, modules: int, factor: float) -> None:
    """Channel 0 of the first branch smaller by a power of two, from where it is made to the end of the first stage."""
    norms = [target.transitions[0].keep[0].conv_pw.bn]
    for module in target.stages[0][:modules]:
        norms += [path.bn for path in module.fuse.paths[0][1:]]
        module.fuse.paths[1][0][0].conv_dw.conv.weight[0] /= factor
    for norm in norms:
        norm.weight[0] *= factor
        norm.bias[0] *= factor


@torch.no_grad()
def calibrate(norms: list[BatchNormAct2d], look: Callable[[], Any]) -> None:
    """Give the added norms the statistics of photos, so that training begins where evaluation is.

    Args:
        norms: Of the added modules.
        look: Runs photos through the grown network, in evaluation mode.
    """
    sums: dict[int, Tensor] = defaultdict(lambda: torch.zeros(()))

    def count(norm: nn.Module, inputs: tuple[Tensor]) -> None:
        x = inputs[0].double()
        number = torch.full((1, x.shape[1]), x.numel() / x.shape[1], dtype=torch.float64)
        sums[id(norm)] = sums[id(norm)] + torch.cat((x.sum((0, 2, 3))[None], x.square().sum((0, 2, 3))[None], number))

    hooks = [norm.register_forward_pre_hook(count) for norm in norms]
    look()
    for hook in hooks:
        hook.remove()
    for norm in norms:
        total, squares, number = sums[id(norm)]
        mean, silent = total / number, not norm.weight.any()
        pass_on(norm, mean.float(), (squares / number - mean**2).clamp(min=0).float())
        if silent:
            nn.init.zeros_(norm.weight)
            nn.init.zeros_(norm.bias)


@torch.no_grad()
def fold_attention(source: Any, look: Callable[[], Any]) -> dict[str, Tensor]:
    """The state dict of a network with attention for the same without: mean gates go into the norms before them.

    A gate is above 0, so it passes the ReLU after the norm. The convolutions stay as they are.

    Args:
        source: The network with attention.
        look: Runs photos through it, in evaluation mode.
    """
    gates: dict[str, list[Tensor]] = defaultdict(list)
    hooks = [
        module.register_forward_hook(lambda _, __, gate, name=name: gates[name].append(gate.mean((0, 2, 3))))
        for name, module in source.named_modules()
        if name.endswith('attn.gate')
    ]
    look()
    for hook in hooks:
        hook.remove()
    state = {k: v for k, v in source.state_dict().items() if '.attn.' not in k}
    for name, seen in gates.items():
        gate = torch.stack(seen).mean(0)
        for part in ('weight', 'bias'):
            norm = name.replace('attn.gate', f'conv_dw.bn.{part}')
            state[norm] = state[norm] * gate
    return state


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('weights', type=Path)
    parser.add_argument('source', help='variant that the weights are of')
    parser.add_argument('target', help='variant to start')
    parser.add_argument('out', type=Path)
    parser.add_argument('--labels', type=Path, required=True, help='COCO-keypoints JSON of photos to measure on')
    parser.add_argument('--images', type=Path, required=True)
    parser.add_argument('--photos', type=int, default=256, help='how many of them')
    args = parser.parse_args()
    source, target = (widehrnet_zoo.create_model(name).eval() for name in (args.source, args.target))
    weights = {k: v.float() if v.is_floating_point() else v for k, v in read_checkpoint(args.weights).items()}
    if weights.keys() != source.state_dict().keys():
        sys.exit(f'{args.weights} are not weights of {args.source}.')
    source.load_state_dict(weights)
    samples = labelled_boxes(read_labels(args.labels), args.images)
    step = max(1, len(samples) // args.photos)

    def look(model: nn.Module) -> None:
        estimator = widehrnet_zoo.PoseEstimator(model)
        for _ in estimator.stream(samples.paths[::step], samples.boxes[::step]):
            pass

    if args.source.endswith('_attn') and not args.target.endswith('_attn'):
        plain = widehrnet_zoo.create_model(args.source.removesuffix('_attn')).eval()
        plain.load_state_dict(fold_attention(source, lambda: look(source)))
        source = plain
    try:
        norms = grow(source, target)
    except (ValueError, RuntimeError) as error:
        sys.exit(f'{args.target} cannot start from {args.source}: {error}')
    if norms:
        calibrate(norms, lambda: look(target))
    write_whole(args.out, save(target.state_dict()))
    sys.stdout.write(f'{args.out}: {args.target}, {len(norms)} norms are new\n')


if __name__ == '__main__':
    main()
