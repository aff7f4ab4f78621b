"""Official checkpoints (mmpose `.pth`) to this package's weights and folders."""

import pickle
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .errors import UserError
from .skeletons import SKELETONS, Skeleton

__all__ = [
    'Architecture',
    'Conversion',
    'convert_checkpoint',
    'convert_state_dict',
    'find_architecture',
    'read_weights',
]

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
_DEPTHS = {
    ((32, 64, 128, 256), (1, 2, 1)): 10,
    ((40, 80, 160, 320), (2, 4, 2)): 18,
    ((40, 80, 160, 320), (3, 8, 3)): 30,
}
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


@dataclass(frozen=True)
class Conversion:
    """What `convert_checkpoint` found and wrote.

    Attributes:
        folder: Where `config.json` and `model.safetensors` are.
        architecture: The network.
        size: Input height and width.
        size_source: Where the size is from.
        skeleton: Names and structure of the keypoints.
        num_parameters: Number of parameters.
        notes: What in the file was left out.
    """

    folder: Path
    architecture: Architecture
    size: tuple[int, int]
    size_source: str
    skeleton: Skeleton
    num_parameters: int
    notes: tuple[str, ...] = ()


def _list(keys: list[str]) -> str:
    return f'{", ".join(keys[:3])}{f", ... ({len(keys)} in all)" if len(keys) > 3 else ""}'


def read_checkpoint(file: str | Path) -> dict[str, Any]:
    """Unpickle a `.pth` file, or read a safetensors file, running no code from it.

    Args:
        file: The file.

    Returns:
        What it holds, on the CPU.

    Raises:
        UserError: If the file is missing, cut off, no checkpoint, or asks for more than tensors and plain values.
    """
    file = Path(file)
    if not file.is_file():
        raise UserError(f'There is no file {file}: give the path of the checkpoint.')
    if file.suffix == '.safetensors':
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return dict(load_file(file))
        except (SafetensorError, OSError) as error:
            raise UserError(f'{file} is not a whole safetensors file ({error}): get it again.') from error
    try:
        checkpoint = torch.load(file, map_location='cpu', weights_only=True)
    except Exception as error:
        # torch tells a refused pickle, a cut-off archive and a file of another kind apart by message only
        wanted = _unsafe_globals(file, error)
        if wanted:
            raise UserError(
                f'{file} was refused: beside tensors it asks to load {wanted} when it is unpickled, and a pickle that '
                'does so can run any code. If you trust its origin, open it once where it was made, keep only '
                "{'state_dict': ...} and save that."
            ) from error
        if isinstance(error, OSError):
            raise UserError(f'{file} cannot be read: {error}.') from error
        reason = str(error).strip().splitlines()
        raise UserError(
            f'{file} is not a whole PyTorch checkpoint ({reason[0][:120] if reason else type(error).__name__}): it was '
            'cut off or is another kind of file. Get it again and compare its size.'
        ) from error
    if not isinstance(checkpoint, dict):
        raise UserError(
            f'{file} holds a {type(checkpoint).__name__}, not a dict of weights: give an mmpose checkpoint.'
        )
    return checkpoint


def _unsafe_globals(file: Path, error: Exception) -> str:
    if not isinstance(error, pickle.UnpicklingError):
        return ''
    names: list[str] = []
    if hasattr(torch.serialization, 'get_unsafe_globals_in_checkpoint'):  # from torch 2.5, zip archives only
        try:
            names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(file))
        except Exception:  # the message below names the first one
            names = []
    return ', '.join(names or re.findall(r'GLOBAL ([\w.]+)', str(error))[:1])


def official_state(checkpoint: Mapping[str, Any], ema: bool = False) -> tuple[dict[str, Tensor], list[str]]:
    """The state dict inside a checkpoint, without wrappers.

    mmcv's EMA hook swaps the averaged weights in before it saves, so the plain names are what mmpose tests with, and
    the `ema_*` buffers are the weights as trained, without averaging. The averages of other trainers
    (`state_dict_ema`, `ema_state_dict`) lie beside the plain ones.

    Args:
        checkpoint: What `read_checkpoint` returns.
        ema: Take the second copy of the weights instead of the plain one. It has no batch-norm statistics of
            its own where the hook copied parameters only; those are the plain ones then.

    Returns:
        Name to tensor in the official layout, and a line for each thing that was left out.

    Raises:
        UserError: If there are no weights, a value is no tensor, or a second copy is asked for and missing or odd.
    """
    notes = []
    state = checkpoint.get('state_dict', checkpoint)
    if not isinstance(state, Mapping) or not state:
        raise UserError('The checkpoint has no weights: its state_dict is empty or no dict.')
    copies: Any = None
    if state is not checkpoint:
        for key in ('ema_state_dict', 'state_dict_ema'):
            if isinstance(checkpoint.get(key), Mapping):
                copies = {k: v for k, v in checkpoint[key].items() if k != 'steps'}
        others = [k for k in checkpoint if k not in ('state_dict', 'ema_state_dict', 'state_dict_ema', 'meta')]
        if others:
            notes.append(f'left out: {", ".join(map(str, others))}')

    plain = _without_prefix(state)
    hooked = {k: plain.pop(k) for k in [k for k in plain if k.startswith('ema_')]}
    if hooked:
        places = {f'ema_{k.replace(".", "_")}': k for k in plain}
        unknown = [k for k in hooked if k not in places]
        if unknown:
            raise UserError(f'Copies without an original in the checkpoint: {_list(unknown)}. Is the file whole?')
        copies = {places[k]: v for k, v in hooked.items()}
    if ema:
        if copies is None:
            raise UserError('The checkpoint has no second (EMA) copy of the weights: convert it without that option.')
        copies = _without_prefix(copies)
        wrong = [k for k, v in copies.items() if k not in plain or v.shape != plain[k].shape]
        parameters = [k for k in plain if not k.endswith(('running_mean', 'running_var', 'num_batches_tracked'))]
        lacking = [k for k in parameters if k not in copies]
        if wrong or lacking:
            raise UserError(
                f'The second (EMA) copy does not fit the plain weights: {_list(wrong or lacking)}. '
                'Convert the plain ones.'
            )
        notes.append('left out: the plain weights, the second copy is taken')
        plain = {**plain, **copies}
    elif copies is not None:
        notes.append(f'left out: the second (EMA) copy of {len(copies)} tensors')
    return plain, notes


def _without_prefix(state: Mapping[str, Any]) -> dict[str, Tensor]:
    others = [str(k) for k, v in state.items() if not isinstance(k, str) or not isinstance(v, Tensor)]
    if others:
        raise UserError(f'The checkpoint has entries that are no tensors: {_list(others)}. Is it an mmpose checkpoint?')
    clean = {re.sub(r'^(?:module\.|_orig_mod\.)+', '', k): v for k, v in state.items()}
    if len(clean) != len(state):
        raise UserError('The checkpoint has names both with and without the prefix module.: which ones are meant?')
    return clean


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
            f'Not an official WideHRNet checkpoint: {len(unexpected)} unexpected names ({_list(unexpected)}).'
        )
    return converted


def find_architecture(state: Mapping[str, Tensor]) -> Architecture:
    """The network that weights are from, by their names and shapes.

    Args:
        state: Weights with the names here.

    Returns:
        The variant and its number of keypoints.

    Raises:
        UserError: If too little is there to tell.
    """
    channels: dict[int, int] = {}
    modules: Counter[int] = Counter()
    blocks = 0
    expansions: Counter[float] = Counter()
    for name, value in state.items():
        if match := re.match(r'stages\.(\d+)\.(\d+)\.branches\.(\d+)\.(\d+)\.', name):
            stage, module, branch, block = map(int, match.groups())
            modules[stage] = max(modules[stage], module + 1)
            blocks = max(blocks, block + 1)
            if name.endswith('.conv_pw.conv.weight'):
                channels[branch] = 2 * value.shape[1]
                expansions[value.shape[0] / value.shape[1]] += 1
    head = state.get('classifier.weight')
    stem = state.get('stem.conv.conv.weight')
    missing = [
        what
        for what, found in (('the blocks', expansions), ('the final layer', head), ('the stem', stem))
        if found is None or not len(found)
    ]
    if missing or sorted(channels) != list(range(len(channels))) or sorted(modules) != list(range(len(modules))):
        raise UserError(
            f'Not a whole WideHRNet checkpoint: {" and ".join(missing) or "a branch or a stage"} missing. '
            'Expected an official mmpose checkpoint with backbone.* and keypoint_head.*.'
        )
    assert head is not None and stem is not None
    widths = tuple(channels[i] for i in range(len(channels)))
    depth = tuple(modules[i] for i in range(len(modules)))
    expansion = expansions.most_common(1)[0][0]
    attn = '_attn' if any('.attn.' in k for k in state) else ''
    model_args: dict[str, Any] = {}
    name = _DEPTHS.get((widths, depth))
    if name is None:
        model_args.update(channels=list(widths), num_modules=list(depth))
    suffix = _EXPANSIONS.get(expansion)
    if suffix is None or (name == 10 and suffix):
        suffix = ''
        model_args['expansion'] = expansion
    if blocks != 2:
        model_args['num_blocks'] = blocks
    if stem.shape[0] != 32:
        model_args['stem_width'] = stem.shape[0]
    if stem.shape[1] != 3:
        model_args['in_chans'] = stem.shape[1]
    return Architecture(f'widehrnet_{name or 18}{suffix}{attn}', model_args, head.shape[0])


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


def _find_size(checkpoint: Mapping[str, Any], file: Path, num_classes: int) -> tuple[tuple[int, int], str]:
    meta = checkpoint.get('meta')
    config = meta.get('config') if isinstance(meta, Mapping) else None
    # mmpose writes its configuration into the file as text; its image_size is (width, height)
    match = re.search(r'image_size\D{0,12}(\d+)\D{1,4}(\d+)', config) if isinstance(config, str) else None
    if match is not None and int(match[1]) % 32 == int(match[2]) % 32 == 0:
        return (int(match[2]), int(match[1])), 'the configuration in the file'
    match = re.search(r'(?<!\d)(\d{2,4})x(\d{2,4})(?!\d)', file.stem)
    if match is not None and int(match[1]) % 32 == int(match[2]) % 32 == 0:
        return (int(match[1]), int(match[2])), "the file's name"
    return ((256, 256) if num_classes == 16 else (256, 192)), 'a guess, --size sets it'


def _strict(state: dict[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    problems = []
    for what, keys in (
        ('missing', [k for k in expected if k not in state]),
        ('unexpected', [k for k in state if k not in expected]),
        (
            'misshapen',
            [
                f'{k} {tuple(v.shape)} instead of {tuple(expected[k].shape)}'
                for k, v in state.items()
                if k in expected and v.shape != expected[k].shape
            ],
        ),
        ('not finite', [k for k, v in state.items() if v.is_floating_point() and not v.isfinite().all()]),
    ):
        if keys:
            problems.append(f'{len(keys)} {what} ({_list(keys)})')
    if problems:
        raise UserError(f'The checkpoint is damaged or from another network: {"; ".join(problems)}.')


def convert_checkpoint(
    file: str | Path,
    out_dir: str | Path,
    size: tuple[int, int] | None = None,
    skeleton: Skeleton | None = None,
    ema: bool = False,
    overwrite: bool = False,
) -> Conversion:
    """Write an official checkpoint as a folder for `local-dir:`.

    Args:
        file: mmpose `.pth`.
        out_dir: Folder for `config.json`, `model.safetensors` (float32) and a model card.
        size: Input height and width; by default from the file's configuration or name.
        skeleton: Names and structure of the keypoints; by default COCO's for 17, MPII's for 16.
        ema: Take the second copy of the weights, see `official_state`.
        overwrite: Replace the files of an earlier conversion.

    Returns:
        What was found and written.

    Raises:
        UserError: If the file is refused, a weight is missing, unexpected, misshapen or not finite, the skeleton or
            size does not fit, or the folder is taken.
    """
    from .hub import save_pretrained
    from .models.registry import create_model
    from .models.widehrnet import REPOSITORY

    file, out_dir = Path(file), Path(out_dir)
    checkpoint = read_checkpoint(file)
    state, notes = official_state(checkpoint, ema)
    state = convert_state_dict(state)
    found = find_architecture(state)
    size, size_source = (size, 'the caller') if size else _find_size(checkpoint, file, found.num_classes)
    if len(size) != 2 or any(side < 32 or side % 32 for side in size):
        raise UserError(f'The input size must be a height and a width in multiples of 32, not {tuple(size)}.')
    count = found.num_classes
    if skeleton is None:
        skeleton = next((s for s in SKELETONS.values() if s.num_keypoints == count), None)
    skeleton = skeleton or Skeleton('custom', tuple(f'keypoint_{i}' for i in range(count)))
    if skeleton.num_keypoints != count:
        raise UserError(
            f'The checkpoint has {count} keypoints, the skeleton {skeleton.name!r} has {skeleton.num_keypoints}: '
            'give the one it was trained with.'
        )
    in_chans = found.model_args.get('in_chans', 3)
    described = {
        'tag': f'{skeleton.name}_{size[0]}x{size[1]}',
        'num_classes': count,
        'label_names': skeleton.keypoints,
        'input_size': (in_chans, *size),
        'pool_size': (size[0] // 4, size[1] // 4),
        'license': 'unknown',
        'origin_url': REPOSITORY,
        'file': None,
    }
    model = create_model(found.variant, pretrained_cfg_overlay=described, **found.model_args)
    _strict(state, model.state_dict())
    model.load_state_dict(state)
    folder = save_pretrained(model, out_dir, skeleton=skeleton, overwrite=overwrite)
    parameters = sum(p.numel() for p in model.parameters())
    return Conversion(folder, found, size, size_source, skeleton, parameters, tuple(notes))
