import command_door  # noqa: F401
import native_doors  # noqa: F401
import pytest
from doors import DOORS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


@pytest.mark.parametrize(
    'name', [pytest.param(name, marks=[pytest.mark.slow] * door.slow) for name, door in DOORS.items()]
)
def test_hostile_input_is_refused_with_a_sentence_or_gives_something_valid(name, tmp_path_factory):
    door = DOORS[name]

    @settings(
        max_examples=door.examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.randoms(use_true_random=False))
    def knock(random):
        door.knock(door.make(random), tmp_path_factory.mktemp('door'))

    knock()
