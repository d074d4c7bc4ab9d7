"""The curves of runs: of one with its parts and events, of several with a colour each, thinned together."""

from pathlib import Path
from typing import Any

import pytest

from cram.reporting.page.blocks import Chart
from cram.reporting.reading.runs import RunData, read_run
from cram.reporting.sections.curves import CURVES, MOST_POINTS, constant_values, training_curves
from tests.cram.reporting.written_runs import held_out_record, train_record, usual_process, usual_receipt, write_run


def by_title(charts: list[Chart]) -> dict[str, Chart]:
    return {chart.title: chart for chart in charts}


@pytest.fixture
def run(tmp_path: Path) -> RunData:
    """Return a run whose every value changes."""
    records: list[dict[str, Any]] = [
        train_record(
            step,
            lr={"matrices": 0.02 - step / 1e4, "embeddings": 0.016 - step / 1e4},
            gradient_norm=2.0**step,
            mask_rate=0.3 - step / 1e3,
            weight_decay=1.0 - step / 100,
            temperature=float(step),
        )
        for step in range(1, 21)
    ]
    return read_run(write_run(tmp_path / "one", [*records, held_out_record(20, 4.0)]))


def test_the_losses_of_one_run(run: RunData) -> None:
    chart = training_curves([run])[0]
    train, held_out = chart.series
    assert (chart.title, chart.y_label) == ("Loss", "nats per predicted token")
    assert [axis.name for axis in chart.axes] == ["seconds", "tokens", "updates", "flops"]
    assert train.label == "training, at the mask rate of the moment"
    assert list(train.x["updates"]) == list(range(1, 21))
    assert (held_out.label, list(held_out.y), list(held_out.x["tokens"])) == ("held-out", [4.0], [81_920])
    assert [(level.label, level.y) for level in chart.levels] == [("unigram baseline", 6.7)]


def test_every_value_that_changes_has_a_chart(run: RunData) -> None:
    charts = by_title(training_curves([run]))
    assert [series.label for series in charts[CURVES["lr"].title].series] == ["matrices", "embeddings"]
    assert [series.color for series in charts[CURVES["lr"].title].series] == [0, 1]
    assert charts[CURVES["mask_rate"].title].series[0].y[0] == pytest.approx(29.9)
    assert charts["temperature"].series[0].y[-1] == 20.0
    assert charts[CURVES["gradient_norm"].title].log_y
    assert not charts[CURVES["lr"].title].log_y
    assert not {CURVES[name].title for name in ("batch_tokens", "mfu", "gpu_memory_bytes")} & set(charts)
    assert constant_values(run) == {"batch_tokens": 4096.0, "tokens_per_second": 4096.0}


def test_close_values_have_no_logarithmic_axis(tmp_path: Path) -> None:
    records = [train_record(step, gradient_norm=1.0 + step / 10) for step in (1, 2)]
    charts = by_title(training_curves([read_run(write_run(tmp_path / "a", records))]))
    assert not charts[CURVES["gradient_norm"].title].log_y


def test_a_learning_rate_of_earlier_versions_is_a_number(tmp_path: Path) -> None:
    records = [train_record(step, lr=step / 100) for step in (1, 2)]
    charts = by_title(training_curves([read_run(write_run(tmp_path / "a", records))]))
    assert [series.label for series in charts[CURVES["lr"].title].series] == ["learning rate"]


def test_a_loss_that_is_not_finite_is_a_gap(tmp_path: Path) -> None:
    records = [train_record(1), train_record(2, loss=None), train_record(3)]
    assert list(training_curves([read_run(write_run(tmp_path / "a", records))])[0].series[0].y)[1] is None


def test_events_are_marked(tmp_path: Path) -> None:
    receipt = usual_receipt() | {"processes": [usual_process(), usual_process(15)]}
    records = [
        train_record(10),
        {"kind": "fault", "event": "spike", "step": 12, "time": 0.0, "charged_seconds": 12.0, "loss": 9, "recent": 5.5},
        {"kind": "fault", "event": "rollback", "step": 14, "charged_seconds": 14.0, "to_step": 9, "lr_factor": 0.5},
        {"kind": "phase", "step": 18, "charged_seconds": 18.0},
        train_record(20),
    ]
    marks = training_curves([read_run(write_run(tmp_path / "a", records, receipt))])[0].marks
    assert [(mark.label, mark.tone, mark.x["updates"]) for mark in marks] == [
        ("spike", "bad", 12),
        ("rollback", "bad", 14),
        ("resumed", "note", 15),
        ("masks begin", "note", 18),
    ]
    assert marks[2].x["tokens"] == 15 * 4096


def test_the_records_of_resumes_count_before_the_receipt(tmp_path: Path) -> None:
    receipt = usual_receipt() | {"processes": [usual_process(), usual_process(15)]}
    records = [train_record(10), {"kind": "resume", "step": 11, "charged_seconds": 11.0}, train_record(20)]
    marks = training_curves([read_run(write_run(tmp_path / "a", records, receipt))])[0].marks
    assert [mark.x["updates"] for mark in marks] == [11]


def test_several_runs_have_a_colour_each(tmp_path: Path, run: RunData) -> None:
    other = read_run(write_run(tmp_path / "b" / "one", [train_record(1), train_record(2), held_out_record(2, 5.0)]))
    charts = by_title(training_curves([run, other], ["mine", "yours"], "tokens"))
    assert list(charts)[:3] == ["Held-out loss", "Training loss", "Held-out accuracy"]
    for title in ("Held-out loss", "Training loss"):
        assert [(series.label, series.color) for series in charts[title].series] == [("mine", 0), ("yours", 1)]
        assert charts[title].axes[0].name == "tokens"
    assert [series.label for series in charts[CURVES["lr"].title].series] == ["mine, matrices"]


def test_a_run_without_records_has_no_curves(tmp_path: Path) -> None:
    assert training_curves([read_run(write_run(tmp_path / "a", [], finished=False))]) == []


def test_thinned_curves_share_their_places_and_keep_every_extreme(tmp_path: Path) -> None:
    count = 6_000
    records = [train_record(step, gradient_norm=1.0 + step % 7 / 10) for step in range(1, count + 1)]
    records[5_003]["loss"], records[4_001]["loss"] = 99.0, -1.0
    records[777]["gradient_norm"] = 1000.0
    charts = by_title(training_curves([read_run(write_run(tmp_path / "a", records))]))
    loss, norm = charts["Loss"].series[0], charts[CURVES["gradient_norm"].title].series[0]
    assert len(loss.y) <= MOST_POINTS
    assert loss.x is norm.x
    assert (max(filter(None, loss.y)), min(filter(None, loss.y)), max(filter(None, norm.y))) == (99.0, -1.0, 1000.0)
    assert (loss.x["updates"][0], loss.x["updates"][-1]) == (1, count)
