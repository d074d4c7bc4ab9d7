from dataclasses import replace
from typing import Any

import pytest

from cram.clock import CHARGED, NOT_CHARGED, Budget
from cram.receipt import Facts, mfu, rules, time_table

KEPT = Facts(
    budget=Budget("wall", 3600),
    charged_seconds=3601.0,
    overshoot=1.0,
    largest_update=2.0,
    devices=1,
    objective="masked",
    tokenizer_trained_here=True,
    source="texts/*.jsonl.zst",
    repeated_rows=0,
    held_out_documents=7,
    initial_weights="ab" * 32,
    seeded_weights="ab" * 32,
)

BROKEN = [
    ("one device", {"devices": 2}, "2"),
    ("at most 24 hours", {"charged_seconds": 1.0101 * 86400}, "87272.6 s"),
    ("budget kept within 1% or one update", {"overshoot": 36.1}, "36.1, allowed 36 (wall)"),
    (
        "masked language modelling",
        {"objective": "causal for the first 20%, then masked"},
        "causal for the first 20%, then masked",
    ),
    ("no pretrained weights", {"initial_weights": "cd" * 32}, "cdcdcdcdcdcd"),
    ("no pretrained tokenizer", {"tokenizer_trained_here": False}, "origin is unknown"),
    ("no downstream data", {"source": "hf:nyu-mll/glue:cola"}, "cola, glue"),
    ("no sample repeated", {"repeated_rows": 3}, "3 rows"),
    ("held-out text never trained on", {"held_out_documents": 0}, "0 documents"),
]


def failed(facts: Facts) -> list[str]:
    return [line["rule"] for line in rules(facts) if not line["passed"]]


def test_a_run_that_keeps_every_rule_passes_each_line() -> None:
    assert failed(KEPT) == []
    assert [line["rule"] for line in rules(KEPT)] == [rule for rule, _, _ in BROKEN]
    assert all(line["found"] for line in rules(KEPT))


@pytest.mark.parametrize(("rule", "change", "found"), BROKEN)
def test_each_rule_fails_alone_and_says_what_was_found(rule: str, change: dict[str, Any], found: str) -> None:
    facts = replace(KEPT, **change)
    assert failed(facts) == [rule]
    assert found in next(line["found"] for line in rules(facts) if line["rule"] == rule)


@pytest.mark.parametrize(
    ("budget", "largest_update", "overshoot", "kept"),
    [
        (Budget("wall", 600), 2.0, 6.0, True),  # 1% is more than an update
        (Budget("wall", 600), 2.0, 6.1, False),
        (Budget("wall", 60), 2.0, 2.0, True),  # an update is more than 1%
        (Budget("wall", 60), 2.0, 2.1, False),
        (Budget("wall", 60), 2.0, -9.0, True),
        (Budget("tokens", 1_000), 128, 128, True),
        (Budget("tokens", 1_000), 128, 129, False),
        (Budget("tokens", 1_000_000), 128, 10_000, True),
        (Budget("steps", 50), 1.0, 1, True),
        (Budget("steps", 50), 1.0, 2, False),
    ],
)
def test_a_budget_may_be_overrun_by_a_hundredth_or_an_update(
    budget: Budget, largest_update: float, overshoot: float, kept: bool
) -> None:
    facts = replace(KEPT, budget=budget, largest_update=largest_update, overshoot=overshoot)
    assert failed(facts) == ([] if kept else ["budget kept within 1% or one update"])


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("hf:glue:mnli:train", "glue, mnli"),
        ("hf:stanfordnlp/sst2", "sst2"),
        ("data/GLUE/MNLI/*.jsonl", "glue, mnli"),
        ("hf:super_glue", "super_glue"),
        ("texts/CoLA.jsonl.zst", "cola"),
        ("pydocs", ""),
        ("hf:HuggingFaceFW/fineweb-edu", ""),
        ("/home/gluestick/coca-cola/*.txt", ""),
    ],
)
def test_downstream_data_is_known_by_the_parts_of_its_name(source: str, named: str) -> None:
    line = next(line for line in rules(replace(KEPT, source=source)) if line["rule"] == "no downstream data")
    assert line["passed"] == (not named)
    assert line["found"] == (named or "none named in data.source")


def test_time_is_told_by_account_charged_and_not() -> None:
    table = time_table({"updates": 12.34567, "crash": 1.0, "saving": 0.25})
    assert list(table["charged"]) == list(CHARGED)
    assert list(table["not_charged"]) == list(NOT_CHARGED)
    assert table["charged"]["updates"] == 12.346
    assert sum(table["charged"].values()) == pytest.approx(13.346)
    assert sum(table["not_charged"].values()) == table["not_charged"]["saving"] == 0.25


def test_mfu_is_work_done_over_work_possible_and_unknown_without_a_peak() -> None:
    assert mfu(6e6, 1_000_000, 10.0, 3e12) == pytest.approx(0.2)
    assert mfu(6e6, 1_000_000, 10.0, None) is None
    assert mfu(6e6, 0, 0.0, 3e12) is None
