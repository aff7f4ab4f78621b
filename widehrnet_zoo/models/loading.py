"""What must be true of weights before the network takes them, and what our own bring beside their numbers."""

import logging
from pathlib import Path
from typing import Any

from timm.models import PretrainedCfg
from torch import Tensor, nn

from ..errors import UserError
from ..weights.checkpoints import check_weights
from ..weights.shipped import WEIGHTS, check_shipped, shipped_entry

_logger = logging.getLogger(__name__)


def check_source(variant: str, cfg: PretrainedCfg) -> None:
    """Refuse a tag without weights, and shipped weights that were damaged, before a network is built.

    Raises:
        UserError: If there are no weights; the message says how to get them.
    """
    if cfg.file and Path(cfg.file).parent == WEIGHTS:
        check_shipped(Path(cfg.file))
    if cfg.has_weights or cfg.state_dict or cfg.source:
        return
    name = f'{variant}.{cfg.tag}' if cfg.tag else variant
    if cfg.origin_url:
        raise UserError(
            f'{name} has no weights that we may distribute. Use pretrained=False; or get the official checkpoint '
            f"({cfg.origin_url}), run `widehrnet convert CHECKPOINT OUT_DIR` and create 'local-dir:OUT_DIR' with "
            'pretrained=True.'
        )
    raise UserError(
        f'{name} has no weights. Use pretrained=False and train it, or take a variant that has weights: '
        '`widehrnet list` shows them.'
    )


def checkpoint_filter_fn(state_dict: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Check a state dict against the model, and keep the model's own head where the saved one cannot fit.

    timm stops checking names and shapes when the number of classes differs; this does not.

    Raises:
        UserError: If anything but the head and the input channels differs.
    """
    own = model.state_dict()
    state_dict = dict(state_dict)
    head = {k: v for k, v in own.items() if k.startswith('classifier.')}
    saved_head = {k: v for k, v in state_dict.items() if k.startswith('classifier.')}
    if {k: v.shape for k, v in head.items()} != {k: v.shape for k, v in saved_head.items()}:
        outputs = [len(h['classifier.bias']) if 'classifier.bias' in h else 0 for h in (saved_head, head)]
        _logger.log(
            logging.WARNING if head else logging.INFO,
            f'The weights have {outputs[0]} outputs, the model has {outputs[1]}'
            f'{": its head is new and untrained" if head else ""}. '
            f'Not loaded: {", ".join(sorted(saved_head)) or "none"}.',
        )
        state_dict = {k: v for k, v in state_dict.items() if k not in saved_head} | head
    elif head and isinstance(cfg := getattr(model, 'pretrained_cfg', None), dict):
        # timm drops a head whose size differs from the config's, but here the file's own head fits the model
        cfg['num_classes'] = len(head['classifier.bias'])
        if len(cfg.get('label_names') or ()) != cfg['num_classes']:
            cfg.pop('label_names', None)
    stem = 'stem.conv.conv.weight'
    in_chans = {'saved': state_dict[stem].shape[1], 'own': own[stem].shape[1]} if stem in state_dict else {}
    expected = dict(own)
    if len(set(in_chans.values())) == 2:
        _logger.warning(f'{stem} is adapted from {in_chans["saved"]} to {in_chans["own"]} input channels.')
        expected[stem] = own[stem].new_empty((own[stem].shape[0], in_chans['saved'], *own[stem].shape[2:]))
    cfg = getattr(model, 'pretrained_cfg', None) or {}
    check_weights(state_dict, expected, cfg.get('architecture') or type(model).__name__)
    return state_dict


def with_shipped_settings(model: Any) -> Any:
    """A network with the settings of our own weights that timm's configs have no field for, where it has these."""
    cfg = getattr(model, 'pretrained_cfg', None) or {}
    entry = shipped_entry(f'{cfg.get("architecture")}.{cfg.get("tag")}')
    for setting in ('padding', 'score_map'):
        if setting in entry:
            setattr(model, setting, entry[setting])
    return model
