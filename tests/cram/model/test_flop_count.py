"""The operations of a run's passes, beside the formula of one pass."""

import pytest

from cram.config.model import ModelConfig
from cram.model.count import flops_per_position
from cram.model.flop_count import FlopCount
from cram.reference_time import ExecutedWork

VOCAB, SEQ_LEN = 96, 16
CONFIG = ModelConfig(layers=3, width=32, heads=2, mlp_width=48)


def of_position(layers: int, share: float) -> float:
    config = ModelConfig(layers=layers, width=32, heads=2, mlp_width=48)
    return flops_per_position(config, VOCAB, SEQ_LEN, share)


def test_training_passes_count_with_the_blocks_that_each_computed() -> None:
    work = ExecutedWork()
    work.add_pass("training", 3, 40)
    work.add_pass("training", 1, 10)
    work.add_pass("training", 0, 6)
    work.add_step("adamw", 3)
    predicted = 0.25 * 56 * SEQ_LEN
    expected = SEQ_LEN * (40 * of_position(3, 0.25) + 16 * of_position(1, 0.25))
    assert FlopCount(CONFIG, VOCAB, SEQ_LEN).training(work, int(predicted)) == pytest.approx(expected)


def test_what_methods_add_is_executed_and_no_training() -> None:
    flops, work = FlopCount(CONFIG, VOCAB, SEQ_LEN), ExecutedWork()
    work.add_pass("training", 3, 40)
    before = flops.training(work, 160)
    work.add_pass("forward", 3, 30, overhead=True)
    work.as_overhead().add_pass("training", 1, 8)
    work.as_overhead().add_step("adamw", 1)
    assert flops.training(work, 160) == before
    expected = SEQ_LEN * (50 * of_position(3, 0.25) + 8 * of_position(1, 0.25))
    assert flops.executed(work, 160, 40 * SEQ_LEN) == pytest.approx(expected)


def test_nothing_executed_costs_nothing() -> None:
    assert FlopCount(CONFIG, VOCAB, SEQ_LEN).executed(ExecutedWork(), 0, 0) == 0.0
