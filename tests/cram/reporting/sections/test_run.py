"""The page of one run: every section, of a finished run, one that has only begun, and a failed one."""

from pathlib import Path
from typing import Any

import pytest

from cram.reporting.page.blocks import Block, Fold, Links, Page, Section, Side
from cram.reporting.page.render import render_page
from cram.reporting.reading.runs import RunData, read_run
from cram.reporting.sections.run import run_sections
from tests.cram.reporting.written_runs import train_record, usual_receipt, write_run

ALWAYS = ["headline", "curves", "time", "rules", "repeat", "origin", "model", "history", "files"]


def names(run: RunData) -> list[str]:
    return [section.name for section in run_sections(run)]


def flatten(blocks: Any) -> list[Block]:
    """All blocks, with those inside of others."""
    found: list[Block] = []
    for block in blocks:
        found.append(block)
        if isinstance(block, Fold | Side):
            found += flatten(block.blocks)
    return found


def section(run: RunData, name: str) -> Section:
    return next(section for section in run_sections(run) if section.name == name)


def test_a_finished_run_has_every_section(tmp_path: Path) -> None:
    found = names(read_run(write_run(tmp_path / "a")))
    assert set(found) == {*ALWAYS, "examples", "plan"}
    assert found[:2] == ["headline", "curves"]


@pytest.mark.parametrize("records", [None, []], ids=["with records", "just begun"])
def test_a_run_that_is_not_finished_shows_what_there_is(tmp_path: Path, records: list[Any] | None) -> None:
    run = read_run(write_run(tmp_path / "a", records=records, finished=False))
    assert names(run) == ALWAYS
    text = str(run_sections(run))
    assert "The rules are judged when the run ends." in text
    assert "Up to update 90, the newest checkpoint." in text
    assert ("No record of training has been written yet." in text) == (records == [])


def test_a_run_without_a_checkpoint(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", records=[], finished=False)
    for file in (folder / "checkpoints" / "90").iterdir():
        file.unlink()
    (folder / "checkpoints" / "90").rmdir()
    text = str(run_sections(read_run(folder)))
    assert "Nothing has been written about the time yet." in text
    assert "No weights have been saved yet." in text


def test_a_receipt_of_an_early_version(tmp_path: Path) -> None:
    """Everything that later versions added is missing, and no section fails."""
    receipt = {name: usual_receipt()[name] for name in ("time", "positions", "updates", "tokens_per_second", "rules")}
    held_out = {"nats_per_token": 4.5, "unigram_nats_per_token": 6.7, "bits_per_masked_byte": 1.8}
    run = read_run(write_run(tmp_path / "a", receipt=receipt | {"held_out": held_out}))
    assert names(run) == ALWAYS


def test_pages_of_all_kinds_of_runs_can_be_written(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / "finished"),
        write_run(tmp_path / "begun", records=[], finished=False),
        write_run(tmp_path / "failed", receipt=usual_receipt() | {"failed": "the weights <b>are</b> not finite"}),
    ]
    for folder in runs:
        text = render_page(Page("A run", run_sections(read_run(folder)), 0.0))
        assert "<b>are</b>" not in text
        assert all(f'id="{name}"' in text for name in ALWAYS)


def test_files_that_are_there_are_linked(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a")
    (folder / "export").mkdir()
    (links,) = (block for block in section(read_run(folder), "files").blocks if isinstance(block, Links))
    paths = [path for _, path, _ in links.files]
    assert {"receipt.json", "metrics.jsonl", "export/"} <= set(paths)
    assert "glue.json" not in paths
    assert all((folder / path).exists() for path in paths)


def test_what_never_changes_is_said_without_a_curve(tmp_path: Path) -> None:
    text = str(section(read_run(write_run(tmp_path / "a")), "curves"))
    assert "('Size of an update', '4,096 tokens')" in text
    assert "('Mask rate', '30 % of the tokens')" in text


def test_values_that_no_run_writes_do_not_stop_the_page(tmp_path: Path) -> None:
    odd: list[dict[str, Any]] = [
        {"loss": None, "gradient_norm": None},
        {"loss": -1.7e308, "noise_scale": 10**18},
        {"positions": "many", "flops": 1e308, "lr": [1, 2]},
        {"kind": "threads", "tokens_per_second": "fast"},
        {"kind": "fault", "event": ["a"], "recent": "b", "to_step": {}, "lr_factor": None},
        {"kind": "of a later version", "nested": {"deep": [{}]}},
    ]
    records = [train_record(10), *(train_record(20) | figures for figures in odd), train_record(30)]
    run = read_run(write_run(tmp_path / "a", records=records))
    assert "fault: [&#39;a&#39;]" in render_page(Page("a page", run_sections(run), 0.0))
