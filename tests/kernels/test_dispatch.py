"""Which implementation computes: by the device, the environment, the dtype and the width."""

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
def forgotten() -> Iterator[None]:
    """What was found of a device is asked anew."""
    for remembered in (_dispatch._find_obstacle, _dispatch._warn_once):
        remembered.cache_clear()
    yield
    for remembered in (_dispatch._find_obstacle, _dispatch._warn_once):
        remembered.cache_clear()


def on_gpu(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """What the decision asks of a CUDA tensor; there may be no GPU."""
    return SimpleNamespace(device=torch.device("cuda", 0), dtype=dtype)  # type: ignore[return-value]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine with an H100, to all questions asked here."""
    monkeypatch.delenv("CRAM_KERNELS", raising=False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(_dispatch, "HAS_TRITON", True)
    return monkeypatch


def test_the_device_decides(gpu: pytest.MonkeyPatch) -> None:
    assert use_triton(on_gpu())
    assert use_triton(None, on_gpu(torch.bfloat16), None)
    assert not use_triton(torch.ones(1))


def test_the_environment_forces_either(gpu: pytest.MonkeyPatch) -> None:
    gpu.setenv("CRAM_KERNELS", "reference")
    assert not use_triton(on_gpu())
    gpu.setenv("CRAM_KERNELS", "triton")
    assert use_triton(on_gpu())
    gpu.setenv("TRITON_INTERPRET", "1")
    assert use_triton(torch.ones(1))


def test_triton_on_a_cpu_needs_the_interpreter(gpu: pytest.MonkeyPatch) -> None:
    gpu.setenv("CRAM_KERNELS", "triton")
    gpu.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(RuntimeError, match="CRAM_KERNELS=triton: Triton takes CPU tensors only under TRITON_INTER"):
        use_triton(torch.ones(1))


def test_another_word_is_refused(gpu: pytest.MonkeyPatch) -> None:
    gpu.setenv("CRAM_KERNELS", "fast")
    with pytest.raises(ValueError, match="CRAM_KERNELS=fast is not a valid value"):
        use_triton(on_gpu())


def test_dtypes_and_widths_that_are_not_served(gpu: pytest.MonkeyPatch) -> None:
    assert not use_triton(on_gpu(torch.float64))
    assert not use_triton(on_gpu(), on_gpu(torch.float64))
    assert use_triton(on_gpu(), held_width=MOST_WIDTH)
    assert not use_triton(on_gpu(), held_width=MOST_WIDTH + 1)


def test_a_machine_without_triton_is_warned_of_once(gpu: pytest.MonkeyPatch) -> None:
    gpu.setattr(_dispatch, "HAS_TRITON", False)
    with pytest.warns(UserWarning, match="slower reference implementations: Triton is not installed"):
        assert not use_triton(on_gpu())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not use_triton(on_gpu())


def test_an_old_gpu_is_warned_of(gpu: pytest.MonkeyPatch) -> None:
    gpu.setattr(torch.cuda, "get_device_capability", lambda _: (7, 0))
    with pytest.warns(UserWarning, match=r"compute capability 7\.0 is below 7\.5"):
        assert not use_triton(on_gpu())


def test_without_triton_the_kernels_import_and_the_reference_computes() -> None:
    code = (
        "import sys\nsys.modules['triton'] = None\nimport torch, cram_kernels as ck\n"
        "print(ck.layer_norm(torch.arange(4.0)).tolist(), ck._dispatch.HAS_TRITON)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "kernels", capture_output=True, text=True, check=True, env={}
    )
    assert done.stdout.startswith("[-1.34")
    assert done.stdout.strip().endswith("False")


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
    assert launch.constants["BLOCK"] == launch.settings.block == 1024


def test_every_public_op_is_documented() -> None:
    for name in ck.__all__:
        assert "Returns:" in (getattr(ck, name).__doc__ or ""), name
