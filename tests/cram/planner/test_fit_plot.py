"""The picture of fits shows the runs and the fitted lines."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cram.planner.curve_fit import BatchFit
from cram.planner.fit import LawFit
from cram.planner.fit_plot import plot_fits
from cram.planner.laws import PowerLaw, SizeDataLaw
from tests.cram.planner.made_runs import KIND, UNIGRAM, make_runs

JOINT = SizeDataLaw(2e8, 0.12, 3e7, 0.25)


def as_fit(law: str, constants: dict[str, float]) -> LawFit:
    return LawFit(law, "", constants, {}, constants, 0.0, 0, None, ())


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that are drawn during the test."""
    from matplotlib import pyplot

    drawn: list[Any] = []
    close = pyplot.close
    monkeypatch.setattr(pyplot, "close", lambda figure: (drawn.append(figure), close(figure)))
    return drawn


def test_runs_and_lines_are_drawn(tmp_path: Path, figures: list[Any]) -> None:
    runs = make_runs(lambda size, tokens, _: JOINT.loss(size, tokens) / UNIGRAM, (2e4, 2e5, 2e6), (2.5e5, 1e6))
    other_batch = replace(runs[0], batch=9e9, nats=1.0)
    laws = [
        as_fit("L(N)", PowerLaw(5e9, 0.09).__dict__),
        as_fit("L(N, D)", JOINT.__dict__),
    ]
    batches = BatchFit(
        5.0, {"least_updates": 100.0, "critical_batch": 500.0}, {}, (250.0, 1000.0), (300.0, 150.0), 0, ()
    )
    path = plot_fits(tmp_path, [*runs, other_batch], laws, [batches])
    assert path == tmp_path / "fit_decoder_causal.png"
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    sizes, tokens, compute, updates = figures[0].axes
    dots = [line for line in sizes.lines if line.get_marker() == "o"]
    assert sorted(value for line in dots for value in line.get_ydata()) == sorted(run.nats for run in runs)
    assert [text.get_text() for text in sizes.get_legend().get_texts()] == [
        "250,000 tokens",
        "1,000,000 tokens",
        "L(N), exponent 0.090",
    ]
    curves = [line for line in tokens.lines if line.get_marker() != "o"]
    assert [list(line.get_ydata()) for line in curves] == [
        pytest.approx([JOINT.loss(size, count) for count in curves[0].get_xdata()]) for size in (2e4, 2e5, 2e6)
    ]
    assert compute.get_legend().get_texts()[-1].get_text() == "published exponent 0.057"
    hyperbola = updates.lines[1]
    assert list(hyperbola.get_ydata()) == pytest.approx([100 * (1 + 500 / batch) for batch in hyperbola.get_xdata()])


def test_the_name_of_a_picture_holds_the_objective(tmp_path: Path) -> None:
    kind = replace(KIND, model="encoder", objective="causal for the first 30%, then masked")
    runs = [replace(run, kind=kind) for run in make_runs(lambda *_: 0.8, (2e4,), (1e6, 2e6))]
    assert plot_fits(tmp_path, runs, []).name == "fit_encoder_causal_for_the_first_30_then_masked.png"
