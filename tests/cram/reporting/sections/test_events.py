"""What happened in a run: events in order, processes with what changed, faults, compilation and checkpoints."""

from pathlib import Path
from typing import Any

from cram.reporting.page.blocks import Facts, Fold, Table, Text
from cram.reporting.reading.runs import RunData, read_run
from cram.reporting.sections.axes import Places
from cram.reporting.sections.events import history_section, list_events, run_marks
from tests.cram.reporting.written_runs import train_record, usual_process, usual_receipt, write_run

EXTENSION = {
    "clock": "wall",
    "old_limit": 50.0,
    "limit": 100.0,
    "update": 40,
    "discarded_updates": 3,
    "discarded_seconds": 2.5,
}
THREADS = {
    "kind": "threads",
    "step": 0,
    "charged_seconds": 0.0,
    "threads": 2,
    "tokens_per_second": {"2": 900, "1": 7e2},
}


def tables(run: RunData) -> dict[str, Table]:
    blocks = history_section(run, "history").blocks
    inside = [inner for block in blocks if isinstance(block, Fold) for inner in block.blocks]
    return {block.title: block for block in [*blocks, *inside] if isinstance(block, Table)}


def facts(run: RunData) -> dict[str, str]:
    (block,) = (block for block in history_section(run, "history").blocks if isinstance(block, Facts))
    return dict(block.facts)


def test_events_are_in_order_and_only_the_important_ones_are_marked(tmp_path: Path) -> None:
    resume = {"kind": "resume", "charged_seconds": 15.0, "lost_seconds": 12.5}
    records = [THREADS, train_record(10), resume | {"step": 15}, resume | {"step": 40}, train_record(50)]
    run = read_run(write_run(tmp_path / "a", records, usual_receipt() | {"extensions": [EXTENSION]}))
    texts = [event.text for event in list_events(run, Places(run))]
    assert texts == [
        "2 CPU threads chosen; tokens per second: 900 with 2, 700 with 1",
        "resumed, 12.5 s lost in a crash",
        "extended from 50s to 100s at update 40 (3 later updates, 2.5 s, were thrown away and are outside the budget)",
    ]
    assert [mark.label for mark in run_marks(run, Places(run))] == ["resumed", "extended"]
    assert [row[2].text for row in tables(run)["Events"].rows] == texts


def test_nothing_happened(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "a", [train_record(10)]))
    block = history_section(run, "history").blocks[0]
    assert isinstance(block, Text)
    assert block.text == "No fault, no resume, and nothing else to tell."


def test_unknown_events_of_later_versions_are_named(tmp_path: Path) -> None:
    records = [{"kind": "fault", "event": "meteor", "step": 3, "charged_seconds": 3.0}]
    run = read_run(write_run(tmp_path / "a", records))
    assert [event.text for event in list_events(run, Places(run))] == ["fault: meteor"]


def test_the_facts(tmp_path: Path) -> None:
    receipt: dict[str, Any] = usual_receipt()
    receipt["faults"] |= {"skipped": 4, "lr_factor": 0.5, "rollbacks": [{"step": 9}]}
    receipt["compile"] |= {"kind": "inductor", "cuda_graphs": True, "seconds": 12.0, "failed": {"head": "no"}}
    receipt["out_of_memory_halvings"] = 2
    assert facts(read_run(write_run(tmp_path / "a", receipt=receipt))) == {
        "faults": "4 updates left out, 1 rollback, 1 spike; the learning rate is 0.5 times its value",
        "compilation": "inductor with CUDA graphs, 12.0 s; not compiled: head",
        "CPU threads at the end": "2",
        "rows of a micro-batch": "32, halved 2 times",
    }


def test_a_rate_that_no_fault_has_lowered_is_not_told(tmp_path: Path) -> None:
    told = facts(read_run(write_run(tmp_path / "a")))
    assert told["faults"] == "0 updates left out, 0 rollbacks, 1 spike"


def test_processes_are_listed_where_there_were_several(tmp_path: Path) -> None:
    assert "Processes" not in tables(read_run(write_run(tmp_path / "a")))
    receipt = usual_receipt() | {"processes": [usual_process(), usual_process(20, threads=1)]}
    table = tables(read_run(write_run(tmp_path / "b", receipt=receipt)))["Processes"]
    assert [[cell.text for cell in row] for row in table.rows][1] == [
        "20",
        "100s",
        "A Processor",
        "1",
        "1",
        "bfloat16",
        "2.13.0",
        "0123456789ab",
    ]
    assert table.note == "Changed: threads 2 until update 20, then 1."


def test_checkpoints_are_listed_with_links(tmp_path: Path) -> None:
    (row,) = tables(read_run(write_run(tmp_path / "a", finished=False)))[""].rows
    assert (row[0].text, row[0].link) == ("90", "checkpoints/90/")
