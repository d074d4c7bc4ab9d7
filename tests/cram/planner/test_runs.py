"""Runs for fits are read from receipts; a folder that cannot be fitted is refused with what to do."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cram.errors import CramError
from cram.planner.runs import check_variety, group_by_value, read_runs
from tests.cram.planner.made_runs import make_run, write_run


def test_runs_are_read_as_they_were_written(tmp_path: Path) -> None:
    runs = [replace(make_run(0.8, tokens=2e6), name="a-seed0"), replace(make_run(0.9, batch=512.0), name="b-seed0")]
    for run in runs:
        write_run(tmp_path / run.name, run)
    (tmp_path / "results.json").write_text("{}")
    assert read_runs(tmp_path) == runs


def test_figures_of_a_run_are_derived() -> None:
    run = make_run(0.8, tokens=1e6, batch=500.0)
    assert run.relative_loss == pytest.approx(0.8)
    assert run.updates == 2000


def test_a_failed_run_is_left_out_with_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "good", make_run())
    write_run(tmp_path / "bad", make_run(), failed="the weights are not finite")
    assert [run.name for run in read_runs(tmp_path)] == ["good"]
    assert capsys.readouterr().out == f"{tmp_path / 'bad'}: left out, it failed: the weights are not finite\n"


def test_a_folder_of_failed_runs_only_is_refused(tmp_path: Path) -> None:
    write_run(tmp_path / "bad", make_run(), failed="the weights are not finite")
    with pytest.raises(CramError, match="no run has a usable model"):
        read_runs(tmp_path)


def test_unfinished_runs_are_named(tmp_path: Path) -> None:
    write_run(tmp_path / "good", make_run())
    for name in ("half", "other"):
        write_run(tmp_path / name, make_run(), finished=False)
    with pytest.raises(CramError, match=r"unfinished runs: half, other\. Repeat the cram.ablate command"):
        read_runs(tmp_path)


def test_a_folder_without_runs_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(CramError, match=r"there is no run\. Name the folder of a table"):
            read_runs(folder)


@given(st.lists(st.integers(1, 40), min_size=1, unique=True))
def test_values_within_five_percent_are_one_group(powers: list[int]) -> None:
    values = sorted(1.2**power for power in powers)
    runs = [make_run(parameters=value * factor) for value in values for factor in (1.02, 1)]
    groups = group_by_value(runs, lambda run: run.parameters)
    assert [value for value, _ in groups] == values
    assert [len(group) for _, group in groups] == [2] * len(values)


def test_too_few_sizes_are_refused_with_their_number() -> None:
    runs = [make_run(parameters=size) for size in (1e5, 1.02e5, 2e5)]
    check_variety(runs, sizes=2, token_counts=1, batches=1)
    with pytest.raises(CramError, match="of 2 model sizes, and the fit needs 3"):
        check_variety(runs, sizes=3, token_counts=1, batches=1)
