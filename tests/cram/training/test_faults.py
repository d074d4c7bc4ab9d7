import json
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cram.config.training import FaultsConfig
from cram.errors import CramError
from cram.training.faults import Faults


@given(st.lists(st.booleans()))
def test_updates_left_out_are_counted_and_the_latest_in_a_row(finite: list[bool]) -> None:
    faults = Faults()
    for good in finite:
        faults.count(good)
    assert faults.skipped == finite.count(False)
    assert faults.in_a_row == next((back for back, good in enumerate(reversed(finite)) if good), len(finite))


def test_a_rise_above_the_recent_mean_is_a_spike_and_a_fall_is_none() -> None:
    faults, config = Faults(), FaultsConfig(spike=1.0)
    for step, loss in enumerate([9.0, 7.0, 5.0, 4.9, 4.8]):
        assert faults.record_loss(step, loss, config) is None
    spike = faults.record_loss(5, 9.9, config)
    assert spike is not None
    assert (spike.step, spike.loss) == (5, 9.9)
    assert 4.8 < spike.recent < 8.9
    assert faults.spikes == [spike]


def test_each_return_lowers_the_learning_rate_until_they_are_too_many() -> None:
    faults, config = Faults(in_a_row=10), FaultsConfig(lr_factor=0.5, rollbacks=2)
    assert faults.roll_back(100, 80, config).lr_factor == 0.5
    assert faults.in_a_row == 0
    assert faults.roll_back(120, 80, config).lr_factor == 0.25
    with pytest.raises(
        CramError,
        match=r"not finite at update 130, after 2 rollbacks.*0\.25 times.*Lower optimizer\.lr and choose another run=",
    ):
        faults.roll_back(130, 80, config)


def test_they_survive_as_json() -> None:
    faults, config = Faults(), FaultsConfig()
    faults.count(False)
    faults.record_loss(1, 1.0, config)
    faults.record_loss(2, 5.0, config)
    faults.roll_back(3, 0, config)
    assert Faults(**json.loads(json.dumps(asdict(faults)))) == faults
