"""Scaling laws stand beside the published ones, and one epoch beside several, drawn from their files alone."""

from dataclasses import replace

import pytest

from cram.errors import CramError
from cram.planner.repeated_data import find_speedups, find_windows
from cram.planner.repeated_data_report import RepeatedData
from cram.planner.runs import Evaluation
from cram.reporting.page.blocks import Block, Fold, Picture, Side, Table
from cram.reporting.sections.scaling import scaling_sections
from tests.cram.planner.made_runs import make_runs
from tests.cram.planner.test_fit_file import made_fits
from tests.cram.planner.test_loss_law import TRUE
from tests.cram.planner.test_repeated_data import curve, epoch_run


def pictures(blocks: list[Block]) -> list[Picture]:
    sides = [block for block in blocks if isinstance(block, Side)]
    return [picture for side in sides for picture in side.blocks if isinstance(picture, Picture)]


def tables(blocks: list[Block]) -> dict[str, Table]:
    return {block.title: block for block in blocks if isinstance(block, Table)}


def test_laws_are_drawn_and_stand_beside_the_published_ones() -> None:
    fits = replace(made_fits(), runs=make_runs(TRUE.predict, (2e4, 2e5), (2.5e5, 1e6)))
    (section,) = scaling_sections([fits], None)
    blocks = list(section.blocks)
    assert section.title == "Scaling laws"
    assert [picture.title for picture in pictures(blocks)] == [
        "Held-out loss over the size of the model",
        "Held-out loss over the tokens of the data",
        "Held-out loss over compute",
        "Updates to a loss over the size of an update",
    ]
    assert "L(N), exponent 0.150" in pictures(blocks)[0].svg and "var(--series-1)" in pictures(blocks)[0].svg
    constants = [[cell.text for cell in row] for row in tables(blocks)["Fitted constants"].rows]
    assert ["L(N)", "exponent", "0.15", "0.1 to 0.2", "0.076"] in constants
    remarks = [[cell.text for cell in row] for row in tables(blocks)["How far the fits hold"].rows]
    assert ["L(N)", "A doubt."] in remarks and ["L(D)", "Not fitted. Too few."] in remarks
    (fold,) = [block for block in blocks if isinstance(block, Fold)]
    assert isinstance(fold.blocks[0], Table) and len(fold.blocks[0].rows) == 4


def test_several_kinds_of_runs_have_a_section_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cram.reporting.sections.scaling.draw_svg", lambda name, *_: name)
    fits = replace(made_fits(), batches=[], missing={"L(D)": CramError("fit=: few.")})
    other = replace(fits, kind=replace(fits.kind, objective="masked"))
    sections = scaling_sections([fits, other], None)
    assert [(section.name, section.title) for section in sections] == [
        ("scaling-0", "Scaling laws: decoder, causal"),
        ("scaling-1", "Scaling laws: decoder, masked"),
    ]
    names = [picture.svg for section in sections for picture in pictures(list(section.blocks))]
    assert len(set(names)) == 6


def test_runs_that_allow_no_fit_have_the_reasons_alone() -> None:
    fits = replace(made_fits(), laws=[], batches=[], curve=None, loss_law=None, left_out=None)
    blocks = list(scaling_sections([fits], None)[0].blocks)
    assert pictures(blocks) == [] and list(tables(blocks)) == ["How far the fits hold"]


def test_impossible_numbers_are_refused() -> None:
    fits = made_fits()
    with pytest.raises(CramError, match=r"fit\.json or one_epoch\.json: damaged, it holds an impossible number"):
        scaling_sections([replace(fits, runs=[replace(fits.runs[0], parameters=0.0)])], None)


def test_one_epoch_is_compared_with_several() -> None:
    runs = [
        epoch_run(curve(0.1)),
        epoch_run(curve(0.055), epochs=10.0),
        epoch_run(curve(0.9), epochs=5.0, dropout=0.1),
        epoch_run((Evaluation(1e5, 5.0), *curve(0.05)[1:]), size=900_000),
    ]
    found = RepeatedData(runs, find_speedups(runs), find_windows(runs), {"S": None})
    (section,) = scaling_sections([], found)
    blocks = list(section.blocks)
    assert [picture.title for picture in pictures(blocks)] == [
        "Held-out loss over tokens, 300,000 parameters",
        "Held-out loss over tokens, 900,000 parameters",
    ]
    assert ">M10</text>" in pictures(blocks)[0].svg
    speedups = tables(blocks)["How much faster one epoch is than several"]
    assert [(row[1].text, row[6].text, row[8].text) for row in speedups.rows] == [
        ("5", "–", "1.5 to 2.6"),
        ("10", "3.48", "1.9 to 3.3"),
    ]
    assert len(tables(blocks)["For which tokens each size is the best"].rows) == 2
