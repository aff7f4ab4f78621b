"""Weights by name: official checkpoints (mmpose `.pth`) renamed, and the network that a set of weights is of."""

import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import UserError
from .checkpoints import first_of, official_state, read_checkpoint

# Four layers in a row, as the official sequences number them
_SEPARABLE = {'0': 'conv_dw.conv', '1': 'conv_dw.bn', '2': 'conv_pw.conv', '3': 'conv_pw.bn'}

_BLOCK = r'backbone\.stage(\d+)\.(\d+)\.layers\.(\d+)\.invertRes\.(\d+)\.block'
_BLOCK_HERE = r'stages.\1.\2.branches.\4.\3'
_FUSE = r'backbone\.stage(\d+)\.(\d+)\.fuse_layers\.(\d+)\.(\d+)'
_FUSE_HERE = r'stages.\1.\2.fuse.paths.\3.\4'

# Official name -> name here; `<n>` is an entry of `_SEPARABLE`. What follows the match stays as it is.
_RULES = [
    (re.compile(official), here)
    for official, here in (
        (r'backbone\.stem\.conv1\.', 'stem.conv.'),
        (r'backbone\.stem\.branch1\.0\.', 'stem.branch1.conv_dw.'),
        (r'backbone\.stem\.branch1\.1\.', 'stem.branch1.conv_pw.'),
        (r'backbone\.stem\.expand_conv\.', 'stem.branch2.conv_pw.'),
        (r'backbone\.stem\.depthwise_conv\.', 'stem.branch2.conv_sep.conv_dw.'),
        (r'backbone\.stem\.linear_conv\.', 'stem.branch2.conv_sep.conv_pw.'),
        (r'backbone\.transition(\d+)\.(\d+)\.0\.([0-3])\.', r'transitions.\1.new.<\3>.'),
        (r'backbone\.transition(\d+)\.(\d+)\.([0-3])\.', r'transitions.\1.keep.\2.<\3>.'),
        (rf'{_BLOCK}\.0\.', rf'{_BLOCK_HERE}.conv_pw.'),
        (rf'{_BLOCK}\.1\.', rf'{_BLOCK_HERE}.conv_dw.'),
        (rf'{_BLOCK}\.2\.fc', rf'{_BLOCK_HERE}.attn.fc'),
        (rf'{_BLOCK}\.[23]\.', rf'{_BLOCK_HERE}.conv_pwl.'),
        (rf'{_FUSE}\.(\d+)\.([0-3])\.', rf'{_FUSE_HERE}.\5.<\6>.'),
        (rf'{_FUSE}\.0\.', rf'{_FUSE_HERE}.conv.'),
        (rf'{_FUSE}\.1\.', rf'{_FUSE_HERE}.bn.'),
        (r'backbone\.head_layer\.projects\.(\d+)\.depthwise_conv\.', r'neck.projects.\1.conv_dw.'),
        (r'backbone\.head_layer\.projects\.(\d+)\.pointwise_conv\.', r'neck.projects.\1.conv_pw.'),
        (r'keypoint_head\.final_layer\.', 'classifier.'),
    )
]

# Channels per branch and modules per stage of the registry's depths
_DEPTHS: dict[tuple[tuple[int, ...], tuple[int, ...]], int] = {
    ((32, 64, 128, 256), (1, 2, 1)): 10,
    ((40, 80, 160, 320), (2, 4, 2)): 18,
    ((40, 80, 160, 320), (3, 8, 3)): 30,
}
# a tensor of one number can claim any shape by strides of 0
_MOST_KEYPOINTS = 8192
_EXPANSIONS = {2.0: '_x2', 4.0: '', 6.0: '_x6'}


@dataclass(frozen=True)
class Architecture:
    """What a set of weights says about its network.

    Attributes:
        variant: Name in the registry.
        model_args: Arguments beside the variant's own, for depths that have no name; mostly empty.
        num_classes: Number of keypoints.
    """

    variant: str
    model_args: dict[str, Any] = field(default_factory=dict)
    num_classes: int = 17


def _convert_name(name: str) -> str | None:
    for pattern, here in _RULES:
        match = pattern.match(name)
        if match is None:
            continue
        if '.new.' in here and int(match[2]) != int(match[1]) + 1:
            return None  # only the last branch of a transition is new
        start = re.sub(r'<(\d)>', lambda m: _SEPARABLE[m[1]], match.expand(here))
        return start + name[match.end() :]
    return None


def convert_state_dict(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Official names to the names here; the tensors stay as they are.

    Args:
        state: Weights in the official layout, `backbone.*` and `keypoint_head.*`.

    Returns:
        The weights of a `WideHRNet`.

    Raises:
        UserError: If a name is not of the official layout, or two names mean the same weight.
    """
    converted: dict[str, Tensor] = {}
    unexpected = []
    for name, value in state.items():
        here = _convert_name(name)
        if here is None or here in converted:
            unexpected.append(name)
        else:
            converted[here] = value
    if unexpected:
        raise UserError(
            f'Not an official WideHRNet checkpoint: {len(unexpected)} unexpected names ({first_of(unexpected)}).'
        )
    return converted


def find_architecture(state: Mapping[str, Tensor]) -> Architecture:
    """The network that weights are from, by their names and shapes.

    Returns:
        The variant and its number of keypoints.

    Raises:
        UserError: If too little is there to tell.
    """
    channels: dict[int, int] = {}
    modules: dict[int, set[int]] = {}
    blocks: set[int] = set()
    expansions: Counter[float] = Counter()
    for name, value in state.items():
        if match := re.match(r'stages\.(\d+)\.(\d+)\.branches\.(\d+)\.(\d+)\.', name):
            stage, module, branch, block = map(int, match.groups())
            modules.setdefault(stage, set()).add(module)
            blocks.add(block)
            if name.endswith('.conv_pw.conv.weight') and value.ndim == 4 and value.numel():
                channels[branch] = 2 * value.shape[1]
                expansions[value.shape[0] / value.shape[1]] += 1
    head = state.get('classifier.weight')
    stem = state.get('stem.conv.conv.weight')
    missing = [
        what
        for what, found in (('the blocks', expansions), ('the final layer', head), ('the stem', stem))
        if found is None or (isinstance(found, Tensor) and (found.ndim != 4 or not found.numel())) or not len(found)
    ]
    # a gap is a damaged name, and its number may be too large to build so many
    indices: list[Collection[int]] = [channels, modules, blocks, *modules.values()]
    if missing or any(max(found) != len(found) - 1 for found in indices):
        raise UserError(
            f'Not a whole WideHRNet checkpoint: {" and ".join(missing) or "a branch or a stage"} missing. '
            'Expected an official mmpose checkpoint with backbone.* and keypoint_head.*.'
        )
    assert head is not None and stem is not None
    if len(head) > _MOST_KEYPOINTS:
        raise UserError(f'The checkpoint claims {len(head)} keypoints, so its final layer is damaged: get it again.')
    widths = tuple(channels[i] for i in range(len(channels)))
    depth = tuple(len(modules[i]) for i in range(len(modules)))
    expansion = expansions.most_common(1)[0][0]
    attn = '_attn' if any('.attn.' in k for k in state) else ''
    model_args: dict[str, Any] = {}
    layers = _DEPTHS.get((widths, depth))
    if layers is None:
        model_args.update(channels=list(widths), num_modules=list(depth))
    suffix = _EXPANSIONS.get(expansion)
    if suffix is None or (layers == 10 and suffix):
        suffix = ''
        model_args['expansion'] = expansion
    if len(blocks) != 2:
        model_args['num_blocks'] = len(blocks)
    if stem.shape[0] != 32:
        model_args['stem_width'] = stem.shape[0]
    if stem.shape[1] != 3:
        model_args['in_chans'] = stem.shape[1]
    return Architecture(f'widehrnet_{layers or 18}{suffix}{attn}', model_args, head.shape[0])


def read_weights(file: str | Path, ema: bool = False) -> dict[str, Tensor]:
    """Weights with the names here, from a file of this package or from an official checkpoint.

    Args:
        file: `.safetensors` or `.pth`.
        ema: Take the checkpoint's second copy, see `official_state`.

    Returns:
        Name to tensor, for a `WideHRNet` that `find_architecture` describes.

    Raises:
        UserError: If the file cannot be read or is neither.
    """
    state, _ = official_state(read_checkpoint(file), ema)
    if any(k.startswith(('backbone.', 'keypoint_head.')) for k in state):
        state = convert_state_dict(state)
    return state
