"""A run as JSON: exactly the described fields, for every state of a run, and nothing that JSON does not have."""

import json
from pathlib import Path
from typing import Any

import pytest

from cram.files.atomic import refuse_constant
from cram.files.sealed import write_sealed
from cram.reporting.page.blocks import Fold, Table
from cram.reporting.reading.runs import read_run
from cram.reporting.sections.run_json import FIELDS, MOST_POINTS, SCHEMA, describe_schema, run_document
from tests.cram.reporting.written_runs import train_record, usual_receipt, write_run

GROUPS = ("curves", "held_out")


def fields_of(document: dict[str, Any]) -> set[str]:
    return {*document, *(f"{group}.{name}" for group in GROUPS for name in document[group])}


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("records", [None, []])
def test_the_described_fields_are_those_of_the_document(
    tmp_path: Path, finished: bool, records: list[Any] | None
) -> None:
    document = run_document(read_run(write_run(tmp_path / "a", records=records, finished=finished)))
    assert fields_of(document) == set(FIELDS)


def test_the_page_describes_every_field() -> None:
    block = describe_schema()
    assert isinstance(block, Fold)
    (table,) = (inner for inner in block.blocks if isinstance(inner, Table))
    assert [row[0].text for row in table.rows] == list(FIELDS)
    assert FIELDS["schema"].endswith(f", {SCHEMA}")


def test_the_content(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "mine")
    write_sealed(folder / "glue.json", {"results": {"mean": 71.25}})
    document = run_document(read_run(folder))
    assert (document["name"], document["status"], document["schema"]) == ("mine", "finished", SCHEMA)
    assert document["recipe"]["optimizer"]["kind"] == read_run(folder).config.optimizer.kind
    assert document["receipt"] == usual_receipt()
    assert document["glue"] == {"mean": 71.25}
    assert document["curves"]["step"] == list(range(10, 101, 10))
    assert document["curves"]["lr"][0] == {"matrices": 0.02, "embeddings": 0.016}
    assert document["held_out"]["nats_per_token"] == [6.0, 5.0, 4.5]
    assert document["held_out"]["positions"] == [30 * 4096, 60 * 4096, 100 * 4096]
    assert document["events"] == [{"update": 50, "seconds": 50.0, "text": "spike: loss 7.000, 5.500 before"}]


def test_many_records_are_thinned(tmp_path: Path) -> None:
    records = [train_record(step) for step in range(1, 3001)]
    records[1234]["loss"] = None
    records[2345]["loss"] = 99.0
    document = run_document(read_run(write_run(tmp_path / "a", records=records)))
    assert len(document["curves"]["step"]) <= MOST_POINTS
    assert {99.0, None} <= set(document["curves"]["loss"])
    json.loads(json.dumps(document), parse_constant=refuse_constant)
