"""Averages of what a run began with and what it became."""

import sys

import pytest
import torch
from load_script import script
from safetensors.torch import load_file, save_file


@pytest.fixture
def average(tmp_path, monkeypatch):
    average_weights = script('average_weights')

    def run(start, trained, share):
        files = [tmp_path / f'{name}.safetensors' for name in ('start', 'trained', 'out')]
        save_file(start, files[0])
        save_file(trained, files[1])
        monkeypatch.setattr(sys, 'argv', ['average_weights.py', *map(str, files), '--share', str(share)])
        average_weights.main()
        return load_file(files[2])

    return run


def test_floats_lie_on_the_line_and_counters_are_the_newer(average):
    start = {'weight': torch.tensor([0.0, 4.0]).half(), 'steps': torch.tensor(3)}
    trained = {'weight': torch.tensor([8.0, 4.0]), 'steps': torch.tensor(9)}
    weights = average(start, trained, 0.75)
    assert weights['weight'].tolist() == [6.0, 4.0]
    assert weights['weight'].dtype == torch.float32
    assert weights['steps'] == 9


@pytest.mark.parametrize(
    ('other', 'share', 'message'),
    [({'a': torch.zeros(3)}, 0.5, 'different networks'), ({'a': torch.zeros(2)}, 1.5, r'0\.\.1')],
)
def test_other_networks_and_shares_beyond_the_ends_are_refused(average, tmp_path, other, share, message):
    with pytest.raises(SystemExit, match=message):
        average({'a': torch.zeros(2)}, other, share)
    assert not (tmp_path / 'out.safetensors').exists()
