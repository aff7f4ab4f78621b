"""Weights on their way into the package."""

import pytest
import torch
from load_script import script


@pytest.mark.parametrize(('largest', 'dtype'), [(65504.0, torch.float16), (70000.0, torch.float32)])
def test_nothing_becomes_infinite(largest, dtype):
    shipped = script('ship_weights').halved(torch.tensor([1.0, largest]))
    assert shipped.dtype == dtype
    assert shipped.tolist() == [1.0, largest]


def test_counters_stay():
    assert script('ship_weights').halved(torch.tensor(70000)).dtype == torch.int64
