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


def test_fewer_bits_of_the_mantissa_are_the_nearest_values():
    values = torch.cat((torch.randn(4096), torch.tensor([0.0, -1.0, 1 / 3, 6e-8]))).half()
    five = script('ship_weights').rounded(values, 5)
    assert torch.equal(five.view(torch.int16) & 31, torch.zeros_like(five, dtype=torch.int16))
    normal = values.abs() >= 2**-14
    error = (five.double() - values.double()).abs()
    # half of the distance of two values
    assert (error <= 2.0 ** (torch.frexp(values.float())[1] - 7))[normal].all()
    assert error[normal].max() > 0
    assert torch.equal(script('ship_weights').rounded(values, 10), values)
