"""`fit=DIR`: what is printed and written, and what is refused."""

import json
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import replace
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from cram.errors import CramError
from cram.planner import fit, fit_report, loss_law, regression
from cram.planner.curve_fit import BatchFit, PowerRegion
from cram.planner.fit_report import KindFits, describe_fits, print_fit
from cram.planner.loss_law import read_loss_law
from cram.planner.regression import Regression
from cram.planner.runs import FittedRun
from tests.cram.planner.made_runs import KIND, make_runs, write_run
from tests.cram.planner.test_loss_law import TRUE


def write_table(folder: Path, runs: list[FittedRun]) -> Path:
    for number, run in enumerate(runs):
        write_run(folder / f"run-{number}", run)
    return folder


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve runs by a known law, of two batch sizes, fitted; what was printed is in printed.txt."""
    sizes, tokens = (2e4, 2e5, 2e6), (2.5e5, 1e6, 2e6)
    runs = make_runs(TRUE.predict, sizes, tokens, noise=0.002)
    runs += make_runs(TRUE.predict, sizes, (2e6,), batches=(4096.0,), noise=0.002)
    folder, printed = write_table(tmp_path_factory.mktemp("fit"), runs), StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed):
        patch.setattr(regression, "STARTS", 3)
        for module in (fit, loss_law):
            patch.setattr(module, "fit_logarithm", partial(fit_with_few_resamples, module.fit_logarithm))
        assert print_fit(folder, folder / "law.json") == 0
    (folder / "printed.txt").write_text(printed.getvalue())
    return folder


def fit_with_few_resamples(call: Callable[..., Regression], *arguments: Any) -> Regression:
    """A fit with two bootstrap samples instead of 200."""
    return call(*arguments[:3], min(2, arguments[3]))


def test_the_fits_are_printed_beside_the_published_constants(table: Path) -> None:
    printed = (table / "printed.txt").read_text()
    assert "12 runs: decoder, causal, pydocs, vocabulary of 4,096" in printed
    for law, exponent in (("L(N)", "0.076"), ("L(D)", "0.095"), ("L(C)", "0.057")):
        (row,) = [line for line in printed.splitlines() if line.split()[:2] == [law, "exponent"]]
        assert row.split()[-1] == exponent
    assert "L(N): 3 runs of 2,000,000 tokens" in printed
    assert "of plans: 12 runs, residual" in printed
    assert "the critical batch: not fitted. 0 batch sizes of one model size" in printed
    assert f"{table}: fit.json, fit_decoder_causal.png" in printed


def test_the_fits_are_written_as_data_with_a_picture(table: Path) -> None:
    (kind,) = json.loads((table / "fit.json").read_text())
    assert [law["law"] for law in kind["laws"]] == ["L(N)", "L(D)", "L(N, D)", "L(C)"]
    assert kind["kind"]["text"] == "pydocs"
    assert kind["loss_law"]["critical_batch"] == pytest.approx(TRUE.critical_batch, rel=0.5)
    assert kind["left_out"]["predicted"] == pytest.approx(kind["left_out"]["observed"], rel=0.05)
    assert (table / "fit_decoder_causal.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_the_law_of_plans_is_written_where_it_is_asked_for(table: Path) -> None:
    law = read_loss_law(table / "law.json")
    assert (law.runs, law.kind) == (12, KIND)
    assert law.predict(1e5, 1e6, 2048) == pytest.approx(TRUE.predict(1e5, 1e6, 2048), rel=0.02)


def test_a_law_needs_runs_of_one_kind(tmp_path: Path) -> None:
    run = make_runs(TRUE.predict)[0]
    write_table(tmp_path, [run, replace(run, kind=replace(KIND, objective="masked"))])
    with pytest.raises(CramError, match=r"several kinds \(decoder, causal; decoder, masked\)\. Name a folder with one"):
        print_fit(tmp_path, tmp_path / "law.json")


def test_a_law_that_cannot_be_fitted_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit_report, "FITS", {"L(N)": partial(fit.fit_size, resamples=1)})
    write_table(tmp_path, make_runs(TRUE.predict, (2e4, 2e5, 2e6), (1e6,)))
    with pytest.raises(CramError, match="of 1 token counts, and the fit needs 2"):
        print_fit(tmp_path, tmp_path / "law.json")
    assert not (tmp_path / "law.json").exists()


def test_fewer_than_three_sizes_are_refused(tmp_path: Path) -> None:
    write_table(tmp_path, make_runs(TRUE.predict, (2e4, 2e5), (1e6, 2e6)))
    with pytest.raises(CramError, match=r"of 2 model sizes, and the fit needs 3\. Add runs to the table"):
        print_fit(tmp_path, None)
    assert not (tmp_path / "fit.json").exists()


def test_curves_and_batches_are_described() -> None:
    batch_fit = BatchFit(5.0, {}, {}, (), (), 0.01, ("The runs cannot tell the critical batch: why.",))
    fits = KindFits(KIND, [], batches=[batch_fit], curve=PowerRegion(0.2, 1.0, (0.1, 0.3), 1e5, 1e6, 9))
    fits.missing["L(N)"] = CramError("fit=: the runs are few.")
    assert describe_fits(fits) == [
        "at 5.00 nats: The runs cannot tell the critical batch: why.",
        "learning curve of the largest run: a power law of exponent 0.200 (0.100 to 0.300) from 100,000 to 1,000,000 "
        "tokens.",
        "L(N): not fitted. The runs are few.",
    ]


def test_all_laws_are_tried() -> None:
    assert list(fit_report.FITS) == ["L(N)", "L(D)", "L(N, D)", "L(C)"]
