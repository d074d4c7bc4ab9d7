"""Launches are counted as the shapes say: bytes of every tensor, programs that differ, and what is assumed of a GPU."""

import os
from dataclasses import replace

import pytest
import torch

from bench.compile_cases import meta
from bench.count_bars import find_missed_bars
from bench.count_cases import least_bytes, list_cases
from bench.count_ops import OpCount, count_ours
from bench.kernel_cases import KernelCase
from bench.kernel_count import CompiledLaunch, describe_tensor, place_arguments
from bench.sass.memory import UNKNOWN_ADDRESS, GlobalMemory
from cram_kernels._triton import HAS_TRITON

needs_triton = pytest.mark.skipif(
    not HAS_TRITON or os.environ.get("TRITON_INTERPRET") == "1", reason="needs Triton's compiler"
)


def count(case: KernelCase, direction: str, arch: int = 90) -> OpCount:
    """Count our launches; there are some."""
    op = count_ours(case, direction, arch)
    assert op is not None
    return op


@needs_triton
@pytest.mark.parametrize("arch", [80, 90, 120])
def test_the_bytes_of_a_forward_pass_are_those_of_its_tensors(arch: int) -> None:
    rows, width = 1030, 768  # the last program has fewer rows than the others
    (launch,) = count(KernelCase("layer_norm+residual", rows, width), "forward", arch).launches
    matrix = 2 * rows * width
    loads = sorted(first for first, _ in launch.count.loads.values())
    stores = sorted(first for first, _ in launch.count.stores.values())
    assert loads == [4 * width, matrix, matrix]  # weight, x, residual
    assert stores == [4 * rows, 4 * rows, matrix, matrix]  # mean, rstd, sum, y
    assert launch.count.spills == launch.count.unknown == 0
    assert launch.count.wide_share == 1


@needs_triton
def test_programs_without_rows_move_nothing() -> None:
    (launch,) = count(KernelCase("layer_norm", 700, 256), "backward").launches
    assert 2 * 700 * 256 * 3 < launch.count.first_bytes < 2 * 700 * 256 * 3 + 2**21
    rows = 2 * 700 * 256
    assert sorted(first for first, _ in launch.count.loads.values())[-2:] == [rows, rows]


@needs_triton
def test_programs_that_take_different_tensors_are_all_counted() -> None:
    (launch,) = count(KernelCase("rope", 1024, 768), "forward").launches
    matrix, angles = 2 * 1024 * 768, 4 * 1024 * 32
    assert sorted(first for first, _ in launch.count.loads.values()) == [angles, angles, matrix, matrix]
    assert sorted(first for first, _ in launch.count.stores.values()) == [matrix, matrix]


@needs_triton
def test_a_vocabulary_with_a_last_part_is_counted_to_the_element() -> None:
    case = KernelCase("cross_entropy", 16, 5008)
    (launch,) = count(case, "forward").launches
    assert max(first for first, _ in launch.count.loads.values()) == 2 * 16 * 5008


@needs_triton
def test_constants_that_the_compiler_puts_into_the_cubin_are_read() -> None:
    (launch,) = count(KernelCase("cross_entropy", 16, 32_768), "backward", 80).launches
    assert not launch.count.guesses
    assert max(first for first, _ in launch.count.loads.values()) == 2 * 16 * 32_768


def test_a_tensor_reaches_to_the_end_of_its_memory() -> None:
    chunk = describe_tensor("x", meta(4, 16, dtype="bf16")[:, :10])
    assert (chunk.span_bytes, chunk.elements_bytes, chunk.itemsize) == (128, 80, 2)
    assert describe_tensor("x", meta(1).expand(7)).elements_bytes == 4
    assert describe_tensor("x", torch.empty(3, dtype=torch.int64, device="meta")).integers


def test_arguments_lie_where_the_gpu_looks_for_them() -> None:
    arguments = (("*fp32", meta(2)), ("i32", -1), ("i64", 5), ("fp32", 1.0))
    launch = CompiledLaunch("kernel", b"", 0, 4, (2, 3, 1), arguments)
    parameters, tensors = place_arguments(launch, 90)
    assert [parameter.offset for parameter in parameters] == [0x210, 0x218, 0x220, 0x228]
    assert [parameter.value & 2**32 - 1 for parameter in parameters[1:]] == [2**32 - 1, 5, 0x3F800000]
    assert parameters[0].value == GlobalMemory.base(0)
    assert len(tensors) == 1
    assert launch.programs == 6
    assert place_arguments(launch, 86)[0][0].offset == 0x160


def test_the_least_bytes() -> None:
    assert least_bytes(KernelCase("layer_norm+residual", 10, 100), "backward") == 4 * 2 * 1000
    assert least_bytes(KernelCase("linear_cross_entropy", 10, 100), "forward") == 2 * 2 * 1000
    # q and k are read and written; cos and sin are fp32, half a head wide.
    assert least_bytes(KernelCase("rope", 128, 768), "forward") == 4 * 2 * 128 * 768 + 2 * 4 * 128 * 32


def test_cases_of_the_chunked_loss_are_chunks() -> None:
    cases = list_cases("linear_cross_entropy", ["bf16"])
    assert {case.rows for case in cases} == {4096}
    assert {32_768, 50_257, 50_304} <= {case.width for case in cases}
    assert all(case.dtype == "fp32" for case in list_cases("layer_norm", ["fp32"]))


@needs_triton
def test_each_bar_is_named_where_it_is_missed() -> None:
    case = KernelCase("softmax", 32_768, 1024)
    op = count(case, "forward")
    assert not find_missed_bars(op, case, "forward")
    (launch,) = op.launches

    def missed(op: OpCount = op, **changes: object) -> list[str]:
        changed = replace(launch, count=replace(launch.count, **changes))  # type: ignore[arg-type]
        return find_missed_bars(replace(op, launches=(changed,)), case, "forward")

    assert missed(spills=2) == ["2 instructions spill registers"]
    assert missed(wide_share=0.5) == ["50% of the bytes of rows by 16 bytes"]
    assert missed(unknown=1) == ["1 jumps or addresses depend on data, so that the count is a guess"]
    assert "guess" in missed(loads={UNKNOWN_ADDRESS: (1.0, 0.0)})[0]
    assert missed(in_flight=20 << 10) == ["20 KB in flight"]
    assert not missed(replace(op, arch=86), in_flight=20 << 10)
    more = {name: (1.05 * first, again) for name, (first, again) in launch.count.loads.items()}
    assert missed(loads=more) == ["1.025 of the least bytes"]
    slow = replace(launch, bounds=replace(launch.bounds, issue=2 * launch.bounds.memory))
    assert "is not below memory" in find_missed_bars(replace(op, launches=(slow,)), case, "forward")[0]


def test_unaligned_rows_need_no_wide_accesses() -> None:
    op = OpCount("ours", (), (), 90)
    assert find_missed_bars(op, KernelCase("cross_entropy", 8192, 50_257), "forward") == []
