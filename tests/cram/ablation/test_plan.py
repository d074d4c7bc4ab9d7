"""The runs of a table: their words, their order, and their selection."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cram.ablation import plan
from cram.ablation.plan import plan_runs, plan_trials, scale_budget, select_runs
from cram.ablation.table import AblationTable, Column, load_table, table_names
from cram.budget import Budget
from cram.build import check
from cram.config.config import Config
from cram.config.recipe import read_config
from cram.errors import CramError


@pytest.mark.parametrize("name", table_names())
def test_every_table_makes_configs_that_can_be_trained(name: str) -> None:
    _, table = load_table(name)
    runs = plan_runs(table, Path("runs"), [])
    assert len(runs) == table.seeds * len(table.arms) * len(table.shares) * max(1, len(table.columns))
    runs += plan_trials(table, Path("runs"), [])
    assert len({run.folder for run in runs}) == len(runs)
    for run in runs:
        if run.seed == 0:
            check(run.config)


@pytest.mark.parametrize("name", table_names())
def test_the_arms_of_a_table_share_their_data(name: str) -> None:
    _, table = load_table(name)
    table.seeds = 1
    configs = [run.config for run in plan_runs(table, Path("runs"), [])]
    shared = [
        # The same shards and held-out text, however often, in which order and however many of the rows are trained on.
        (replace(config.data, epochs=1, subset_tokens=None, order="shuffled"), config.wordpiece, config.evaluation)
        for config in configs
    ]
    assert all(data == shared[0] for data in shared)


def test_seeds_come_in_turns_and_the_words_of_an_arm_override_the_users(table: AblationTable) -> None:
    runs = plan_runs(table, Path("runs"), ["optimizer.lr=7e-3", "model.layers=5"])
    in_turns = [(arm, seed) for seed in (0, 1) for arm in ("old", "new", "half")]
    assert [(run.arm, run.seed) for run in runs] == in_turns
    assert [run.config.optimizer.lr for run in runs[:3]] == [7e-3, 3e-3, 7e-3]
    assert {run.config.model.layers for run in runs} == {5}
    assert [run.config.budget for run in runs[:3]] == ["10m", "10m", "300s"]
    assert runs[4].folder == Path("runs/new-seed1")


def test_the_words_of_a_run_make_its_config_and_each_arm_is_read_once(
    table: AblationTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[list[str]] = []

    def count_calls(words: list[str]) -> Config:
        calls.append(words)
        return read_config(words)

    monkeypatch.setattr(plan, "read_config", count_calls)
    runs = plan_runs(replace(table, seeds=1000), Path("runs"), ["model.layers=5"])
    assert len(runs) == 3000
    assert len(calls) == 3
    for run in runs[-3:]:
        assert read_config(list(run.words)) == run.config


def test_a_column_at_equal_tokens_has_the_tokens_of_the_table(table: AblationTable) -> None:
    table.columns = {"time": Column(), "tokens": Column(clock="tokens")}
    with pytest.raises(CramError, match=r"column tokens compares at equal tokens: give tokens=N, such as tokens=900"):
        plan_runs(table, Path("runs"), [])
    runs = plan_runs(replace(table, tokens=2e6, seeds=1), Path("runs"), [])
    budgets = {(run.column, run.arm): run.config.parse_budget() for run in runs}
    assert {arm: budget.limit for (column, arm), budget in budgets.items() if column == "tokens"} == {
        "old": 2e6,
        "new": 2e6,
        "half": 1e6,
    }
    assert budgets["tokens", "old"].clock == "tokens" and budgets["time", "old"] == Budget.parse("10m")


def test_some_arms_can_be_named(table: AblationTable) -> None:
    runs = plan_runs(table, Path("runs"), [])
    assert select_runs(runs, []) == runs
    assert {run.arm for run in select_runs(runs, ["half", "old"])} == {"half", "old"}
    with pytest.raises(CramError, match=r"arms=nwe is unknown\. Nearest: new\. Arms: old, new, half"):
        select_runs(runs, ["nwe"])


def test_a_wrong_word_is_reported_with_its_arm(table: AblationTable) -> None:
    with pytest.raises(CramError, match=r"arm old: unknown key 'optimiser\.lr'"):
        plan_runs(table, Path("runs"), ["optimiser.lr=1"])


@given(st.sampled_from(["90s", "10m", "24h", "3e6tokens", "5000steps"]), st.floats(0.01, 1.0))
def test_a_share_of_a_budget_is_a_budget(budget: str, share: float) -> None:
    whole, part = Budget.parse(budget), Budget.parse(scale_budget(budget, share))
    assert part.clock == whole.clock
    assert part.limit == pytest.approx(whole.limit * share, rel=1e-9, abs=0.0 if whole.clock == "wall" else 1.0)
