import pathlib

import pytest

SHARED = pathlib.Path(__file__).resolve().parents[2] / 'shared'


@pytest.fixture(scope='session')
def shared() -> pathlib.Path:
    """The reference data beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip('the reference data (../shared) is not beside this checkout')
    return SHARED
