"""Some cases of `proofs.ptx`, and all of its faults; `python -m proofs.ptx` runs every case for every GPU."""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch

from cram_kernels._layer_norm_kernels import launch_layer_norm_forward
from cram_kernels._triton import HAS_TRITON

if not HAS_TRITON or os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("needs Triton's compiler", allow_module_level=True)

from cram.errors import CramError
from cram_kernels._launch import Launch
from cram_kernels._settings import Target
from proofs.ptx.__main__ import main
from proofs.ptx.campaign import TABLES, list_cases, run_case, run_on_cpu
from proofs.ptx.cases import DTYPES, Case, Check, draw
from proofs.ptx.errors import PtxError
from proofs.ptx.mutants import Mutant, find_fault, list_mutants, run_far_rows
from proofs.ptx.parser import parse
from proofs.ptx.row_cases import check_layer_norm
from proofs.ptx.run import Code, run_code, run_launch
from proofs.ptx.text_checks import check_text

# Each dtype for other GPUs, so that all generations of code are run here.
ARCHS_OF = {"fp16": [75], "bf16": [80, 90], "fp32": [120]}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", TABLES)
def test_kernels_as_compiled_agree_with_float64(op: str, dtype: str) -> None:
    cases = list_cases([op], [dtype], quick=True)
    assert cases
    outcomes = [outcome for case in cases for outcome in run_case(case, ARCHS_OF[dtype])]
    assert [(outcome.name, outcome.problem) for outcome in outcomes if outcome.problem] == []
    assert sum(outcome.same_as is None for outcome in outcomes) >= len(cases)


@pytest.mark.parametrize("mutant", list_mutants(), ids=lambda mutant: mutant.name)
def test_faults_are_found(mutant: Mutant) -> None:
    assert re.search(mutant.found_by, find_fault(mutant))


@pytest.mark.parametrize("name", ["no barrier before a store in place", "stores that truncate"])
def test_running_finds_what_the_text_checks_find(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proofs.ptx.campaign.check_text", lambda program: None)
    (mutant,) = (mutant for mutant in list_mutants() if mutant.name == name)
    assert re.search("nothing orders|off by", find_fault(mutant))


def test_row_numbers_of_32_bits_are_found() -> None:
    assert run_far_rows(make_narrow=False) == ""
    assert "belongs to no tensor" in run_far_rows(make_narrow=True)


def test_code_that_is_the_same_for_two_gpus_is_run_once() -> None:
    calls = []

    def call() -> Iterable[Check]:
        checks = list(check_layer_norm("fp16", 100, ""))
        calls.append(checks)
        return checks

    first, second = run_case(Case("layer_norm_forward", "5x100", "fp16", call), [90, 90])
    assert (first.same_as, second.same_as, len(calls)) == (None, None, 2)  # the same GPU twice is not another GPU
    outcomes = run_case(Case("layer_norm_forward", "5x100", "fp16", call), [75, 80, 90, 120])
    assert [outcome.arch for outcome in outcomes] == [75, 80, 90, 120]
    assert len(calls) == 2 + sum(outcome.same_as is None for outcome in outcomes)


def test_an_element_that_is_not_written_is_found() -> None:
    def drop_a_store(launch: Launch) -> None:
        code = run_launch(launch, 90)
        stores = list(re.finditer(r"@%p\d+ st\.global\.\w+\.b32[^;]*;", code.ptx))
        without = code.ptx[: stores[-1].start()] + code.ptx[stores[-1].end() :]
        run_code(launch, Code(without, code.shared))

    with run_on_cpu(drop_a_store, Target(90, 1)), pytest.raises(PtxError, match=r"\d+ of 3840 elements of y_ptr were"):
        launch_layer_norm_forward(draw(5, 768), None, None, None, 1e-5)


def test_deviations() -> None:
    def deviation(got: list[float], expected: list[float], scale: float | None = None) -> float:
        return Check("x", torch.tensor(got), torch.tensor(expected).double(), 1e-6, scale).deviation

    nan, inf = float("nan"), float("inf")
    assert deviation([1.0, 2.5], [1.0, 2.0]) == 0.25
    assert deviation([1.0, 2.5], [1.0, 2.0], scale=1.0) == 0.5
    assert deviation([0.5], [0.0]) == 0.5
    assert deviation([nan, inf, 1.0], [nan, inf, 1.0]) == 0.0
    assert deviation([nan, nan], [nan, inf]) == inf
    assert deviation([inf], [-inf]) == inf
    assert deviation([nan, 1.0], [1.0, 1.0]) == inf
    assert deviation([1.0], [1.0, 1.0]) == inf


def test_text_checks(ptx: Any) -> None:
    addresses = "ld.param.b64 %rd9, [kernel_param_0]; add.s64 %rd1, %rd9, 8; ld.param.b64 %rd2, [kernel_param_1];"
    load, store, barrier = "ld.global.b16 %rs1, [%rd1];", "st.global.b16 [%rd1], %rs1;", "bar.sync 0;"
    elsewhere = "ld.global.b64 %rd3, [%rd2];", "st.global.b32 [%rd2], %r1;"
    for body, is_right in {
        load + barrier + store: True,
        load + elsewhere[1] + barrier + store: True,
        load + store + barrier: False,
        barrier + load + store: False,
        elsewhere[0] + barrier + load + store: False,
        load + "bar.warp.sync -1;" + store: False,
    }.items():
        text = ptx.text(addresses + body, 2, 64).replace(".entry kernel", ".entry _linear_cross_entropy_kernel")
        if is_right:
            check_text(parse(text))
        else:
            with pytest.raises(PtxError, match="no barrier stands"):
                check_text(parse(text))
    check_text(parse(text.replace(".reqntid 64", ".reqntid 32")))  # a single warp needs no more than its own barrier
    check_text(parse(ptx.text("cvt.rn.bf16.f32 %rs1, %r1;", 1, 32)))
    with pytest.raises(PtxError, match="does not round to the nearest"):
        check_text(parse(ptx.text("cvt.rz.bf16x2.f32 %r1, %r1, %r2;", 1, 32)))


def test_the_command_prints_a_table_and_writes_outcomes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "outcomes.json"
    words = ["ops=rope", "archs=90,120", "dtypes=fp32", "quick=true", "jobs=1", "mutants=false", f"to={file}"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert re.search(r"rope +fp32 \| +\d\+\d +\S+ \|", printed) and "0 failed" in printed
    assert '"kernel": "rope"' in file.read_text()
    with pytest.raises(CramError, match="archs=91 is not one of 75, 80, 90, 120"):
        main(["archs=91"])
