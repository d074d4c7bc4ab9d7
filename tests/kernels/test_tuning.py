"""`bench.tune_kernels` with a fake timer: it reaches every kernel, and writes the file that the kernels read."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import kernel_cases, tune_calls, tune_kernels, tune_search
from bench.kernel_cases import KernelCase
from bench.kernel_timing import Call, Timing
from bench.tune_calls import CaseCalls
from bench.tune_kernels import TuneConfig, main, tune
from cram_kernels._launch import launch_counts, record_launches
from cram_kernels._settings import LaunchSettings, Target, choose_by, choose_settings, stand_in_for
from cram_kernels._tuned import MOST_BLOCKS, VARIABLE, Choice, Tuned, read_settings_file

CASES = [
    KernelCase("layer_norm+residual", 9, 24, "fp32"),
    KernelCase("layer_norm", 9, 24, "fp32"),
    KernelCase("softmax", 9, 24, "fp32"),
    KernelCase("cross_entropy", 7, 40, "fp32"),
    KernelCase("linear_cross_entropy", 7, 40, "fp32", 16),
    KernelCase("geglu", 5, 16, "fp32"),
    KernelCase("swiglu", 5, 16, "fp32"),
    KernelCase("rope", 4, 12 * 8, "fp32"),
]
WIDE_ROPE = KernelCase("rope", 4, 12 * 32, "fp32")
FEW = [case for case in CASES if case.op in ("layer_norm", "geglu")]

Run = Callable[..., tuple[list[str], dict[str, Any]]]


@pytest.fixture(autouse=True)
def kernels_run(backend: str) -> None:
    """Skip where the reference computes, which has no launch settings."""
    if backend == "reference":
        pytest.skip("the reference has no launch settings")


@pytest.fixture(autouse=True)
def short_search(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let a search end after one move and one turn, and forget the files that were read."""
    monkeypatch.setattr(tune_search, "MOST_MOVES", 1)
    monkeypatch.setattr(tune_search, "TURNS", 1)
    yield
    read_settings_file.cache_clear()


def fewest_rows(call: Call, sets: int, device: torch.device, seconds: float) -> Timing:
    """Time a call as if its time were the rows of a program."""
    with record_launches() as launches:
        call(0)
    time = float(launches[0].settings.rows)
    return Timing(time, 0.9 * time, 1.1 * time, "fake")


@pytest.fixture
def run(tmp_path: Path, device: torch.device) -> Run:
    """A function that tunes cases, and returns what was wrong and the content of the file."""

    def tune_cases(
        cases: list[KernelCase], timer: Any = fewest_rows, **values: Any
    ) -> tuple[list[str], dict[str, Any]]:
        path = tmp_path / "file.json"
        wrong = tune(cases, device, TuneConfig(out=str(path), **values), timer)
        return wrong, json.loads(path.read_text())

    return tune_cases


def test_every_kernel_is_tuned_once_over_all_calls_that_reach_it(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(kernel_cases, "SEQ_LEN", 4)  # the interpreter takes long for rope's 128 tokens
    monkeypatch.setattr(
        tune_search, "list_neighbours", lambda choice, settings, rule: [replace(settings, rows=settings.rows // 2)]
    )
    wrong, content = run(CASES)
    assert not wrong
    listed = content["entries"] + content["unchanged"]
    assert {one["kernel"] for one in listed} == set(MOST_BLOCKS)
    assert len(listed) == len(MOST_BLOCKS)
    for entry in content["entries"]:
        assert 2 * entry["rows"] == entry["rule"]["rows"]
        assert entry["microseconds"] < entry["rule_microseconds"]
    printed = capsys.readouterr().out
    assert (
        "layer_norm_forward 24 fp32, in layer_norm+residual 9x24 fp32 forward, layer_norm 9x24 fp32 forward" in printed
    )
    assert "gated_backward 16 fp32, in geglu 5x16 fp32 backward, swiglu 5x16 fp32 backward" in printed
    assert "of the rule's time" in printed


def test_the_kernels_take_the_file(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, content = run(FEW)
    rule = LaunchSettings(**content["entries"][0]["rule"])
    path = tmp_path / "as of an H100.json"
    path.write_text(json.dumps(content | {"capability": 90}))
    monkeypatch.setenv(VARIABLE, str(path))
    cpu = torch.device("cpu")
    with stand_in_for(Target(90, 132)):
        settings = choose_settings("layer_norm_forward", 9, 24, torch.float32, cpu)
    assert settings.rows == rule.rows // 2
    assert read_settings_file(str(path)).entries[Choice("layer_norm_forward", 24, "fp32")] == Tuned(
        settings.rows, settings.block, settings.warps, settings.stages
    )


def test_the_same_command_goes_on_where_it_was(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    _, first = run(FEW[:1])
    _, second = run(FEW)
    assert second["entries"][: len(first["entries"])] == first["entries"]
    assert f"goes on, {len(first['entries'] + first['unchanged'])} are done" in capsys.readouterr().out
    begun = launch_counts.total()
    _, third = run(FEW, limit=1e-9)
    assert third == second
    assert launch_counts.total() - begun < 10  # nothing but looking for what there is to tune


def test_the_limit_ends_the_search_and_the_rest_is_done_later(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    clock = iter([0.0, 1.0, *[99.0] * 1000])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tune_kernels.time, "monotonic", lambda: next(clock))
        _, content = run(FEW, limit=50.0)
    assert len(content["entries"] + content["unchanged"]) == 1
    assert "50 s are over; the same command goes on with layer_norm_backward 24 fp32" in capsys.readouterr().out
    _, content = run(FEW)
    assert len(content["entries"] + content["unchanged"]) == 4


def test_wrong_results_are_reported_and_not_kept(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With too narrow a block, rope forgets the rest of a head."""
    monkeypatch.setattr(kernel_cases, "SEQ_LEN", 4)
    monkeypatch.setitem(MOST_BLOCKS, "rope", None)
    wrong, content = run([WIDE_ROPE])
    assert wrong == ["rope 16 fp32 4x8 1w 1s"]
    assert "WRONG" in capsys.readouterr().out
    assert all(entry["block"] == 16 for entry in content["entries"])


def test_settings_that_cannot_be_launched_are_passed_over(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    rules: dict[str, LaunchSettings] = {}

    def timer(call: Call, sets: int, device: torch.device, seconds: float) -> Timing:
        with record_launches() as launches:
            call(0)
        kernel, settings = launches[0].kernel.__name__, launches[0].settings
        if settings != rules.setdefault(kernel, settings):
            raise RuntimeError("out of resource: shared memory\nand more")
        return Timing(1.0, 0.9, 1.1, "fake")

    _, content = run(FEW[:1], timer)
    assert not content["entries"] and len(content["unchanged"]) == 2
    assert "RuntimeError: out of resource: shared memory\n" in capsys.readouterr().out


def test_rules_that_cannot_be_launched_are_named(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(case: KernelCase, device: torch.device) -> CaseCalls:
        if case.op == "layer_norm":
            raise RuntimeError("out of resource")
        return CaseCalls(case, device)

    monkeypatch.setattr(tune_kernels, "CaseCalls", broken)
    _, content = run(FEW)
    assert {one["kernel"] for one in content["entries"] + content["unchanged"]} == {"gated_forward", "gated_backward"}
    assert "layer_norm 9x24 fp32: RuntimeError: out of resource" in capsys.readouterr().out


def test_linear_cross_entropy_is_timed_without_its_matrix_products(device: torch.device) -> None:
    case = next(case for case in CASES if case.op == "linear_cross_entropy")
    counted = []

    def timer(call: Call, sets: int, device: torch.device, seconds: float) -> Timing:
        before = launch_counts.total()
        with torch.profiler.profile() as profiled:
            call(0)
        counted.append(launch_counts.total() - before)
        assert not any("mm" in event.name for event in profiled.events())
        return Timing(1.0, 1.0, 1.0, "fake")

    CaseCalls(case, device).time("both", timer, 0.01)
    assert counted == [1]


def test_the_settings_of_a_candidate_are_those_that_are_checked(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel_cases, "SEQ_LEN", 4)
    calls = CaseCalls(WIDE_ROPE, device)
    assert calls.is_right()
    with choose_by(lambda choice, rule: LaunchSettings(4, 8, 1)):
        assert not calls.is_right()


def test_the_command_in_a_dry_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tune_calls, "CHECKED_ELEMENTS", 64)
    assert main(["dry_run=true", f"out={tmp_path / 'file.json'}"], fewest_rows) == 0
    assert len(read_settings_file(str(tmp_path / "file.json")).entries) == 2
    monkeypatch.setattr(CaseCalls, "is_right", lambda self: False)
    (tmp_path / "file.json").unlink()
    assert main(["dry_run=true", f"out={tmp_path / 'file.json'}"], fewest_rows) == 1
    assert "WRONG: softmax_forward 24 fp32 16x32 1w 1s" in capsys.readouterr().out
