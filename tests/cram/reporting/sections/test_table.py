"""The sections on a table of arms: points with their spread, ranks, published findings, rates, curves and runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cram.config.config import Config
from cram.files.atomic import write_json
from cram.planner.fit_file import write_fits
from cram.reporting.page.blocks import Block, Cell, Chart, Fold, Picture, Section, Table, Text
from cram.reporting.reading.tables import read_table
from cram.reporting.sections.table import table_sections
from tests.cram.planner.test_fit_file import made_fits
from tests.cram.reporting.reading.test_tables import outcome, planned, write_arm_run
from tests.cram.reporting.written_runs import write_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished table of three arms, with two budgets, and two rates tried for two arms."""
    folder = tmp_path_factory.mktemp("tables") / "mine"
    arms: list[dict[str, Any]] = []
    runs: list[dict[str, Any]] = []
    for share, budget in (("0.5", "50s"), ("1", "100s")):
        better = {"over_baseline": -0.5, "compares": "better", "expected": "worse", "agrees": "no"}
        worse = {"over_baseline": 0.5, "compares": "worse", "expected": "worse", "agrees": "yes"}
        arms += [
            outcome("base", 5.0, 5.1, budget=budget, rate=2.0),
            outcome("old", 5.5, 5.6, budget=budget, published="it is worse", **worse),
            outcome("new", 4.5, 4.6, budget=budget, words=["optimizer.lr=1"], published="also worse", **better),
        ]
        runs += [
            planned(f"{arm}-{share}-seed{seed}", arm, seed, budget=budget)
            for arm in ("base", "old", "new")
            for seed in (0, 1)
        ]
    trials = [planned(f"{arm}-rate{rate}", arm, rate=rate) for rate in (1.0, 2.0, 4.0) for arm in ("base", "new")]
    for run in (*trials, *runs):
        if run["rate"] is None and run["budget"] == "100s":
            write_arm_run(folder / run["folder"], 4.5)
    for number, rate in enumerate((1.0, 2.0, 4.0)):
        write_arm_run(folder / f"base-rate{rate}", (5.2, 5.0, 5.1)[number])
        write_arm_run(folder / f"new-rate{rate}", 5.0 - number / 10)
    content = {"about": "three arms", "baseline": "base", "arms": arms, "runs": [*trials, *runs]}
    write_json(folder / "results.json", content)
    return folder


@pytest.fixture(scope="module")
def sections(folder: Path) -> dict[str, Section]:
    """The sections of the table, by name."""
    return {section.name: section for section in table_sections(read_table(folder))}


def tables(blocks: Sequence[Block]) -> list[Table]:
    return [block for block in blocks if isinstance(block, Table)]


def notes(section: Section) -> list[str]:
    return [block.text for block in section.blocks if isinstance(block, Text)]


def column(table: Table, name: str) -> list[Cell]:
    (place,) = [number for number, heading in enumerate(table.columns) if heading.name == name]
    return [row[place] for row in table.rows]


def test_arms_are_ranked_for_each_budget(sections: dict[str, Section]) -> None:
    small, large = tables(sections["arms"].blocks)
    assert (small.title, large.title) == ("Figures, budget of 50s", "Figures, budget of 100s")
    assert [cell.text for cell in column(large, "arm")] == ["new", "base (baseline)", "old"]
    assert [cell.text for cell in column(large, "rank")] == ["1", "2", "3"]
    assert [cell.text for cell in column(large, "held-out loss")] == ["4.550", "5.050", "5.550"]
    assert [cell.text for cell in column(large, "over baseline")] == ["-0.500", "+0.000", "+0.500"]
    assert [cell.tone for cell in column(large, "compares")] == ["good", "plain", "bad"]
    assert [cell.text for cell in column(large, "time charged")] == ["92.0 s"] * 3


def test_points_are_drawn_for_each_budget_with_the_baseline(sections: dict[str, Section]) -> None:
    pictures = [block for block in sections["arms"].blocks if isinstance(block, Picture)]
    assert [picture.title for picture in pictures] == [
        "Held-out loss of each seed, budget of 50s",
        "Held-out loss of each seed, budget of 100s",
    ]
    assert pictures[0].description == "Means, the best first: new 4.550; base 5.050; old 5.550."
    assert "var(--series-2)" in pictures[0].svg and "var(--series-1)" in pictures[0].svg


def test_the_words_of_each_arm_are_there(sections: dict[str, Section]) -> None:
    (fold,) = [block for block in sections["arms"].blocks if isinstance(block, Fold)]
    assert "new: optimizer.lr=1" in str(fold.blocks[0])


def test_published_findings_stand_beside_what_came(sections: dict[str, Section]) -> None:
    section = sections["published"]
    assert notes(section)[0].startswith("2 of 4 comparisons agree with what was published.")
    (table,) = tables(section.blocks)
    assert [cell.text for cell in column(table, "published")] == ["also worse", "it is worse"] * 2
    assert [(cell.text, cell.tone) for cell in column(table, "agrees")][:2] == [("no", "warning"), ("yes", "good")]


def test_rates_that_were_tried_have_their_losses_and_the_best_is_marked(sections: dict[str, Section]) -> None:
    (table,) = tables(sections["rates"].blocks)
    assert [heading.name for heading in table.columns] == ["arm", "rate x 1", "rate x 2", "rate x 4"]
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["base", "5.200", "5.000", "5.100"],
        ["new", "5.000", "4.900", "4.800"],
    ]
    assert [[cell.tone for cell in row[1:]].index("good") for row in table.rows] == [1, 2]
    assert notes(sections["rates"])[-1].endswith("another rate may be better: new.")


def test_each_arm_has_a_colour_in_the_curves(sections: dict[str, Section]) -> None:
    (chart,) = [block for block in sections["arm-curves"].blocks if isinstance(block, Chart)]
    assert chart.title == "Held-out loss"
    assert [(series.label, series.color) for series in chart.series] == [
        (f"{arm}, seed {seed}", color) for color, arm in enumerate(("base", "old", "new")) for seed in (0, 1)
    ]


def test_missing_runs_are_said_and_listed(sections: dict[str, Section]) -> None:
    assert notes(sections["arms"])[1].startswith("The table is not finished: 12 of 18 runs have ended")
    (table,) = tables(sections["arm-runs"].blocks)
    states = {
        row[0].text: (cell.text, row[0].link) for row, cell in zip(table.rows, column(table, "state"), strict=True)
    }
    assert states["old-1-seed1"] == ("finished", "old-1-seed1")
    assert states["old-0.5-seed1"] == ("not begun", "")


def test_other_data_and_another_device_are_said(tmp_path: Path) -> None:
    arms = [outcome("base", 5.0), outcome("old", 5.0, data=["other"], device=["A GPU"])]
    write_json(tmp_path / "results.json", {"about": "", "baseline": "gone", "arms": arms, "runs": []})
    said = notes(table_sections(read_table(tmp_path))[0])
    assert "Not all arms were trained on the same rows, so their losses compare only roughly." in said
    assert (
        "The runs were trained on different devices: A GPU (old); A Processor (base). Their speeds do not compare, and "
        "their losses only where the budgets are in tokens or updates."
    ) in said
    assert "The baseline, gone, has no finished run yet." in said


def test_a_table_with_one_budget_and_columns_names_the_columns(tmp_path: Path) -> None:
    arms = [outcome("base", 5.0, column=name) for name in ("plain", "dropout")]
    write_json(tmp_path / "results.json", {"about": "", "baseline": "base", "arms": arms, "runs": []})
    found = tables(table_sections(read_table(tmp_path))[0].blocks)
    assert [table.title for table in found] == ["Figures, plain", "Figures, dropout"]


def test_fits_alone_are_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cram.reporting.sections.scaling.draw_svg", lambda name, *_: name)
    write_fits(tmp_path, [made_fits()])
    assert [section.name for section in table_sections(read_table(tmp_path))] == ["scaling-0"]


def test_a_folder_of_runs_without_results_says_what_does_not_compare(tmp_path: Path) -> None:
    for arm in ("a", "b"):
        write_run(tmp_path / arm)
    alone = "There is no results.json, so each run is taken for an arm by the name of its folder."
    (section,) = [section for section in table_sections(read_table(tmp_path)) if section.name == "arms"]
    assert notes(section)[0] == alone
    assert "differ" not in str(notes(section))
    other = Config(budget="5s")
    other.objective.kind = "causal"
    write_run(tmp_path / "c", config=other)
    (section,) = [section for section in table_sections(read_table(tmp_path)) if section.name == "arms"]
    assert notes(section)[:3] == [
        alone,
        "The losses are not comparable: the objectives, vocabularies or held-out texts of the runs differ.",
        "The budgets differ: 100s, 5s.",
    ]
