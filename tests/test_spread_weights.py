"""Starting a variant from the weights of another."""

import sys

import pytest
import torch
from load_script import script
from safetensors.torch import load_file, save_file

from widehrnet_zoo.models.registry import create_model


def test_modules_are_repeated_and_what_is_missing_is_new(tmp_path, monkeypatch, capsys):
    spread_weights = script('spread_weights')
    source = create_model('widehrnet_18')
    save_file(source.state_dict(), tmp_path / 'source.safetensors')
    files = [str(tmp_path / name) for name in ('source.safetensors', 'start.safetensors')]
    monkeypatch.setattr(sys, 'argv', ['spread', files[0], 'widehrnet_18', 'widehrnet_30_attn', files[1]])
    spread_weights.main()
    assert '% of widehrnet_30_attn from widehrnet_18' in capsys.readouterr().out
    start, given = load_file(files[1]), source.state_dict()
    create_model('widehrnet_30_attn').load_state_dict(start)
    conv = '0.0.conv_pw.conv.weight'
    for module, of in ((0, 0), (1, 0), (2, 1), (7, 3)):
        name = next(k for k in start if k.startswith(f'stages.1.{module}.') and k.endswith(conv))
        assert torch.equal(start[name], given[name.replace(f'stages.1.{module}', f'stages.1.{of}', 1)])
    assert any('.attn.' in k for k in start)
    monkeypatch.setattr(sys, 'argv', ['spread', files[0], 'widehrnet_18_attn', 'widehrnet_30', files[1]])
    with pytest.raises(SystemExit, match='not weights of widehrnet_18_attn'):
        spread_weights.main()
