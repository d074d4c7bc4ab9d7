"""The C++ kernels for a CPU: when they are compiled, which tensors they take, and what only they can get wrong.

The other tests of this folder compare them with float64, where the machine has a compiler.
"""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import cram_kernels as ck
from cram_kernels import _cpu, _cpu_launchers
from cram_kernels._cross_entropy_kernels import LossTerms
from cram_kernels._dispatch import use_cpu_kernels
from cram_kernels.cross_entropy import cross_entropy_reference

pytestmark = [
    pytest.mark.no_launch,
    pytest.mark.skipif(_cpu.load_library() is None, reason="the kernels cannot be compiled on this machine"),
]


@pytest.fixture(autouse=True)
def unforced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CRAM_KERNELS", raising=False)


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """A number of threads, which torch is set to."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture
def forget() -> Iterator[None]:
    """Forget the loaded library before and after a test."""
    _cpu.load_library.cache_clear()
    yield
    _cpu.load_library.cache_clear()


def test_tensors_and_the_environment_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    assert use_cpu_kernels(torch.ones(1), None, torch.ones(1, dtype=torch.bfloat16))
    assert not use_cpu_kernels(torch.ones(1), torch.ones(1, dtype=torch.float64))
    assert not use_cpu_kernels(torch.ones(1, dtype=torch.float16))
    assert not use_cpu_kernels(torch.ones(0, 3))
    assert not use_cpu_kernels(torch.ones(1, device="meta"))
    for forced, expected in (("cpu", True), ("reference", False), ("triton", False)):
        monkeypatch.setenv("CRAM_KERNELS", forced)
        assert use_cpu_kernels(torch.ones(1)) == expected


def test_one_library_is_compiled_and_then_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forget: None) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert _cpu.load_library() is not None
    (library,) = (tmp_path / "cram_kernels").iterdir()
    before = library.stat().st_mtime_ns
    _cpu.load_library.cache_clear()
    assert _cpu.load_library() is not None
    assert list(library.parent.iterdir()) == [library] and library.stat().st_mtime_ns == before


@pytest.mark.parametrize("compiler", ["no-such-compiler", "false"])
def test_without_a_compiler_the_reference_computes(
    compiler: str, monkeypatch: pytest.MonkeyPatch, forget: None
) -> None:
    monkeypatch.setenv("CXX", compiler)
    x = torch.arange(4.0)
    assert not use_cpu_kernels(x)
    torch.testing.assert_close(ck.layer_norm(x), torch.nn.functional.layer_norm(x, (4,)))
    monkeypatch.setenv("CRAM_KERNELS", "cpu")
    with pytest.raises(RuntimeError, match="CRAM_KERNELS=cpu: the kernels could not be compiled"):
        ck.layer_norm(x)


def test_a_compiler_that_fails_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forget: None) -> None:
    compiler = tmp_path / "compiler"
    compiler.write_text('#!/bin/sh\n[ "$1" = --version ] && exec true\nexit 1\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert shutil.which(str(compiler)) and _cpu.load_library() is None
    assert list((tmp_path / "cram_kernels").iterdir()) == []


@pytest.fixture
def quick_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A compiler that copies what another one compiled; CXX names it with the argument -m64."""
    library = _cpu.load_library()
    assert library is not None
    _cpu.load_library.cache_clear()
    compiler = tmp_path / "compiler"
    compiler.write_text(
        f'#!/bin/sh\n[ "$1" = -m64 ] || exit 1\n[ "$2" = --version ] && exit 0\n'
        f'while [ "$1" != -o ]; do shift; done\ncp "{library._name}" "$2"\n'
    )
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", f"'{compiler}' -m64")
    return compiler


def test_the_compiler_may_have_arguments(
    quick_compiler: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forget: None
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert _cpu.load_library() is not None
    _cpu.load_library.cache_clear()
    monkeypatch.setenv("CXX", f"'{quick_compiler}")
    assert _cpu.load_library() is None


@pytest.mark.parametrize("error", [RuntimeError, PermissionError])
def test_without_a_cache_folder_a_process_compiles_for_itself(
    error: type[Exception], quick_compiler: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forget: None
) -> None:
    def refuse() -> Path:
        raise error

    monkeypatch.setattr(_cpu, "_cache_folder", refuse)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    assert use_cpu_kernels(torch.ones(1))
    assert ck.softmax(torch.zeros(2)).tolist() == [0.5, 0.5]
    assert list(temporary.iterdir()) == []


def test_every_bf16_number_is_read_and_written_as_itself() -> None:
    numbers = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    heads = torch.stack((numbers, torch.zeros_like(numbers)), 1).view(1, -1, 2)  # pairs (number, 0), not rotated
    rotated = ck.rope(heads, heads, torch.ones(1, 1), torch.zeros(1, 1))[0][0, :, 0]
    is_nan = numbers.isnan()
    assert torch.equal(rotated.isnan(), is_nan)
    assert torch.equal(rotated[~is_nan].view(torch.int16), numbers[~is_nan].view(torch.int16))


def test_bf16_results_are_rounded_to_nearest_with_ties_to_even() -> None:
    exact = torch.tensor([1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-16, 3.4e38, float("inf")])
    ones = torch.ones(1, 5, 2, dtype=torch.bfloat16)
    ones[..., 1] = 0
    heads = ones.view(5, 1, 2)
    rotated = ck.rope(heads, heads, exact[:, None], torch.zeros(5, 1))[0][:, 0, 0]
    assert torch.equal(rotated, exact.bfloat16())


def test_the_exponential_everywhere() -> None:
    gaps = torch.linspace(0, 86.9, 4001, dtype=torch.float64).float()
    pairs = torch.stack((torch.zeros_like(gaps), -gaps), 1)
    computed, expected = ck.softmax(pairs)[:, 1].double(), torch.softmax(pairs.double(), 1)[:, 1]
    assert float(((computed - expected) / expected).abs().max()) < 4e-7
    assert ck.softmax(torch.tensor([0.0, -88.0, -1e30, -torch.inf])).tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_sums_of_layer_norm_over_rows_are_wide(dtype: torch.dtype, threads: int) -> None:
    x, upstream = (torch.randn(4099, 24).to(dtype) for _ in range(2))
    weight = torch.ones(24, requires_grad=True)
    ck.layer_norm(x, weight).backward(upstream)
    expected = (torch.nn.functional.layer_norm(x.double(), (24,)) * upstream.double()).sum(0)
    torch.testing.assert_close(weight.grad, expected.float(), atol=2e-4, rtol=1e-5)


def test_rows_are_split_over_threads(threads: int) -> None:
    x = torch.randn(7, 3, 700, 40)
    mask = torch.rand(7, 1, 700, 40) > 0.2
    expected = torch.softmax(torch.where(mask, x, -torch.inf), -1)
    torch.testing.assert_close(ck.softmax(x, mask=mask), expected, equal_nan=True)


@pytest.mark.parametrize("terms", [LossTerms(-100, 0.0, 0.0), LossTerms(-100, 0.1, 1e-3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logits_become_the_gradient_of_the_reference(dtype: torch.dtype, terms: LossTerms, threads: int) -> None:
    logits = (4 * torch.randn(60, 1000)).to(dtype)
    target = torch.randint(0, 1000, (60,))
    target[::7] = -100
    expected, computed = logits.clone(), logits.clone()
    losses, _ = cross_entropy_reference(expected, target, terms, in_place=True)
    torch.testing.assert_close(_cpu_launchers.turn_into_gradient(computed, target, terms), losses)
    valid = target != -100
    torch.testing.assert_close(
        computed[valid], expected[valid], atol=1e-6, rtol=2e-2 if dtype != torch.float32 else 1e-4
    )
    assert not computed[~valid].any()


@pytest.mark.parametrize("damage", [float("nan"), float("inf"), -float("inf")])
def test_a_row_of_bad_logits_gives_nan_and_the_others_do_not(damage: float) -> None:
    logits = torch.randn(2, 20)
    logits[0] = damage
    losses = _cpu_launchers.turn_into_gradient(logits, torch.tensor([3, 4]), LossTerms(-100, 0.0, 0.0))
    assert losses.isnan().tolist() == [True, False] and logits.isnan().any(1).tolist() == [True, False]


def test_a_target_out_of_range_is_refused() -> None:
    hidden = torch.randn(2, 3, requires_grad=True)
    with pytest.raises(IndexError, match="target 5 is out of range"):
        ck.linear_cross_entropy(hidden, torch.randn(5, 3), torch.tensor([0, 5]))
