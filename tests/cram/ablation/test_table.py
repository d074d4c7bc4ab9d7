from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cram.ablation import table as ablation
from cram.ablation.table import Arm, Run, Table, chosen, load_table, outcome, plan, scaled, table_names
from cram.build import check
from cram.clock import Budget
from cram.config.config import Config
from cram.config.recipe import read_config
from cram.errors import CramError
from cram.files.atomic import write_atomic, write_json
from cram.run.checksums import HELD_OUT, RECEIPT, WEIGHTS, register_results, write_start_files

TABLE = Table(
    about="",
    budget="10m",
    seeds=2,
    baseline="old",
    words=["model.layers=2"],
    arms={
        "old": Arm(["recipe=crammed_bert"]),
        "new": Arm(["recipe=bert_demo", "optimizer.lr=3e-3"]),
        "half": Arm(["recipe=bert_demo"], budget_share=0.5),
    },
)


@pytest.mark.parametrize("name", table_names())
def test_every_table_makes_configs_that_can_be_trained(name: str) -> None:
    _, table = load_table(name)
    runs = plan(table, Path("runs"), [])
    assert len(runs) == table.seeds * len(table.arms)
    assert len({run.folder for run in runs}) == len(runs)
    for run in runs:
        check(run.config)


@pytest.mark.parametrize("name", table_names())
def test_the_arms_of_a_table_share_their_data(name: str) -> None:
    _, table = load_table(name)
    table.seeds = 1
    shared = [(run.config.data, run.config.wordpiece, run.config.evaluation) for run in plan(table, Path("runs"), [])]
    assert all(data == shared[0] for data in shared)


def test_seeds_come_in_turns_and_an_arms_words_stand_above_the_users() -> None:
    runs = plan(TABLE, Path("runs"), ["optimizer.lr=7e-3", "model.layers=5"])
    assert [(run.arm, run.seed) for run in runs] == [
        (arm, seed) for seed in (0, 1) for arm in ("old", "new", "half")
    ]  # fmt: skip
    assert [run.config.optimizer.lr for run in runs[:3]] == [7e-3, 3e-3, 7e-3]
    assert {run.config.model.layers for run in runs} == {5}
    assert [run.config.budget for run in runs[:3]] == ["10m", "10m", "300s"]
    assert runs[4].folder == Path("runs/new-seed1")


def test_a_run_is_what_its_words_make_and_a_recipe_is_read_once_an_arm(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[list[str]] = []

    def counted(words: list[str]) -> Config:
        read.append(words)
        return read_config(words)

    monkeypatch.setattr(ablation, "read_config", counted)
    runs = plan(replace(TABLE, seeds=1000), Path("runs"), ["model.layers=5"])
    assert len(runs) == 3000
    assert len(read) == 3
    for run in runs[-3:]:
        assert read_config(list(run.words)) == run.config


def test_some_arms_can_be_named() -> None:
    runs = plan(TABLE, Path("runs"), [])
    assert chosen(runs, []) == runs
    assert {run.arm for run in chosen(runs, ["half", "old"])} == {"half", "old"}
    with pytest.raises(CramError, match=r"arms=nwe is unknown\. Nearest: new\. Arms: old, new, half"):
        chosen(runs, ["nwe"])


def test_a_word_that_makes_no_config_is_told_with_its_arm() -> None:
    with pytest.raises(CramError, match=r"arm old: unknown key 'optimiser\.lr'"):
        plan(TABLE, Path("runs"), ["optimiser.lr=1"])


@given(st.sampled_from(["90s", "10m", "24h", "3e6tokens", "5000steps"]), st.floats(0.01, 1.0))
def test_a_share_of_a_budget_is_a_budget(budget: str, share: float) -> None:
    whole, part = Budget.parse(budget), Budget.parse(scaled(budget, share))
    assert part.clock == whole.clock
    assert part.limit == pytest.approx(whole.limit * share, rel=1e-9, abs=0.0 if whole.clock == "wall" else 1.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "about: x\nbudget: 1m\nseeds: 1\nbaseline: b\narms: {a: {words: []}}",
            "baseline: b is not one of the arms a",
        ),
        (
            "about: x\nbudget: 1m\nseeds: 1\nbaseline: a\narms: {a: {words: [], budget_share: 2}}",
            "budget_share=2 is out of range: give a number above 0, at most 1",
        ),
        ("about: x\nbudgets: 1m", "unknown key 'budgets'"),
        ("- a", "a yaml mapping"),
    ],
)
def test_a_broken_table_is_told(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(CramError, match=message):
        load_table(str(path))


@pytest.mark.parametrize(
    "name", ["..", ".", "", "a/b", "/a", "a\\\\b", "-a", ".a", "~", "a\\0b", "a\\nb", "a b", "é", "a" * 101]
)
def test_an_arm_whose_name_cannot_name_a_folder_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f'baseline: b\narms: {{b: {{words: []}}, "{name}": {{words: []}}}}\n')
    with pytest.raises(
        CramError, match=r"mine\.yaml: arms: '.* cannot name a folder\. Use up to 100 letters"
    ) as caught:
        load_table(str(path))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("place", ["/tmp/other", "../other", "~/other"])
@pytest.mark.parametrize(
    ("key", "text"),
    [("words", "words: [{}]\narms: {{a: {{words: []}}}}\n"), ("arms.a.words", "arms: {{a: {{words: [{}]}}}}\n")],
)
def test_a_table_chooses_no_place_outside_the_working_folder(key: str, text: str, place: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("baseline: a\n" + text.format(f"data.dir={place}"))
    with pytest.raises(CramError, match=rf"mine\.yaml: {key}: data\.dir=.*other is not inside the working folder"):
        load_table(str(path))


@pytest.mark.parametrize("word", ["run=runs/x", "seed=3", "budget=3h"])
def test_the_words_of_a_table_are_none_that_each_run_has_for_itself(tmp_path: Path, word: str) -> None:
    path = tmp_path / "mine.yaml"
    for key, text in (("words", "words: [{}]\narms: {{a: {{}}}}"), ("arms.a.words", "arms: {{a: {{words: [{}]}}}}")):
        path.write_text("baseline: a\n" + text.format(word))
        with pytest.raises(CramError, match=rf"mine\.yaml: {key}: {word}: each run of a table has its own \w+\. Say "):
            load_table(str(path))


def test_an_unknown_table_is_told_with_the_nearest() -> None:
    with pytest.raises(CramError, match=r"table=recip is unknown\. Nearest: recipe\."):
        load_table("recip")


def receipt(nats: float, cramming: float | None, tokens: int) -> dict[str, Any]:
    held_out: dict[str, Any] = {"nats_per_token": nats}
    if cramming is not None:
        held_out["cramming_rule"] = {"nats_per_token": cramming}
    return {
        "held_out": held_out, "tokens_per_second": 100.0, "positions": tokens, "faults": {"skipped": 1},
        "data": {"hash": "d"}, "device": "cpu",
    }  # fmt: skip


def finish(run: Run, receipt: dict[str, Any]) -> None:
    """Leave what a finished run leaves."""
    write_start_files(run.folder, run.config, {}, b"{}", data="of the test")
    for name in (WEIGHTS, HELD_OUT):
        write_atomic(run.folder / name, b"")
    write_json(run.folder / RECEIPT, receipt)
    register_results(run.folder)


def test_a_run_that_failed_is_none_of_the_outcome(tmp_path: Path) -> None:
    runs = plan(TABLE, tmp_path, [])
    for run in runs:
        failed = "the weights are not finite" if (run.arm, run.seed) == ("old", 0) else None
        finish(run, receipt(5.0, 4.0, 100) | {"failed": failed})
    assert [(line["arm"], line["seeds"]) for line in outcome(runs, TABLE)] == [
        ("old", [1]), ("new", [0, 1]), ("half", [0, 1])
    ]  # fmt: skip


def test_the_outcome_has_means_spreads_and_the_distance_to_the_baseline(tmp_path: Path) -> None:
    runs = plan(TABLE, tmp_path, [])
    figures = {"old": (5.0, 4.0), "new": (4.0, 3.5), "half": (4.5, None)}
    for run in runs:
        if (run.arm, run.seed) != ("half", 1):  # still missing
            nats, cramming = figures[run.arm]
            finish(run, receipt(nats + 0.2 * run.seed, cramming, 1000))
    old, new, half = outcome(runs, TABLE)
    assert (old["arm"], old["seeds"], old["over_baseline"]) == ("old", [0, 1], 0.0)
    assert old["nats"] == {"mean": 5.1, "least": 5.0, "largest": 5.2, "all": [5.0, 5.2]}
    assert new["over_baseline"] == pytest.approx(-1.0)
    assert new["cramming_rule_nats"]["mean"] == 3.5
    assert (half["seeds"], half["budget"], half["cramming_rule_nats"]) == ([0], "300s", None)
    assert half["over_baseline"] == pytest.approx(-0.5)  # of the seed that both have


def test_what_other_words_have_trained_is_no_outcome(tmp_path: Path) -> None:
    runs = plan(TABLE, tmp_path, [])
    others = plan(TABLE, tmp_path, ["data.source=other"])
    finish(others[0], receipt(9.0, 9.0, 10))
    finish(runs[1], receipt(4.0, 3.0, 10))
    assert [line["arm"] for line in outcome(runs, TABLE)] == ["new"]


def test_without_the_baseline_there_is_no_distance(tmp_path: Path) -> None:
    run = Run("new", 0, (), Config(run=str(tmp_path / "new-seed0")))
    finish(run, receipt(4.0, 3.0, 10))
    (line,) = outcome([run], TABLE)
    assert line["over_baseline"] is None
