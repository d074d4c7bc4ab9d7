import pytest
from hypothesis import given
from hypothesis import strategies as st

from cram.distributed.launch import VARIABLES, Launch, read_launch
from cram.errors import CramError


@st.composite
def launches(draw: st.DrawFn) -> Launch:
    size = draw(st.integers(1, 64))
    local_size = draw(st.integers(1, size))
    local_rank = draw(st.integers(0, local_size - 1))
    rank = draw(st.integers(0, size - 1))
    return Launch(rank, size, local_rank, local_size, "host", draw(st.integers(1, 65535)), draw(st.integers(0, 9)))


def variables_of(launch: Launch) -> dict[str, str]:
    """What torchrun sets."""
    values = (launch.rank, launch.size, launch.local_rank, launch.local_size, launch.address, launch.port)
    return dict(zip(VARIABLES, map(str, values), strict=True)) | {"TORCHELASTIC_RESTART_COUNT": str(launch.restart)}


@given(launches())
def test_the_variables_of_torchrun_tell_which_rank_this_is(launch: Launch) -> None:
    assert read_launch(variables_of(launch) | {"HOME": "/"}) == launch
    assert launch.leads == (launch.rank == 0)


def test_a_process_without_them_is_alone() -> None:
    assert read_launch({"MASTER_ADDR": "left over", "MASTER_PORT": "x"}) == Launch()
    assert (Launch().leads, Launch().size) == (True, 1)


@given(launches(), st.data())
def test_a_missing_variable_is_named(launch: Launch, data: st.DataObject) -> None:
    missing = set(data.draw(st.lists(st.sampled_from(VARIABLES), min_size=1, unique=True)))
    if {"RANK", "WORLD_SIZE", "LOCAL_RANK"} <= missing:
        missing.remove("RANK")
    if not missing:
        return
    kept = {name: value for name, value in variables_of(launch).items() if name not in missing}
    with pytest.raises(CramError) as error:
        read_launch(kept)
    assert all(name in str(error.value) for name in missing)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("RANK", "one", "is not a number: RANK=one"),
        ("MASTER_PORT", "", "is not a number"),
        ("TORCHELASTIC_RESTART_COUNT", "x", "is not a number"),
        ("RANK", "4", "do not fit each other"),
        ("RANK", "-1", "do not fit each other"),
        ("LOCAL_RANK", "2", "do not fit each other"),
        ("LOCAL_WORLD_SIZE", "5", "do not fit each other"),
    ],
)
def test_a_wrong_variable_is_refused(name: str, value: str, message: str) -> None:
    with pytest.raises(CramError, match=message):
        read_launch(variables_of(Launch(1, 4, 1, 2, "host", 1)) | {name: value})
