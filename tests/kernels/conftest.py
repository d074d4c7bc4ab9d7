"""The same tests run with three backends: the reference on a CPU, Triton in its interpreter, and Triton on a GPU.

For the interpreter, TRITON_INTERPRET=1 and CRAM_KERNELS=triton must be in the environment of the process. With the last
two backends a test fails if no kernel was launched, unless it is marked `no_launch`.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from cram_kernels._launch import launch_counts
from cram_kernels._triton import HAS_TRITON, triton

KERNELS = Path(__file__).parents[2] / "kernels"
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip all tests of the interpreter where it does not work."""
    reason = _no_interpreter() if INTERPRETED else None
    if reason:
        for item in items:
            item.add_marker(pytest.mark.skip(reason=reason))


def _no_interpreter() -> str | None:
    """Return why the interpreter does not work: Triton is missing, or fails beside NumPy 2.4 (Triton before 3.7)."""
    if not HAS_TRITON:
        return "Triton is not installed"
    triton_version, numpy_version = (
        tuple(int(part) for part in module.__version__.split(".")[:2]) for module in (triton, np)
    )
    if triton_version < (3, 7) and numpy_version >= (2, 4):
        return f"the interpreter of triton {triton.__version__} fails beside numpy {np.__version__}"
    return None


@pytest.fixture(scope="session")
def backend() -> str:
    """`reference`, `interpreter` or `gpu`. Only a GPU gets full shapes; the interpreter gets small ones."""
    if INTERPRETED:
        return "interpreter"
    return "gpu" if torch.cuda.is_available() else "reference"


@pytest.fixture(scope="session")
def device(backend: str) -> torch.device:
    """The device of the tensors in a test."""
    return torch.device("cuda" if backend == "gpu" else "cpu")


@pytest.fixture(autouse=True)
def triton_ran(request: pytest.FixtureRequest, backend: str) -> Iterator[None]:
    """Fail a test that should have launched a Triton kernel and did not."""
    torch.manual_seed(0)
    before = launch_counts.total()
    yield
    if backend != "reference" and not request.node.get_closest_marker("no_launch"):
        assert launch_counts.total() > before, "no Triton kernel was launched"


# Tensors (..., 16) whose rows do not simply follow one another.
STRIDES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "a part of longer rows": lambda base: base[..., 3:19],
    "every second row": lambda base: base[:, ::2, :16],
    "transposed": lambda base: base.transpose(0, 1)[..., :16],
    "columns apart": lambda base: base[..., ::2],
    "width first": lambda base: base.permute(2, 0, 1)[:16].permute(1, 2, 0),
    "expanded": lambda base: base[:1, :, :16].expand(6, 10, 16),
    "unaligned": lambda base: base.flatten()[1 : 1 + 6 * 10 * 16].view(6, 10, 16),
}


@pytest.fixture(params=STRIDES)
def strided(request: pytest.FixtureRequest, device: torch.device) -> Callable[[], torch.Tensor]:
    """A function that makes random tensors of three dimensions, the last of 16, in one of the layouts."""
    return lambda: STRIDES[request.param](torch.randn(6, 10, 32, device=device))


@pytest.fixture(scope="session")
def run_in_subprocess() -> Callable[[str], None]:
    """A function that runs code in another process, which must end with status 0.

    An offset that overflows would end the process by a signal.

    What is launched there counts here.
    """

    def run(code: str) -> None:
        code += "\nfrom cram_kernels._launch import launch_counts\nprint(launch_counts.total())"
        process = subprocess.run([sys.executable, "-c", code], cwd=KERNELS, capture_output=True, text=True, check=False)
        assert process.returncode == 0, process.stderr
        launch_counts["apart"] += int(process.stdout)

    return run
