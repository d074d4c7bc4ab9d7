import json
from pathlib import Path
from typing import Any

import pytest

from cram.errors import CramError
from cram.reporting.curves import plot_loss


def write_metrics(run: Path, seconds: float, bits: str = "bits_per_masked_byte") -> None:
    records = [{"kind": "train", "charged_seconds": seconds * n / 4, "loss": 9.0 - n} for n in (1, 2, 3, 4)]
    records.append({"kind": "held_out", "charged_seconds": seconds, "nats_per_token": 5.5, bits: 1.9})
    (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that are drawn during the test."""
    from matplotlib import pyplot

    drawn: list[Any] = []
    close = pyplot.close
    monkeypatch.setattr(pyplot, "close", lambda figure: (drawn.append(figure), close(figure)))
    return drawn


@pytest.mark.parametrize(("seconds", "scale", "unit"), [(60, 1, "s"), (600, 60, "min"), (86400, 3600, "h")])
def test_a_run_is_drawn_over_its_charged_time(
    tmp_path: Path, figures: list[Any], seconds: float, scale: float, unit: str
) -> None:
    write_metrics(tmp_path, seconds)
    path = plot_loss(tmp_path, unigram=7.0)
    assert path == tmp_path / "loss.png"
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    (axes,) = figures[0].axes
    train, held_out, baseline = axes.lines
    assert list(train.get_xdata()) == [seconds * n / 4 / scale for n in (1, 2, 3, 4)]
    assert list(train.get_ydata()) == [8.0, 7.0, 6.0, 5.0]
    assert (list(held_out.get_xdata()), list(held_out.get_ydata())) == ([seconds / scale], [5.5])
    assert list(baseline.get_ydata()) == [7.0, 7.0]
    assert axes.get_xlabel().endswith(f", {unit}")
    assert [text.get_text() for text in axes.get_legend().get_texts()][1:] == [
        "held-out (5.500)",
        "unigram baseline (7.000)",
    ]


def test_a_held_out_loss_that_is_not_finite_is_a_gap(tmp_path: Path, figures: list[Any]) -> None:
    records = [{"kind": "held_out", "charged_seconds": 1.0, "nats_per_token": None, "bits_per_byte": None}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    plot_loss(tmp_path, unigram=None)
    assert [text.get_text() for text in figures[0].axes[0].get_legend().get_texts()] == ["training", "held-out"]


@pytest.mark.parametrize(
    ("bits", "label"),
    [("bits_per_masked_byte", "training (mask rate of the moment)"), ("bits_per_byte", "training")],
)
def test_the_legend_names_the_mask_rate_of_a_masked_run(
    bits: str, label: str, tmp_path: Path, figures: list[Any]
) -> None:
    write_metrics(tmp_path, 60, bits)
    plot_loss(tmp_path, unigram=None)
    assert figures[0].axes[0].get_legend().get_texts()[0].get_text() == label


def test_faults_are_marked_and_a_window_without_a_loss_is_a_gap(tmp_path: Path, figures: list[Any]) -> None:
    write_metrics(tmp_path, 60)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        for second in (20.0, 40.0):
            file.write(json.dumps({"kind": "fault", "event": "spike", "charged_seconds": second}) + "\n")
        file.write(json.dumps({"kind": "phase", "progress": 0.5, "charged_seconds": 30.0}) + "\n")
        file.write(json.dumps({"kind": "train", "charged_seconds": 61.0, "loss": None}) + "\n")
    plot_loss(tmp_path, unigram=None)
    (axes,) = figures[0].axes
    assert [line.get_xdata()[0] for line in axes.lines[2:]] == [20.0, 40.0, 30.0]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels.count("a spike, or a rollback") == labels.count("masks begin") == 1


def test_a_run_without_records_or_baseline_is_drawn_too(tmp_path: Path, figures: list[Any]) -> None:
    (tmp_path / "metrics.jsonl").write_text("")
    assert plot_loss(tmp_path, unigram=None).stat().st_size > 0
    assert len(figures[0].axes[0].lines) == 2


@pytest.mark.parametrize("seconds", [None, "later"])
def test_metrics_without_their_time_are_refused(tmp_path: Path, seconds: str | None) -> None:
    line = json.dumps({"kind": "train", "loss": 3.0, "charged_seconds": seconds})
    (tmp_path / "metrics.jsonl").write_text(f"{line}\n{{}}\n" if seconds else f"{line}\n")
    with pytest.raises(CramError, match=r"metrics\.jsonl: damaged or edited, .*Remove the file\."):
        plot_loss(tmp_path, unigram=None)
    assert not (tmp_path / "loss.png").exists()
