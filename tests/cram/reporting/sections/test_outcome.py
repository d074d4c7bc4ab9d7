"""Where the time went, the rules, and the plan: of finished runs from the receipt, before the end as far as known."""

from pathlib import Path

from cram.config.config import Config
from cram.config.plan import PlanConfig
from cram.reporting.page.blocks import Picture, Section, Table
from cram.reporting.reading.runs import read_run
from cram.reporting.sections.outcome import plan_section, rules_section, time_section
from tests.cram.reporting.written_runs import usual_receipt, write_run


def rows(section: Section | None) -> list[list[str]]:
    assert section is not None
    (table,) = (block for block in section.blocks if isinstance(block, Table))
    return [[cell.text for cell in row] for row in table.rows]


def test_time_by_account(tmp_path: Path) -> None:
    section = time_section(read_run(write_run(tmp_path / "a")))
    found = rows(section)
    assert found[0][:4] == ["updates", "charged", "90.2 s", "90.0%"]
    assert ["saving", "not charged", "0.20 s", "", "checkpoints"] in found
    assert ["asleep", "not charged", "unknown", "", "the machine was asleep"] in found
    assert "crash" not in {row[0] for row in found}
    assert "Nothing was booked to crash." in str(section.blocks)
    (picture,) = (block for block in section.blocks if isinstance(block, Picture))
    assert picture.description.startswith("charged: updates 90.2 s, compilation 1.00 s")


def test_stalls_are_told(tmp_path: Path) -> None:
    receipt = usual_receipt() | {"stalls": {"number": 2, "seconds": 30.0, "longest_seconds": 20.0}}
    text = str(time_section(read_run(write_run(tmp_path / "a", receipt=receipt))).blocks)
    assert "Updates stalled 2 times, the longest for 20.0 s." in text


def test_the_time_before_the_end_is_that_of_the_newest_checkpoint(tmp_path: Path) -> None:
    section = time_section(read_run(write_run(tmp_path / "a", finished=False)))
    assert rows(section)[0][:4] == ["updates", "charged", "90.2 s", "90.0%"]
    assert "Up to update 90, the newest checkpoint." in str(section.blocks)


def test_rules_with_what_they_were_judged_by(tmp_path: Path) -> None:
    section = rules_section(read_run(write_run(tmp_path / "a")))
    assert rows(section) == [
        ["kept", "one device", "A Processor"],
        ["not kept", "no sample repeated", "12 rows repeated"],
    ]
    (table,) = (block for block in section.blocks if isinstance(block, Table))
    assert [row[0].tone for row in table.rows] == ["good", "bad"]


def test_the_plan_beside_the_outcome(tmp_path: Path) -> None:
    assert rows(plan_section(read_run(write_run(tmp_path / "a")))) == [
        ["tokens per second", "5,000", "4,442", "0.89"],
        ["held-out loss, nats per token", "–", "4.500", "–"],
    ]


def test_a_plan_before_the_end(tmp_path: Path) -> None:
    plan = PlanConfig(budget="100s", device="A Processor", updates=120, nats=4.2)
    config = Config(recipe="bert_demo", budget="100s", plan=plan)
    found = rows(plan_section(read_run(write_run(tmp_path / "a", config=config, finished=False))))
    assert ["updates", "120", "100", "–"] in found
    assert ["held-out loss, nats per token", "4.200", "4.500", "–"] in found
    assert ["time of an update, s", "–", "–", "–"] in found
    assert plan_section(read_run(write_run(tmp_path / "b", finished=False))) is None
