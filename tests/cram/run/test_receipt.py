"""The rules, the table of time and the MFU of a receipt."""

from dataclasses import replace
from typing import Any

import pytest

from cram.budget import Budget
from cram.clock import CHARGED, NOT_CHARGED
from cram.run.receipt import BUDGET_RULE, MASKED_RULE, RuleInputs, compute_mfu, judge_rules, tabulate_time

CHECK = {
    "documents": 7,
    "sequences_found": 0,
    "windows": 900,
    "windows_found": 0,
    "boilerplate_windows": 2,
    "boilerplate_documents": 11,
}
KEPT = RuleInputs(
    budget=Budget("wall", 3600),
    charged_seconds=3601.0,
    stalls=0.0,
    spent=3601.0,
    half_update=1.0,
    devices=["NVIDIA H100"],
    objective="masked",
    tokenizer_trained_here=True,
    source="texts/*.jsonl.zst",
    repeated_rows=0,
    held_out_check=CHECK,
    initial_weights="ab" * 32,
    seeded_weights="ab" * 32,
    decontaminated=None,
)

BROKEN = [
    ("one device", {"devices": ["NVIDIA H100", "NVIDIA A100"]}, "NVIDIA H100, NVIDIA A100"),
    ("at most 24 hours", {"charged_seconds": 86401.1}, "86401.1 s"),
    (BUDGET_RULE, {"spent": 3601.1}, "3601.10 of 3600 s, 0.00 s of it stalls; asked are at most 3601.00 s"),
    (
        MASKED_RULE,
        {"objective": "causal for the first 20%, then masked"},
        "causal for the first 20%, then masked",
    ),
    ("no pretrained weights", {"initial_weights": "cd" * 32}, "cdcdcdcdcdcd"),
    ("no pretrained tokenizer", {"tokenizer_trained_here": False}, "origin is unknown"),
    ("no downstream data by name", {"source": "hf:nyu-mll/glue:cola"}, "cola, glue"),
    ("no sample repeated", {"repeated_rows": 3}, "3 rows"),
    ("held-out text never trained on", {"held_out_check": CHECK | {"documents": 0}}, "0 documents"),
]


def failed(inputs: RuleInputs) -> list[str]:
    return [line["rule"] for line in judge_rules(inputs) if not line["passed"]]


def test_a_run_that_keeps_all_rules_passes_all() -> None:
    assert failed(KEPT) == []
    assert [line["rule"] for line in judge_rules(KEPT)] == [rule for rule, _, _ in BROKEN]
    assert all(line["found"] for line in judge_rules(KEPT))


@pytest.mark.parametrize(("rule", "change", "found"), BROKEN)
def test_each_rule_fails_alone_with_its_reason(rule: str, change: dict[str, Any], found: str) -> None:
    inputs = replace(KEPT, **change)
    assert failed(inputs) == [rule]
    assert found in next(line["found"] for line in judge_rules(inputs) if line["rule"] == rule)


@pytest.mark.parametrize(
    ("budget", "half_update", "spent", "stalls", "kept"),
    [
        (Budget("wall", 600), 1.0, 601.0, 0.0, True),
        (Budget("wall", 600), 1.0, 601.1, 0.0, False),
        (Budget("wall", 600), 0.01, 600.5, 0.0, True),  # the tolerance is half a second
        (Budget("wall", 600), 0.01, 600.6, 0.0, False),
        (Budget("wall", 600), 1.0, 582.0, 0.0, True),  # 97%
        (Budget("wall", 600), 1.0, 581.9, 0.0, False),
        (Budget("wall", 600), 1.0, 600.0, 18.0, True),
        (Budget("wall", 600), 1.0, 600.0, 18.1, False),
        (Budget("wall", 30), 0.05, 44.0, 14.0, False),  # a stall beyond the end
        (Budget("wall", 600), 30.0, 570.0, 0.0, True),  # half an update is more than the rest
        (Budget("wall", 600), 30.0, 569.0, 0.0, False),
        (Budget("tokens", 1_000), 64, 1_064, 0.0, True),
        (Budget("tokens", 1_000), 64, 1_065, 0.0, False),
        (Budget("tokens", 1_000), 64, 936, 99.0, True),  # a stall costs no tokens
        (Budget("tokens", 1_000), 64, 935, 0.0, False),
        (Budget("steps", 50), 0.5, 50, 0.0, True),
        (Budget("steps", 50), 0.5, 51, 0.0, False),
        (Budget("steps", 50), 0.5, 49, 0.0, False),
    ],
)
def test_a_budget_may_be_exceeded_by_half_an_update_and_must_be_used(
    budget: Budget, half_update: float, spent: float, stalls: float, kept: bool
) -> None:
    inputs = replace(KEPT, budget=budget, half_update=half_update, spent=spent, stalls=stalls)
    assert failed(inputs) == ([] if kept else [BUDGET_RULE])


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
def test_downstream_data_is_recognised_by_the_parts_of_its_name(source: str, named: str) -> None:
    line = next(
        line for line in judge_rules(replace(KEPT, source=source)) if line["rule"] == "no downstream data by name"
    )
    assert line["passed"] == (not named)
    assert line["found"] == f"{named or 'none named in data.source'}; documents were not compared with task files"


def test_the_documents_that_decontamination_dropped_are_counted() -> None:
    found = [line["found"] for line in judge_rules(replace(KEPT, decontaminated=12)) if "downstream" in line["rule"]]
    assert found == ["none named in data.source; 12 documents dropped that share words with data.dedupe.decontaminate"]


@pytest.mark.parametrize("objective", ["causal", "bags of 4 tokens for the first 30%, then causal"])
def test_a_causal_model_has_no_rule_on_masking(objective: str) -> None:
    lines = judge_rules(replace(KEPT, objective=objective))
    assert all(line["passed"] for line in lines)
    assert MASKED_RULE not in [line["rule"] for line in lines]
    assert len(lines) == len(judge_rules(KEPT)) - 1


def test_24_hours_may_be_exceeded_by_half_an_update_on_the_wall_clock_only() -> None:
    half = replace(KEPT, budget=Budget("wall", 86400), half_update=9.0, spent=86400.0)
    for clock, most in (("wall", 86409.0), ("steps", 86400.0)):
        inputs = replace(half, budget=replace(half.budget, clock=clock))  # type: ignore[arg-type]
        for seconds, kept in ((most, True), (most + 0.1, False)):
            assert failed(replace(inputs, charged_seconds=seconds)) == ([] if kept else ["at most 24 hours"])


def test_time_is_sorted_into_charged_and_not_charged_accounts() -> None:
    table = tabulate_time({"updates": 12.34567, "crash": 1.0, "saving": 0.25})
    assert list(table["charged"]) == list(CHARGED)
    assert list(table["not_charged"]) == list(NOT_CHARGED)
    assert table["charged"]["updates"] == 12.346
    assert sum(table["charged"].values()) == pytest.approx(13.346)  # type: ignore[arg-type]
    assert sum(table["not_charged"].values()) == table["not_charged"]["saving"] == 0.25  # type: ignore[arg-type]
    assert tabulate_time({"asleep": None})["not_charged"]["asleep"] is None


def test_mfu_is_the_share_of_the_peak_and_unknown_without_one() -> None:
    assert compute_mfu(6e12, 10.0, 3e12) == pytest.approx(0.2)
    assert compute_mfu(6e12, 10.0, None) is None
    assert compute_mfu(0.0, 0.0, 3e12) is None


@pytest.mark.parametrize("name", ["sequences_found", "windows_found"])
def test_held_out_text_in_the_rows_breaks_the_rule(name: str) -> None:
    inputs = replace(KEPT, held_out_check=CHECK | {name: 3})
    assert failed(inputs) == ["held-out text never trained on"]
    found = judge_rules(KEPT)[-1]["found"]
    assert found == (
        "7 documents searched for in the rows: 0 stand there, and 0 of their 900 runs of 64 tokens, "
        "beside 2 of boilerplate in 11 documents"
    )
