"""The bounds follow from the counts as the formulas say."""

import pytest

from bench.bounds import GPUS, LAUNCH_SECONDS, compute_bounds, count_resident, needed_in_flight

H100 = GPUS[90]


@pytest.mark.parametrize(
    ("warps", "registers", "shared", "resident"),
    [
        (4, 56, 4096, 9),  # 65536 registers / (4 warps x 1792)
        (16, 128, 64, 1),
        (1, 16, 0, 32),  # the most programs
        (2, 16, 0, 32),  # the most warps, too
        (4, 32, 100 << 10, 2),  # shared memory: 228 KB / 101 KB
        (4, 57, 0, 8),  # registers are given in units of 8 a thread
    ],
)
def test_resident_programs(warps: int, registers: int, shared: int, resident: int) -> None:
    assert count_resident(H100, warps, registers, shared) == resident


def test_bounds_and_model() -> None:
    # One of 3 TB: a second. 132 x 4 x 1.7e9 instructions: a second; one in 16 of them special: half a second.
    slots = 132 * 4 * 1.7e9
    bounds = compute_bounds(H100, 3e12, slots, slots / 16, cycles=1.7e9, waves=0.5)
    assert bounds.memory == pytest.approx(1)
    assert bounds.issue == pytest.approx(1)
    assert bounds.special == pytest.approx(0.5)
    assert bounds.latency == pytest.approx(1)  # less than a wave takes as long as one
    assert bounds.model == pytest.approx(3**0.25 + LAUNCH_SECONDS)
    assert compute_bounds(H100, 1, 1, 1, cycles=1.7e9, waves=3).latency == pytest.approx(3)
    assert compute_bounds(H100, 3e12, 1, 1, 1, 1).largest == "memory"
    assert compute_bounds(H100, 1, 1, 1e9, 1, 1).largest == "special"


def test_bytes_that_must_be_in_flight() -> None:
    assert needed_in_flight(H100) == pytest.approx(3e12 * 650e-9 / 132)
