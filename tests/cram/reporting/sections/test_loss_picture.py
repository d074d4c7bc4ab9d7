"""The picture of a run's loss, in its folder and on the card of its export."""

from dataclasses import replace
from pathlib import Path

from cram.reporting.reading.runs import read_run
from cram.reporting.sections.loss_picture import draw_loss, plot_loss
from tests.cram.reporting.written_runs import held_out_record, write_run


def test_a_run_has_its_picture_in_its_folder(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "one"))
    assert plot_loss(run) == tmp_path / "one" / "loss.png"
    assert (tmp_path / "one" / "loss.png").read_bytes() == draw_loss(run, "one")


def test_a_held_out_loss_alone_is_drawn(tmp_path: Path) -> None:
    assert draw_loss(read_run(write_run(tmp_path / "one", [held_out_record(1, 5.0)])), "one")


def test_a_run_without_a_loss_has_no_picture(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "one", []))
    assert draw_loss(run, "one") is None
    assert draw_loss(replace(run, records=[held_out_record(1, 5.0, nats_per_token=None)]), "one") is None
    assert not plot_loss(run).exists()
