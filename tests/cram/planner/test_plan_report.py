"""The table of a plan: one row for each size of model, the choice first."""

import math

import pytest

from cram.budget import Budget
from cram.planner.plan import Plan, Size, make_plan
from cram.planner.plan_report import best_of_each_size, describe_choice, print_plan_table
from cram.planner.shape import Shape

SHAPES = tuple(Shape(2, width, width // 16, 2 * width, batch) for width in (32, 64, 128) for batch in (512, 1024, 2048))


def plan() -> Plan:
    def size_of(shape: Shape) -> Size:
        return Size(20 * shape.width**2, 10 * shape.width**2, 10**8)

    def seconds_of(shape: Shape) -> tuple[float, bool]:
        return 1e-9 * shape.batch_tokens * shape.width**2, shape.width == 64

    return make_plan(SHAPES, size_of, seconds_of, Budget("wall", 10.0), 5_000_000, None, 50.0)


def test_each_size_has_one_row_and_the_choice_is_the_first() -> None:
    made = plan()
    rows = best_of_each_size(made)
    assert rows[0] == made.chosen
    assert sorted(row.shape.width for row in rows) == [32, 64, 128]


def test_without_a_predicted_loss_the_most_alike_come_first() -> None:
    made = plan()
    ratios = [row.tokens_per_parameter / made.chosen.tokens_per_parameter for row in best_of_each_size(made)]
    distances = [abs(math.log(ratio)) for ratio in ratios]
    assert distances == sorted(distances)
    assert all(row.shape.batch_tokens == made.chosen.shape.batch_tokens for row in best_of_each_size(made))


def test_the_table_marks_what_was_timed_and_whether_the_data_suffices(capsys: pytest.CaptureFixture[str]) -> None:
    made = plan()
    print_plan_table(made, unigram=6.5, available=5_000_000)
    lines = [line for line in capsys.readouterr().out.splitlines() if " heads" in line]
    assert len(lines) == 3
    assert lines[0].startswith("  > ")
    assert sum("(model)" in line for line in lines) == 2
    assert any("too little" in line for line in lines) and any("enough" in line for line in lines)


def test_the_choice_in_words() -> None:
    text = describe_choice(plan(), unigram=None, timed=3)
    assert "predicted loss unknown" in text
    assert "chosen by the rule of tokens per parameter among 9 shapes, 3 of them timed here." in text
