"""The places of records on the axes: written, interpolated, or absent."""

from pathlib import Path
from typing import Any

from cram.reporting.reading.runs import read_run
from cram.reporting.sections.axes import Places, shared_axes
from tests.cram.reporting.written_runs import held_out_record, train_record, usual_receipt, write_run


def places_of(folder: Path, records: list[dict[str, Any]], **arguments: Any) -> Places:
    return Places(read_run(write_run(folder, records, **arguments)))


def without(record: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in names}


def test_every_axis_of_a_record(tmp_path: Path) -> None:
    places = places_of(tmp_path / "a", [train_record(10), train_record(20)])
    assert places.names == ["seconds", "tokens", "updates", "flops"]
    assert list(places.train["tokens"]) == [40_960, 81_920]
    assert places.of(held_out_record(15, 5.0)) == {"seconds": 15, "tokens": 61_440, "updates": 15, "flops": 61_440e6}


def test_places_of_earlier_versions_are_interpolated(tmp_path: Path) -> None:
    """Their records of held-out text had no positions, and no record had operations."""
    records = [without(train_record(step), "flops") for step in (10, 20)]
    places = places_of(tmp_path / "a", records)
    early, inner, late = (without(held_out_record(step, 5.0), "positions", "flops") for step in (5, 15, 30))
    assert places.of(inner) == {"seconds": 15, "tokens": 61_440, "updates": 15, "flops": 61_440e6}
    assert places.of(early)["tokens"] == 20_480
    assert places.of(late)["tokens"] == 81_920
    assert places.at_update(0) == {"seconds": 0, "tokens": 0, "updates": 0, "flops": 0}


def test_an_axis_that_a_run_does_not_have(tmp_path: Path) -> None:
    records = [without(train_record(10), "flops"), train_record(20)]
    receipt = usual_receipt() | {"model": {"kind": "encoder"}}
    assert places_of(tmp_path / "a", records, receipt=receipt).names == ["seconds", "tokens", "updates"]
    assert places_of(tmp_path / "b", [held_out_record(3, 5.0)]).names == ["seconds", "updates"]


def test_a_place_never_goes_back(tmp_path: Path) -> None:
    records = [train_record(10), train_record(20, charged_seconds=9.0), train_record(30)]
    assert list(places_of(tmp_path / "a", records).train["seconds"]) == [10, 10, 30]


def test_axes_that_runs_share(tmp_path: Path) -> None:
    whole = places_of(tmp_path / "a", [train_record(10)])
    bare = places_of(tmp_path / "b", [held_out_record(3, 5.0)])
    assert [axis.name for axis in shared_axes([whole, bare])] == ["seconds", "updates"]
    assert [axis.name for axis in shared_axes([whole], "tokens")] == ["tokens", "seconds", "updates", "flops"]
