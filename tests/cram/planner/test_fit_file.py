"""fit.json holds runs and fits, so that both can be drawn from it, and a damaged one is refused."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cram.errors import CramError
from cram.planner.curve_fit import BatchFit, PowerRegion
from cram.planner.fit import LawFit, LeftOut
from cram.planner.fit_file import KindFits, read_fits, write_fits
from cram.planner.loss_law import CONSTANTS
from cram.planner.runs import Evaluation
from tests.cram.planner.made_runs import KIND, make_run
from tests.cram.planner.test_loss_law import TRUE


def made_fits() -> KindFits:
    run = replace(make_run(), curve=(Evaluation(5e5, 6.0), Evaluation(1e6, 5.85)))
    interval = {"scale": (1e9, 3e9), "exponent": (0.1, 0.2)}
    constants, published = {"scale": 2e9, "exponent": 0.15}, {"scale": 8.8e13, "exponent": 0.076}
    law = LawFit("L(N)", "runs", constants, interval, published, 0.01, 3, LeftOut("run", 5.0, 5.1), ("A doubt.",))
    of_batch = {"least_updates": 10.0, "critical_batch": 9e3, "least_tokens": 9e4}
    around = {name: (0.9 * value, 1.1 * value) for name, value in of_batch.items()}
    batch = BatchFit(5.0, of_batch, around, (1e3, 4e3), (90.0, 30.0), 0.01, ())
    loss_law = replace(TRUE, intervals={name: (getattr(TRUE, name),) * 2 for name in CONSTANTS})
    return KindFits(
        KIND,
        [run],
        [law],
        [batch],
        PowerRegion(0.2, 1.0, (0.1, 0.3), 1e5, 1e6, 9),
        loss_law,
        LeftOut("run", 5.0, 5.2),
        {"L(D)": CramError("fit=: too few.")},
    )


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    fits = made_fits()
    write_fits(tmp_path, [fits])
    (found,) = read_fits(tmp_path / "fit.json")
    assert found.missing.keys() == fits.missing.keys() and str(found.missing["L(D)"]) == "fit=: too few."
    assert replace(found, missing={}) == replace(fits, missing={})
    assert found.runs[0].path == tmp_path / "run"


def test_what_was_not_finite_is_not_a_number_again(tmp_path: Path) -> None:
    fits = made_fits()
    fits.laws[0].constants["scale"] = math.inf
    write_fits(tmp_path, [replace(fits, curve=None, loss_law=None, left_out=None)])
    (found,) = read_fits(tmp_path / "fit.json")
    assert math.isnan(found.laws[0].constants["scale"])
    assert (found.curve, found.loss_law, found.left_out) == (None, None, None)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content.update(runs=["name"]),  # as earlier versions wrote them
        lambda content: content["runs"][0].update(nats="low"),
        lambda content: content["runs"][0].update(nats=10**400),
        lambda content: content["laws"][0].pop("intervals"),
        lambda content: content["laws"][0]["constants"].update(scale=True),
        lambda content: content["laws"][0]["published"].pop("exponent"),
        lambda content: content["laws"][0].update(law="L(N, D)"),
        lambda content: content["batches"][0]["constants"].pop("least_updates"),
        lambda content: content["loss_law"].update(intervals={}),
        lambda content: content.update(loss_law=0),
        lambda content: content["batches"][0].update(batches=3),
        lambda content: content.update(missing=[]),
        lambda content: content["kind"].pop("text"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, damage: Callable[[dict[str, Any]], None]) -> None:
    write_fits(tmp_path, [made_fits()])
    path = tmp_path / "fit.json"
    (content,) = json.loads(path.read_text())
    damage(content)
    path.write_text(json.dumps([content]))
    with pytest.raises(CramError, match=r"fit\.json: damaged, or written by another version\. Make it again with"):
        read_fits(path)
