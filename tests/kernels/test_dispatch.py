"""The device, the environment, the dtype and the width decide which implementation computes."""

import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import cram_kernels as ck
from cram_kernels import _dispatch, _launch
from cram_kernels._dispatch import MOST_WIDTH, use_triton

pytestmark = pytest.mark.no_launch
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def clear_caches() -> Iterator[None]:
    """Forget what was found about a device, before and after each test."""
    for cached in (_dispatch._find_obstacle, _dispatch._warn_once):
        cached.cache_clear()
    yield
    for cached in (_dispatch._find_obstacle, _dispatch._warn_once):
        cached.cache_clear()


def cuda_tensor(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Return a stand-in for a CUDA tensor, with what the decision looks at. There may be no GPU."""
    return SimpleNamespace(device=torch.device("cuda", 0), dtype=dtype)  # type: ignore[return-value]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Make the decision believe that the machine has an H100."""
    monkeypatch.delenv("CRAM_KERNELS", raising=False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(_dispatch, "HAS_TRITON", True)
    return monkeypatch


def test_the_device_decides(gpu: pytest.MonkeyPatch) -> None:
    assert use_triton(cuda_tensor())
    assert use_triton(None, cuda_tensor(torch.bfloat16), None)
    assert not use_triton(torch.ones(1))


def test_the_environment_forces_either(gpu: pytest.MonkeyPatch) -> None:
    gpu.setenv("CRAM_KERNELS", "reference")
    assert not use_triton(cuda_tensor())
    gpu.setenv("CRAM_KERNELS", "triton")
    assert use_triton(cuda_tensor())
    gpu.setenv("TRITON_INTERPRET", "1")
    assert use_triton(torch.ones(1))


def test_triton_on_a_cpu_needs_the_interpreter(gpu: pytest.MonkeyPatch) -> None:
    gpu.setenv("CRAM_KERNELS", "triton")
    gpu.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(RuntimeError, match="CRAM_KERNELS=triton: Triton takes CPU tensors only under TRITON_INTER"):
        use_triton(torch.ones(1))


def test_another_value_is_refused(gpu: pytest.MonkeyPatch) -> None:
    gpu.setenv("CRAM_KERNELS", "fast")
    with pytest.raises(ValueError, match="CRAM_KERNELS=fast is not a valid value"):
        use_triton(cuda_tensor())


def test_dtypes_and_widths_that_the_kernels_do_not_support(gpu: pytest.MonkeyPatch) -> None:
    assert not use_triton(cuda_tensor(torch.float64))
    assert not use_triton(cuda_tensor(), cuda_tensor(torch.float64))
    assert use_triton(cuda_tensor(), held_width=MOST_WIDTH)
    assert not use_triton(cuda_tensor(), held_width=MOST_WIDTH + 1)


def test_a_machine_without_triton_gives_one_warning(gpu: pytest.MonkeyPatch) -> None:
    gpu.setattr(_dispatch, "HAS_TRITON", False)
    with pytest.warns(UserWarning, match="slower reference implementations: Triton is not installed"):
        assert not use_triton(cuda_tensor())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not use_triton(cuda_tensor())


def test_an_old_gpu_gives_a_warning(gpu: pytest.MonkeyPatch) -> None:
    gpu.setattr(torch.cuda, "get_device_capability", lambda _: (7, 0))
    with pytest.warns(UserWarning, match=r"compute capability 7\.0 is below 7\.5"):
        assert not use_triton(cuda_tensor())


def test_without_triton_the_kernels_import_and_the_reference_computes() -> None:
    code = (
        "import sys\nsys.modules['triton'] = None\nimport torch, cram_kernels as ck\n"
        "print(ck.layer_norm(torch.arange(4.0)).tolist(), ck._dispatch.HAS_TRITON)"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "kernels", capture_output=True, text=True, check=True, env={}
    )
    assert process.stdout.startswith("[-1.34")
    assert process.stdout.strip().endswith("False")


def test_recorded_launches_are_not_carried_out() -> None:
    before = _launch.launch_counts.total()
    with _launch.record_launches() as recorded:
        from cram_kernels._layer_norm_kernels import launch_layer_norm_forward

        x = torch.empty(100, 768, dtype=torch.bfloat16, device="meta")
        launch_layer_norm_forward(x, None, None, None, 1e-5)
    assert _launch.launch_counts.total() == before
    (launch,) = recorded
    assert launch.kernel.__name__ == "_layer_norm_forward_kernel"
    assert launch.arguments[0] is x
    assert launch.constants["BLOCK"] == launch.settings.block == 256


def test_every_public_op_is_documented() -> None:
    for name in ck.__all__:
        assert "Returns:" in (getattr(ck, name).__doc__ or ""), name
