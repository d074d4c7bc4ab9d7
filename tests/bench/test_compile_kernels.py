"""Every kernel meets the bars, for the oldest supported GPU and the main one, and machine code is read correctly."""

import json
import os
from functools import partial
from pathlib import Path

import pytest
import torch

from bench.compile_cases import CALLS, DTYPES, LauncherCall, meta
from bench.compile_kernels import MachineCode, compile_all, count_instructions, find_missed_bars, main, print_table
from bench.kernel_build import KernelBuild, KernelSource, record_calls, specialise
from cram.errors import CramError
from cram_kernels import _launch
from cram_kernels._launch import Launch, launch
from cram_kernels._settings import LaunchSettings
from cram_kernels._triton import HAS_TRITON

needs_triton = pytest.mark.skipif(
    not HAS_TRITON or os.environ.get("TRITON_INTERPRET") == "1", reason="needs Triton's compiler"
)


@needs_triton
@pytest.mark.parametrize(("arch", "dtype"), [(75, "fp16"), (90, "bf16")])
@pytest.mark.parametrize("op", CALLS)
def test_every_kernel_meets_the_bars_at_its_main_shape(op: str, arch: int, dtype: str) -> None:
    rows = record_calls((call for call in CALLS[op](dtype) if call.main), [arch])
    assert rows
    _, failures = print_table(rows, [arch], compile_all(rows, jobs=1))
    assert not failures


@needs_triton
def test_every_kernel_of_the_package_is_compiled() -> None:
    rows = record_calls((call for op in CALLS.values() for dtype in DTYPES for call in op(dtype)), [90])
    compiled = {row.source.kernel for row in rows}
    sources = (Path(_launch.__file__).parent).glob("*.py")
    defined = {
        line.removeprefix("def ").partition("(")[0]
        for path in sources
        for line in path.read_text().splitlines()
        if line.startswith("def _") and line.partition("(")[0].endswith("_kernel")
    }
    assert compiled == defined


@needs_triton
def test_a_launch_is_specialised_as_the_jit_does_it() -> None:
    jit = pytest.importorskip("triton.runtime.jit")
    backend = pytest.importorskip("triton.backends.compiler").BaseBackend
    if not hasattr(jit, "native_specialize_impl"):
        pytest.skip("this Triton specialises elsewhere")
    for row in record_calls((call for op in CALLS.values() for call in op("bf16")), [90]):
        given = dict(zip(row.launch.kernel.arg_names, row.launch.arguments, strict=False))
        constants, types = dict(row.source.constants), dict(row.source.signature)
        for name, value in given.items():
            kind, hint = jit.native_specialize_impl(backend, value, False, True, True)
            assert types[name] == kind
            assert (name in constants) == (kind == "constexpr")
            assert (name in row.source.aligned) == (kind != "constexpr" and "D" in (hint or ""))


@needs_triton
def test_rows_that_are_not_aligned_are_read_in_small_pieces() -> None:
    from cram_kernels._layer_norm_kernels import launch_layer_norm_forward

    # A width of 1000 is a multiple of 16 bytes, which the compiler knows of a width, but not of the stride of x.
    for width, missed in ((1000, ["narrow loads"]), (1001, ["narrow loads", "narrow stores"])):
        x = meta(64, width, dtype="fp16")
        call = LauncherCall("64", "fp16", partial(launch_layer_norm_forward, x, None, None, None, 1e-5))
        rows = record_calls([call], [75])
        code = next(compile_all(rows, jobs=1))[75]
        assert find_missed_bars(rows[0], 75, code) == missed
        assert code.wide_load_bytes == 0


DISASSEMBLY = """
        /*0070*/                   LDG.E.EF.128 R4, desc[UR4][R2.64] ;
        /*0080*/              @!P0 LDG.E.128.CONSTANT R8, [R2.64+0x10] ;
        /*0090*/                   LDG.E.U16 R9, [R2.64] ;
        /*00a0*/                   LDG.E.LTC128B R9, [R2.64] ;
        /*00b0*/                   LDG.E.ENL2.256 R16, R20, desc[UR4][R2.64] ;
        /*00c0*/                   LDGSTS.E.BYPASS.128 [R5], [R2.64] ;
        /*00d0*/                   STG.E.64 desc[UR4][R2.64], R4 ;
        /*00e0*/                   STG.E.128 [R2.64], R4 ;
        /*00f0*/                   STL.64 [R1], R4 ;
        /*0100*/                   LDL.LU R4, [R1] ;
        /*0110*/                   LDS.128 R4, [R1] ;
"""


def test_instructions_are_counted_by_their_width() -> None:
    assert count_instructions(DISASSEMBLY) == {
        "spills": 2,
        "load_bytes": 16 + 16 + 2 + 4 + 32 + 16,
        "wide_load_bytes": 16 + 16 + 32 + 16,
        "store_bytes": 24,
        "wide_store_bytes": 16,
    }


def test_each_bar_is_named_where_it_is_missed() -> None:
    call, settings = LauncherCall("2x8", "fp32", lambda: None), LaunchSettings(1, 8, 1)
    source = KernelSource("m", "_kernel", (), (), (), 1)
    row = KernelBuild(call, Launch(None, 1, (), {}, settings), source, [75, 90])
    good = {
        "registers": 32,
        "stack": 0,
        "shared": 64 << 10,
        "spills": 0,
        "load_bytes": 20,
        "wide_load_bytes": 16,
        "store_bytes": 16,
        "wide_store_bytes": 16,
    }
    assert not find_missed_bars(row, 75, MachineCode(**good))
    assert find_missed_bars(row, 75, MachineCode(**good | {"shared": (64 << 10) + 1})) == [
        "65537 bytes of shared memory"
    ]
    assert find_missed_bars(row, 90, MachineCode(**good | {"spills": 3})) == ["3 spills"]
    assert find_missed_bars(row, 90, MachineCode(**good | {"wide_load_bytes": 4})) == ["narrow loads"]
    assert find_missed_bars(row, 90, MachineCode(**good | {"wide_store_bytes": 4})) == ["narrow stores"]
    unaligned = KernelBuild(LauncherCall("2x9", "fp32", lambda: None, aligned=False), row.launch, source, [90])
    assert not find_missed_bars(unaligned, 90, MachineCode(**good | {"wide_store_bytes": 4}))


@needs_triton
def test_the_command_prints_and_writes_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "table.json"
    assert main(["archs=75,90", "ops=layer_norm", "dtypes=bf16", "shapes=main", "jobs=1", f"out={out}"]) == 0
    printed = capsys.readouterr().out
    assert "layer_norm_forward" in printed and "0 miss a bar" in printed
    kernels = json.loads(out.read_text())["kernels"]
    assert {kernel["kernel"] for kernel in kernels} == {"_layer_norm_forward_kernel", "_layer_norm_backward_kernel"}
    assert all("sm_75" not in kernel and kernel["sm_90"]["spills"] == 0 for kernel in kernels)


def test_unknown_word() -> None:
    with pytest.raises(CramError, match=r"unknown key 'arches' .* Nearest: archs"):
        main(["arches=90"])
    with pytest.raises(CramError, match=r"ops=layernorm is not one of layer_norm, .* Nearest: layer_norm"):
        main(["ops=layernorm"])


def test_recorded_launches_are_not_carried_out() -> None:
    with _launch.record_launches() as launches:
        launch(None, 3, torch.ones(1), settings=LaunchSettings(2, 4, 1), HEADS=3)
    assert launches[0].constants == {"HEADS": 3, "ROWS": 2, "BLOCK": 4}


@needs_triton
def test_one_and_none_become_constants() -> None:
    from cram_kernels._softmax_kernels import launch_softmax_forward

    x = meta(4, 1, dtype="fp16")
    (row,) = record_calls([LauncherCall("4x1", "fp16", lambda: launch_softmax_forward(x, 1.0, None))], [90])
    assert dict(row.source.constants)["width"] == 1
    assert dict(row.source.signature)["scale"] == "fp32"
    assert specialise(row.launch) == row.source
