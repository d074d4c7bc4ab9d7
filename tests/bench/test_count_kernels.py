"""The command counts, compares and writes; our kernels meet the bars; peers are recorded as they would be launched."""

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._triton import has_triton

from bench import count_inductor, peer_launches
from bench.count_against import read_against
from bench.count_bars import find_missed_bars
from bench.count_cases import CALLS, DIRECTIONS, calls_of_ours
from bench.count_kernels import main
from bench.count_ops import OpCount, bound_launch, count_ours, count_peer
from bench.kernel_cases import FULL, QUICK, KernelCase
from bench.peer_launches import compile_launch, fake, record_jit
from cram.errors import CramError
from cram_kernels._triton import HAS_TRITON

pytestmark = pytest.mark.skipif(
    not HAS_TRITON or os.environ.get("TRITON_INTERPRET") == "1", reason="needs Triton's compiler"
)

MAIN_CASES = [
    KernelCase(case.op, 4096 if case.op == "linear_cross_entropy" else case.rows, case.width, case.dtype)
    for case in QUICK
]


@pytest.mark.parametrize("case", MAIN_CASES, ids=lambda case: case.name)
def test_our_kernels_meet_the_bars_at_the_main_shape_of_each_op(case: KernelCase) -> None:
    for direction in DIRECTIONS:
        op = count_ours(case, direction, 90)
        assert op is None or not find_missed_bars(op, case, direction)


def test_every_op_of_the_benchmark_is_counted() -> None:
    assert set(CALLS) == {case.op for case in FULL}
    assert all("forward" in calls_of_ours(case) for case in MAIN_CASES)


# --- the command


def test_the_command_counts_compares_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["ops=softmax", "widths=128", "providers=[ours]"]
    before, after = tmp_path / "before.json", tmp_path / "after.json"
    assert main([*words, f"out={before}"]) == 0
    assert main([*words, f"against={before}", f"out={after}"]) == 0
    printed = capsys.readouterr().out
    assert "never measurements" in printed
    assert "ours: 1.00 of before, 1.00 of its instructions" in printed
    assert "0 bars missed by ours" in printed
    counts = json.loads(after.read_text())["counts"]
    assert [(c["provider"], c["direction"]) for c in counts] == [
        ("before", "forward"),
        ("ours", "forward"),
        ("before", "backward"),
        ("ours", "backward"),
    ]
    assert counts[1]["launches"][0]["bounds"]["memory"] > 0
    assert OpCount.from_plain(counts[1], "ours").as_plain() | {"case": 0} == {
        name: value for name, value in counts[1].items() if name not in ("direction", "least_bytes")
    } | {"case": 0}


def test_a_missed_bar_is_said_and_is_the_exit_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("bench.count_bars.LEAST_IN_FLIGHT", 1 << 30)
    assert main(["ops=softmax", "widths=128", "providers=[ours]"]) == 1
    printed = capsys.readouterr().out
    assert "2 bars missed by ours" in printed
    assert "softmax 98304x128 bf16 forward, sm_90: " in printed


def test_another_checkout_is_counted_in_a_process_of_its_own() -> None:
    here = Path(__file__).resolve().parents[2]
    (counted,) = [
        c for c in read_against(here, ["ops=softmax", "widths=128", "archs=[90]"]) if c["direction"] == "forward"
    ]
    ours = count_ours(KernelCase("softmax", 98_304, 128), "forward", 90)
    assert ours is not None
    assert counted["model"] == pytest.approx(ours.model)


def test_what_is_no_checkout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CramError, match="neither a checkout of this project nor a file of counts"):
        read_against(tmp_path, [])


def test_unknown_words() -> None:
    with pytest.raises(CramError, match=r"providers=us is not one of ours, .*"):
        main(["providers=us"])
    with pytest.raises(CramError, match=r"archs=75 is not one of 80, .*"):
        main(["archs=75"])


# --- peers

PEER = """
import triton
import triton.language as tl


@triton.jit
def double_kernel(x_ptr, y_ptr, elements, BLOCK: tl.constexpr):
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_ptr + place, 2 * tl.load(x_ptr + place, mask=place < elements), mask=place < elements)


tuned_kernel = triton.autotune([triton.Config({"BLOCK": 256}, num_warps=1), triton.Config({"BLOCK": 1024})], key=[])(
    double_kernel
)
"""


@pytest.fixture
def peer(tmp_path: Path) -> Any:
    """Return a module with Triton kernels of another package."""
    path = tmp_path / "peer.py"
    path.write_text(PEER)
    spec = importlib.util.spec_from_file_location("peer", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_launches_of_others_are_recorded_at_their_own_settings(peer: Any) -> None:
    with record_jit(86) as recorded:
        x = fake(5000)
        assert torch.cuda.get_device_properties(x.device).multi_processor_count == 82
        peer.double_kernel[(5,)](x, torch.empty_like(x), 5000, BLOCK=1024, num_warps=8)
        peer.tuned_kernel[lambda values: (-(-5000 // values["BLOCK"]),)](x, x, 5000)
    assert [len(alternatives) for alternatives in recorded] == [1, 2]
    ((launch,), (narrow, wide)) = recorded
    assert launch.options == {"num_warps": 8}
    assert (narrow.grid, wide.grid) == ((20, 1, 1), (5, 1, 1))
    counted = bound_launch(compile_launch(launch, 86), 86).count
    assert (counted.warps, counted.programs) == (8, 5)
    assert [first for first, _ in counted.loads.values()] == [20_000]  # with the last program's part
    assert [first for first, _ in counted.stores.values()] == [20_000]


def test_afterwards_there_is_no_gpu() -> None:
    with record_jit(90):
        assert torch.cuda.is_available()
    assert peer_launches.torch.cuda.is_available() is (torch.cuda.device_count() > 0)


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
def test_the_code_of_torchs_compiler_is_counted() -> None:
    found_before = has_triton()  # torch remembers the answer
    op = count_peer("inductor", KernelCase("softmax", 4096, 128), "forward", 90)
    assert has_triton() == found_before
    assert op is not None
    (launch,) = op.launches
    assert launch.count.kernel.startswith("triton_")
    assert launch.count.first_bytes == 2 * 2 * 4096 * 128
    assert not op.torch_calls


@pytest.mark.parametrize("case", MAIN_CASES, ids=lambda case: case.name)
def test_torchs_compiler_has_every_op(case: KernelCase) -> None:
    with record_jit(90):
        assert count_inductor.find_function(case, "forward") is not None


def test_a_peer_without_the_op_is_left_out() -> None:
    assert count_peer("liger", KernelCase("softmax+mask", 1536, 128), "forward", 90) is None
